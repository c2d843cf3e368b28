//! WaitForProcess and SignalProcess (§6), on processes of the VM.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::{Context, NONE, Running},
    frame::{VM, code, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("wait/exit-code", "6", &[Need::Shell], exit_codes),
    Case::new("wait/after-the-end", "6", &[Need::Shell], after_the_end),
    Case::new("wait/with-a-limit", "6", &[Need::Shell], with_a_limit),
    Case::new("signal/the-one-given", "6", SIGNALS, the_one_given),
    Case::new("signal/none-is-kill", "6", SIGNALS, none_is_kill),
    Case::new("signal/ended-process", "4", SIGNALS, ended_process),
    Case::new("resize/no-such-process", "6", &[], resize_nobody),
];

const SIGNALS: &[Need] = &[Need::Shell, Need::Capability("SignalProcessSupported")];

/// Ends by itself, should nobody signal it.
const TRAP: &str =
    "trap 'exit 9' TERM; echo ready; i=0; while [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done";

fn exit_codes(ctx: &mut Context<'_>) -> Outcome {
    for code in [0, 1, 42, 255] {
        let process = ctx.vm_shell(&format!("exit {code}"), NONE)?;
        let got = ctx.wait(VM, process.pid)?;
        ensure(got == code, || format!("exit {code} is reported as {got}"))?;
    }
    Ok(())
}

fn after_the_end(ctx: &mut Context<'_>) -> Outcome {
    let process = ctx.vm_shell("exit 11", NONE)?;
    ctx.wait(VM, process.pid)?;
    let again = ctx.wait(VM, process.pid)?;
    ensure(again == 11, || format!("asked again, the exit code is {again}"))
}

fn with_a_limit(ctx: &mut Context<'_>) -> Outcome {
    let process = ctx.vm_shell("read line; exit 4", [true, false, false])?;
    let begun = Instant::now();
    ctx.vm(
        word::WAIT_FOR_PROCESS,
        json!({"ProcessId": process.pid, "TimeoutInMs": 300}),
    )?
    .fails(&[code::WAIT_TIMEOUT])?;
    ensure(begun.elapsed() >= Duration::from_millis(250), || {
        format!("a wait of 300 ms ended after {}", begun.elapsed().as_millis())
    })?;
    // An absent number is 0: no time at all.
    ctx.vm(word::WAIT_FOR_PROCESS, json!({"ProcessId": process.pid}))?
        .fails(&[code::WAIT_TIMEOUT])?;
    // The process is as it was, and can be waited for.
    let wait = json!({"ProcessId": process.pid, "TimeoutInMs": 30_000});
    let id = ctx.send(VM, word::WAIT_FOR_PROCESS, wait);
    process
        .stdin
        .as_ref()
        .map_or(Ok(()), |stdin| stdin.shutdown(std::net::Shutdown::Write))?;
    let reply = ctx.session.answer(id)?.ok()?;
    ensure(reply["ExitCode"] == 4, || {
        format!("the exit code is {}", reply["ExitCode"])
    })
}

/// A process that has set its trap.
fn trapping(ctx: &mut Context<'_>) -> Outcome<Running> {
    let mut process = ctx.vm_shell(TRAP, [false, true, false])?;
    let mut ready = [0; 6];
    if let Some(stdout) = &mut process.stdout {
        std::io::Read::read_exact(stdout, &mut ready)
            .map_err(|error| crate::case::Stop::Failed(format!("standard output broke: {error}")))?;
    }
    Ok(process)
}

fn signal(ctx: &mut Context<'_>, pid: u32, options: Value) -> Outcome<bool> {
    let mut body = json!({"ProcessId": pid});
    if !options.is_null() {
        body["Options"] = options;
    }
    let reply = ctx.vm(word::SIGNAL_PROCESS, body)?;
    if reply.result.cast_unsigned() == code::UNKNOWN_CONTAINER {
        return Err(crate::case::Stop::NotTried(
            "the agent looks for a container before it signals, as the reference does, and the VM is none"
                .into(),
        ));
    }
    reply.ok().map(|_| true)
}

fn the_one_given(ctx: &mut Context<'_>) -> Outcome {
    let mut process = trapping(ctx)?;
    signal(ctx, process.pid, json!({"Signal": 15}))?;
    process.stdout = None;
    let code = ctx.wait(VM, process.pid)?;
    ensure(code == 9, || {
        format!("the process did not see SIGTERM: it ended with {code}")
    })
}

fn none_is_kill(ctx: &mut Context<'_>) -> Outcome {
    for options in [json!(null), json!({}), json!({"Signal": 0})] {
        let mut process = trapping(ctx)?;
        signal(ctx, process.pid, options.clone())?;
        process.stdout = None;
        let code = ctx.wait(VM, process.pid)?;
        ensure(code != 9 && code != 0, || {
            format!("Options {options} did not kill: the process ended with {code}")
        })?;
    }
    Ok(())
}

fn ended_process(ctx: &mut Context<'_>) -> Outcome {
    let process = ctx.vm_shell("exit 0", NONE)?;
    ctx.wait(VM, process.pid)?;
    let body = json!({"ProcessId": process.pid, "Options": {"Signal": 15}});
    ctx.vm(word::SIGNAL_PROCESS, body)?
        .fails(&[code::UNKNOWN_PROCESS, code::UNKNOWN_CONTAINER])
}

fn resize_nobody(ctx: &mut Context<'_>) -> Outcome {
    let body = json!({"ProcessId": 4_194_301, "Height": 24, "Width": 80});
    ctx.vm(word::RESIZE_CONSOLE, body)?
        .fails(&[code::UNKNOWN_PROCESS, code::UNKNOWN_CONTAINER])
}
