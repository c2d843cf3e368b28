//! Terminals: one stream each way, a size, and ResizeConsole (§6, §8).

use std::{io::Read as _, io::Write as _};

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, Stop, ensure, failed},
    context::{Context, Running},
    frame::{VM, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("terminal/of-a-vm-process", "8", &[Need::Shell], of_a_vm_process),
    Case::new("terminal/of-a-containers-init", "8", &[Need::Container], of_init),
    Case::new("terminal/of-an-exec", "8", &[Need::Container], of_exec),
    Case::new("terminal/half-close-is-the-end", "8", &[Need::Shell], half_close),
    Case::new("terminal/input-nobody-reads", "8", &[Need::Shell], unread_input),
    Case::new(
        "terminal/resize-after-the-end",
        "6",
        &[Need::Shell],
        resize_after_the_end,
    ),
];

const SCRIPT: &str = "stty -echo; test -t 0 && test -t 1 && test -t 2 && echo is-a-terminal; read line; \
                      echo size $(stty size); echo to stderr >&2; read line; exit 17";

/// Reads until `wanted` has come.
fn read_until(process: &mut Running, wanted: &str, text: &mut String) -> Outcome {
    let Some(stdout) = &mut process.stdout else {
        return failed("there is no standard output");
    };
    let mut buffer = [0; 512];
    while !text.contains(wanted) {
        match stdout.read(&mut buffer) {
            Ok(0) => return failed(format!("the terminal's output ended before {wanted:?}: {text:?}")),
            Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
            Err(error) => return failed(format!("no {wanted:?} came ({error}): {text:?}")),
        }
    }
    Ok(())
}

fn type_line(process: &mut Running) -> Outcome {
    let Some(stdin) = &mut process.stdin else {
        return failed("there is no standard input");
    };
    stdin
        .write_all(b"\n")
        .map_err(|error| Stop::Failed(format!("standard input broke: {error}")))
}

fn terminal(ctx: &mut Context<'_>, mut process: Running, of: &str) -> Outcome {
    let mut text = String::new();
    read_until(&mut process, "is-a-terminal", &mut text)?;
    let size = json!({"ProcessId": process.pid, "Height": 41, "Width": 101});
    ctx.of(of, word::RESIZE_CONSOLE, size)?.ok()?;
    type_line(&mut process)?;
    read_until(&mut process, "size 41 101", &mut text)?;
    // All of its output is on the one stream.
    read_until(&mut process, "to stderr", &mut text)?;
    type_line(&mut process)?;
    process.output()?;
    let code = ctx.wait(of, process.pid)?;
    ensure(code == 17, || format!("the exit code is {code}"))
}

/// Starts with the two streams a terminal has.
fn start(ctx: &mut Context<'_>, of: &str, parameters: Value) -> Outcome<Running> {
    ctx.execute(of, parameters, [true, true, false])
}

fn of_a_vm_process(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words(SCRIPT)?;
    let process = start(ctx, VM, json!({"CommandArgs": words, "EmulateConsole": true}))?;
    terminal(ctx, process, VM)
}

fn of_init(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create_with(SCRIPT, |spec| spec["process"]["terminal"] = true.into())?;
    ctx.of(&id, word::START, json!({}))?.ok()?;
    let process = start(ctx, &id, json!({"EmulateConsole": true}))?;
    terminal(ctx, process, &id)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn of_exec(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("read line")?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    let mut words = ctx.container_setup()?.shell.clone();
    words.push(SCRIPT.to_owned());
    let document = json!({"cwd": "/", "terminal": true, "user": {"uid": 0, "gid": 0}, "args": words});
    let process = start(ctx, &id, json!({"EmulateConsole": true, "OciProcess": document}))?;
    terminal(ctx, process, &id)?;
    init.end_input()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// A window that changes as the program ends is nobody's mistake.
fn resize_after_the_end(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("exit 0")?;
    let mut process = start(ctx, VM, json!({"CommandArgs": words, "EmulateConsole": true}))?;
    process.output()?;
    process.stdin = None;
    ctx.wait(VM, process.pid)?;
    let size = json!({"ProcessId": process.pid, "Height": 41, "Width": 101});
    ctx.vm(word::RESIZE_CONSOLE, size)?.ok().map(drop)
}

/// A terminal in raw mode keeps what is typed until it is full; with the process, the typing ends.
fn unread_input(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("stty raw -echo || exit 1; sleep 0.5; exit 4")?;
    let mut process = start(ctx, VM, json!({"CommandArgs": words, "EmulateConsole": true}))?;
    super::stdio::write_until_closed(process.stdin.take())?;
    process.output()?;
    let code = ctx.wait(VM, process.pid)?;
    ensure(code == 4, || format!("the exit code is {code}"))
}

/// The end of the host's sending is the end of the terminal's input, for a program that reads lines.
fn half_close(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("stty -echo; echo ready; cat; echo the end; exit 6")?;
    let mut process = start(ctx, VM, json!({"CommandArgs": words, "EmulateConsole": true}))?;
    let mut text = String::new();
    read_until(&mut process, "ready", &mut text)?;
    if let Some(stdin) = &mut process.stdin {
        stdin.write_all(b"a line\n")?;
    }
    process.end_input()?;
    read_until(&mut process, "the end", &mut text)?;
    ensure(text.contains("a line"), || format!("the terminal says {text:?}"))?;
    process.output()?;
    let code = ctx.wait(VM, process.pid)?;
    ensure(code == 6, || format!("the exit code is {code}"))
}
