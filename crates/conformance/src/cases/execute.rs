//! ExecuteProcess in the VM (§6): what is run, where, with what.

use serde_json::json;

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::{Context, NONE, OUT},
    frame::{NO_ACTIVITY, VM, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("execute/command-args", "6", &[Need::Shell], command_args),
    Case::new("execute/command-line", "6", &[Need::Shell], command_line),
    Case::new("execute/args-win-over-line", "6", &[Need::Shell], args_win),
    Case::new(
        "execute/environment-and-directory",
        "6",
        &[Need::Shell],
        environment,
    ),
    Case::new(
        "execute/in-the-vm-by-a-containers-id",
        "6",
        &[Need::Shell],
        in_the_vm,
    ),
    Case::new(
        "execute/without-relay-settings",
        "6",
        &[Need::Shell],
        without_relay,
    ),
    Case::new("execute/no-such-program", "6", &[], no_such_program),
    Case::new("execute/no-command", "6", &[], no_command),
    Case::new(
        "execute/a-failed-dial-fails-the-request",
        "6",
        &[Need::Shell],
        failed_dial,
    ),
];

fn command_args(ctx: &mut Context<'_>) -> Outcome {
    let mut words = ctx.vm_words("echo \"$1|$2|$#\"")?;
    words.extend(["zero".into(), "a  b".into(), "it's \"$x\" \\".into()]);
    let mut process = ctx.execute(VM, json!({"CommandArgs": words}), OUT)?;
    let text = process.output()?;
    ensure(text == "a  b|it's \"$x\" \\|2\n", || {
        format!("the arguments arrived as {text:?}")
    })?;
    ctx.wait(VM, process.pid).map(drop)
}

fn command_line(ctx: &mut Context<'_>) -> Outcome {
    let shell = ctx.vm_words("")?;
    let start = shell[..shell.len() - 1].join(" ");
    let line = format!("{start} 'echo \"$0|$1\"' \"a  b\" c\\ d");
    let mut process = ctx.execute(VM, json!({"CommandLine": line}), OUT)?;
    let text = process.output()?;
    ensure(text == "a  b|c d\n", || {
        format!("the command line was split into {text:?}")
    })?;
    ctx.wait(VM, process.pid).map(drop)
}

fn args_win(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("exit 5")?;
    let parameters = json!({"CommandArgs": words, "CommandLine": "/no/such/program"});
    let process = ctx.execute(VM, parameters, NONE)?;
    let code = ctx.wait(VM, process.pid)?;
    ensure(code == 5, || format!("the exit code is {code}"))
}

fn environment(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("echo \"$GREETING|$(pwd)\"")?;
    let parameters = json!({
        "CommandArgs": words, "WorkingDirectory": "/proc", "Environment": {"GREETING": "good  day=x"},
    });
    let mut process = ctx.execute(VM, parameters, OUT)?;
    let text = process.output()?;
    ensure(text == "good  day=x|/proc\n", || {
        format!("the process says {text:?}")
    })?;
    ctx.wait(VM, process.pid).map(drop)
}

fn in_the_vm(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("exit 6")?;
    let parameters = json!({"CommandArgs": words, "CreateInUtilityVM": true});
    let process = ctx.execute("no-such-container", parameters, NONE)?;
    let code = ctx.wait("no-such-container", process.pid)?;
    ensure(code == 6, || format!("the exit code is {code}"))
}

fn no_such_program(ctx: &mut Context<'_>) -> Outcome {
    let parameters = json!({"CommandArgs": ["/no/such/program"]}).to_string();
    let settings = json!({"ProcessParameters": parameters, "VsockStdioRelaySettings": {}});
    ctx.vm(word::EXECUTE_PROCESS, json!({"Settings": settings}))?
        .fails(&[])
}

fn no_command(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({"ProcessParameters": "{}", "VsockStdioRelaySettings": {}});
    ctx.vm(word::EXECUTE_PROCESS, json!({"Settings": settings}))?
        .fails(&[])
}

/// Stdin, stdout and stderr are dialled in this order before the start: with nobody behind stdout, the request fails
/// and stderr is never dialled.
fn failed_dial(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("exit 0")?;
    let (stdin, stdout, stderr) = (ctx.port()?, ctx.port()?, ctx.port()?);
    let closed = stdout.number;
    drop(stdout);
    let parameters = json!({
        "CommandArgs": words, "CreateStdInPipe": true, "CreateStdOutPipe": true, "CreateStdErrPipe": true,
    });
    let relay = json!({"StdIn": stdin.number, "StdOut": closed, "StdErr": stderr.number});
    let settings = json!({"ProcessParameters": parameters.to_string(), "VsockStdioRelaySettings": relay});
    let body = json!({"ContainerId": VM, "ActivityId": NO_ACTIVITY, "Settings": settings});
    ctx.session.call(word::EXECUTE_PROCESS, &body)?.fails(&[])?;
    let late = stderr.accept(std::time::Duration::from_millis(100))?;
    ensure(late.is_none(), || {
        "stderr was dialled though stdout could not be".into()
    })
}

/// A host that wants no streams need not say so.
fn without_relay(ctx: &mut Context<'_>) -> Outcome {
    let words = ctx.vm_words("read line; exit 14")?;
    let parameters = json!({"CommandArgs": words}).to_string();
    let settings = json!({"ProcessParameters": parameters});
    let reply = ctx
        .vm(word::EXECUTE_PROCESS, json!({"Settings": settings}))?
        .ok()?;
    let process = ctx.connected(&reply, &[None, None, None])?;
    let code = ctx.wait(VM, process.pid)?;
    ensure(code == 14, || format!("the exit code is {code}"))
}
