//! Standard streams (§8), for processes of the VM and of containers alike.

use std::{io::Write as _, time::Duration};

use serde_json::json;

use crate::{
    case::{Case, Need, Outcome, Stop, ensure},
    context::{Context, NONE, Running, read_to_end},
    frame::{VM, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("stdio/three-streams-vm", "8", &[Need::Shell], three_streams_vm),
    Case::new(
        "stdio/three-streams-init",
        "8",
        &[Need::Container],
        three_streams_init,
    ),
    Case::new(
        "stdio/three-streams-exec",
        "8",
        &[Need::Container],
        three_streams_exec,
    ),
    Case::new(
        "stdio/half-close-is-the-end-vm",
        "8",
        &[Need::Shell],
        half_close_vm,
    ),
    Case::new(
        "stdio/half-close-is-the-end-container",
        "8",
        &[Need::Container],
        half_close_container,
    ),
    Case::new(
        "stdio/one-connection-a-port",
        "13.8",
        &[Need::Shell],
        one_connection,
    ),
    Case::new("stdio/only-wanted-streams", "6", &[Need::Shell], only_wanted),
    Case::new("stdio/input-nobody-reads", "8", &[Need::Container], unread_input),
    Case::new("stdio/a-reader-that-goes-away", "8", &[Need::Shell], reader_goes),
    Case::new(
        "stdio/output-ends-with-the-process",
        "8",
        &[Need::Shell],
        output_ends,
    ),
];

const SCRIPT: &str = "cat; echo to stderr >&2; exit 21";

/// What goes in comes out, each stream is its own, each ends, and the exit code is right.
fn three_streams(ctx: &mut Context<'_>, mut process: Running, of: &str) -> Outcome {
    if let Some(stdin) = &mut process.stdin {
        stdin.write_all(b"first\n")?;
        stdin.write_all(b"\x00\xff last")?;
    }
    process.end_input()?;
    let out = read_to_end(process.stdout.take(), "standard output")?;
    ensure(out == b"first\n\x00\xff last", || {
        format!("standard output is {:?}", String::from_utf8_lossy(&out))
    })?;
    let err = read_to_end(process.stderr.take(), "standard error")?;
    ensure(err == b"to stderr\n", || {
        format!("standard error is {:?}", String::from_utf8_lossy(&err))
    })?;
    let code = ctx.wait(of, process.pid)?;
    ensure(code == 21, || format!("the exit code is {code}"))
}

fn three_streams_vm(ctx: &mut Context<'_>) -> Outcome {
    let process = ctx.vm_shell(SCRIPT, [true; 3])?;
    three_streams(ctx, process, VM)
}

fn three_streams_init(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create(SCRIPT)?;
    let process = ctx.start_init(&id, [true; 3])?;
    three_streams(ctx, process, &id)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn three_streams_exec(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("read line")?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    let process = ctx.exec(&id, SCRIPT, [true; 3])?;
    three_streams(ctx, process, &id)?;
    init.end_input()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// The host ends its sending; the process reads the end, and can still answer on the other stream.
fn half_close(ctx: &mut Context<'_>, mut process: Running, of: &str) -> Outcome {
    if let Some(stdin) = &mut process.stdin {
        stdin.write_all(b"12345")?;
    }
    process.end_input()?;
    let text = process.output()?;
    ensure(text.trim() == "5", || {
        format!("wc says {text:?} of five bytes and an end")
    })?;
    ctx.wait(of, process.pid).map(drop)
}

fn half_close_vm(ctx: &mut Context<'_>) -> Outcome {
    let process = ctx.vm_shell("wc -c", [true, true, false])?;
    half_close(ctx, process, VM)
}

fn half_close_container(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("wc -c")?;
    let process = ctx.start_init(&id, [true, true, false])?;
    half_close(ctx, process, &id)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// The host accepts one connection for a port; a second one would be somebody else's.
fn one_connection(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("cat; echo to stderr >&2")?;
    let (id, ports) = ctx.send_execute(VM, json!({"CommandArgs": words}), [true; 3])?;
    let reply = ctx.session.answer(id)?.ok()?;
    let mut process = ctx.connected(&reply, &ports)?;
    process.end_input()?;
    read_to_end(process.stdout.take(), "standard output")?;
    read_to_end(process.stderr.take(), "standard error")?;
    ctx.wait(VM, process.pid)?;
    for (port, name) in ports.iter().zip(["stdin", "stdout", "stderr"]) {
        let Some(port) = port else { continue };
        let second = port.accept(Duration::from_millis(100))?;
        ensure(second.is_none(), || format!("{name} was dialled twice"))?;
    }
    Ok(())
}

/// A port without its flag is not dialled.
fn only_wanted(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("echo out; echo err >&2; read line; exit 3")?;
    let ports = [ctx.port()?, ctx.port()?, ctx.port()?];
    let relay = json!({"StdIn": ports[0].number, "StdOut": ports[1].number, "StdErr": ports[2].number});
    let parameters = json!({"CommandArgs": words, "CreateStdErrPipe": true, "CreateStdOutPipe": false});
    let settings = json!({"ProcessParameters": parameters.to_string(), "VsockStdioRelaySettings": relay});
    let reply = ctx
        .vm(word::EXECUTE_PROCESS, json!({"Settings": settings}))?
        .ok()?;
    let [stdin, stdout, stderr] = ports;
    let mut process = ctx.connected(&reply, &[None, None, Some(stderr)])?;
    let err = read_to_end(process.stderr.take(), "standard error")?;
    ensure(err == b"err\n", || {
        format!("standard error is {:?}", String::from_utf8_lossy(&err))
    })?;
    // Unwanted streams lead nowhere: standard input is at its end at once.
    let code = ctx.wait(VM, process.pid)?;
    ensure(code == 3, || format!("the exit code is {code}"))?;
    for (port, name) in [(stdin, "stdin"), (stdout, "stdout")] {
        let dialled = port.accept(Duration::from_millis(50))?;
        ensure(dialled.is_none(), || {
            format!("{name} was dialled though its flag is not set")
        })?;
    }
    Ok(())
}

/// Who no longer reads ends the writer's pipe, not the agent.
fn reader_goes(ctx: &mut Context<'_>) -> Outcome {
    let script = "i=0; while [ $i -lt 100000 ]; do echo 0123456789012345678901234567890123456789 || exit 1; i=$((i+1)); done";
    let mut process = ctx.vm_shell(script, [false, true, false])?;
    if let Some(stdout) = process.stdout.take() {
        let mut some = [0; 10];
        std::io::Read::read_exact(&mut &stdout, &mut some)
            .map_err(|error| Stop::Failed(format!("standard output broke: {error}")))?;
    }
    ctx.wait(VM, process.pid)?;
    let other = ctx.vm_shell("exit 8", NONE)?;
    let code = ctx.wait(VM, other.pid)?;
    ensure(code == 8, || format!("the next process ended with {code}"))
}

/// With the last writer gone the stream ends, without the host doing anything.
fn output_ends(ctx: &mut Context<'_>) -> Outcome {
    let mut process = ctx.vm_shell("echo done", [true, true, true])?;
    let text = process.output()?;
    ensure(text == "done\n", || format!("standard output is {text:?}"))?;
    let err = read_to_end(process.stderr.take(), "standard error")?;
    ensure(err.is_empty(), || {
        format!("standard error is {:?}", String::from_utf8_lossy(&err))
    })?;
    ctx.wait(VM, process.pid).map(drop)
}

/// Standard input that is full when the process ends: the agent closes it, so that the host's writing ends too.
fn unread_input(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("sleep 0.5; exit 4")?;
    let mut init = ctx.start_init(&id, [true, true, false])?;
    write_until_closed(init.stdin.take())?;
    let code = ctx.wait(&id, init.pid)?;
    ensure(code == 4, || format!("the exit code is {code}"))?;
    init.stdout = None;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// Writes more than any buffer holds, and expects that this ends.
pub(super) fn write_until_closed(stream: Option<std::os::unix::net::UnixStream>) -> Outcome {
    let Some(mut stream) = stream else {
        return Err(Stop::NotTried("no stream".into()));
    };
    let piece = [b'x'; 4096];
    for _ in 0..2048 {
        match stream.write_all(&piece) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                return Err(Stop::Failed(
                    "standard input was neither read nor closed, though the process has ended".into(),
                ));
            }
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}
