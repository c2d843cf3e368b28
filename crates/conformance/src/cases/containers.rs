//! Create, Start and the three dispatches of ExecuteProcess on containers (§6).

use std::time::Duration;

use serde_json::json;

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::{Context, NONE, OUT},
    frame::{NO_ACTIVITY, VM, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new(
        "container/create-holds-the-process",
        "6",
        &[Need::Container],
        create_holds,
    ),
    Case::new(
        "container/init-runs-the-spec",
        "6",
        &[Need::Container],
        init_runs_the_spec,
    ),
    Case::new(
        "container/exec-runs-inside",
        "6",
        &[Need::Container],
        exec_runs_inside,
    ),
    Case::new(
        "container/create-in-utility-vm",
        "6",
        &[Need::Container, Need::Shell],
        create_in_utility_vm,
    ),
    Case::new("container/exec-document", "6", &[Need::Container], exec_document),
    Case::new(
        "container/quick-processes-lose-nothing",
        "8",
        &[Need::Container],
        quick_processes,
    ),
    Case::new(
        "container/a-failed-dial-at-the-start",
        "6",
        &[Need::Container],
        failed_dial,
    ),
    Case::new(
        "container/several-at-once",
        "9",
        &[Need::Container],
        several_at_once,
    ),
    Case::new(
        "container/pids-are-the-vms",
        "6",
        &[Need::Container],
        pids_are_the_vms,
    ),
    Case::new("container/signal-init", "6", &[Need::Container], signal_init),
    Case::new(
        "container/lenient-config",
        "6",
        &[Need::Container],
        lenient_config,
    ),
];

/// Create prepares; Start does nothing; only ExecuteProcess lets the first process run.
fn create_holds(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("exit 0")?;
    ctx.of(&id, word::START, json!({}))?.ok()?;
    // If it ran, it would have ended, and its end would be told.
    ctx.session.listen_for(Duration::from_millis(300))?;
    let early = ctx.session.notifications(&id)?;
    ensure(early.is_empty(), || {
        "the container ended before ExecuteProcess let it run".into()
    })?;
    let init = ctx.execute(&id, json!({}), NONE)?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn init_runs_the_spec(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create_with("echo \"$GREETING|$(pwd)|$(uname -n)|$$\"; exit 33", |spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "GREETING=from the spec"]);
        spec["process"]["cwd"] = "/proc".into();
    })?;
    let mut init = ctx.start_init(&id, OUT)?;
    let text = init.output()?;
    ensure(text == "from the spec|/proc|conformance|1\n", || {
        format!("the first process says {text:?}")
    })?;
    let code = ctx.wait(&id, init.pid)?;
    ensure(code == 33, || format!("the exit code is {code}"))?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn exec_runs_inside(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("read line; exit 2")?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    let mut exec = ctx.exec(&id, "echo \"$(uname -n)\"; test $$ -gt 1 && exit 12", OUT)?;
    let text = exec.output()?;
    ensure(text == "conformance\n", || {
        format!("the process is not in the container: its host is {text:?}")
    })?;
    let code = ctx.wait(&id, exec.pid)?;
    ensure(code == 12, || format!("the exit code is {code}"))?;
    // Its end is not the container's.
    ctx.session.listen_for(Duration::from_millis(100))?;
    ensure(ctx.session.notifications(&id)?.is_empty(), || {
        "the end of a further process was told as the container's".into()
    })?;
    init.end_input()?;
    let code = ctx.wait(&id, init.pid)?;
    ensure(code == 2, || format!("the first process's exit code is {code}"))?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn create_in_utility_vm(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("read line")?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    let words = ctx.vm_words("read name < /proc/sys/kernel/hostname; echo \"$name\"")?;
    let parameters = json!({"CommandArgs": words, "CreateInUtilityVM": true});
    let mut process = ctx.execute(&id, parameters, OUT)?;
    let text = process.output()?;
    ensure(text != "conformance\n", || {
        "a process with CreateInUtilityVM ran in the container".into()
    })?;
    ctx.wait(&id, process.pid)?;
    init.end_input()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn several_at_once(ctx: &mut Context<'_>) -> Outcome {
    let mut asked = Vec::new();
    for number in 0..4_u64 {
        let id = ctx.new_id();
        let config = ctx.config(&id, &format!("exit {}", 50 + number), |_| {})?;
        ctx.owed.add(&id);
        let body = json!({"ContainerConfig": config.to_string(), "ActivityId": NO_ACTIVITY});
        let request = ctx.send(&id, word::CREATE, body);
        asked.push((id, request, 50 + number));
    }
    for (_, request, _) in &asked {
        ctx.session.answer(*request)?.ok()?;
    }
    for (id, _, code) in &asked {
        let init = ctx.start_init(id, NONE)?;
        let got = ctx.wait(id, init.pid)?;
        ensure(got == *code, || {
            format!("container {id} ended with {got}, its script with {code}")
        })?;
    }
    for (id, ..) in &asked {
        ctx.session.notification(id)?;
        ctx.delete(id)?;
    }
    Ok(())
}

/// ProcessId is the guest's, not the container's own 1, so that two containers' differ.
fn pids_are_the_vms(ctx: &mut Context<'_>) -> Outcome {
    let mut inits = Vec::new();
    for _ in 0..2 {
        let id = ctx.create("read line")?;
        let init = ctx.start_init(&id, [true, false, false])?;
        inits.push((id, init));
    }
    let (first, second) = (inits[0].1.pid, inits[1].1.pid);
    ensure(first != second, || {
        format!("two containers' processes are both {first}")
    })?;
    for (id, mut init) in inits {
        init.end_input()?;
        ctx.wait(&id, init.pid)?;
        ctx.session.notification(&id)?;
        ctx.delete(&id)?;
    }
    Ok(())
}

fn signal_init(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create(
        "trap 'exit 9' TERM; echo ready; i=0; while [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done",
    )?;
    let mut init = ctx.start_init(&id, OUT)?;
    let mut ready = [0; 6];
    if let Some(stdout) = &mut init.stdout {
        std::io::Read::read_exact(stdout, &mut ready)
            .map_err(|error| crate::case::Stop::Failed(format!("standard output broke: {error}")))?;
    }
    let body = json!({"ProcessId": init.pid, "Options": {"Signal": 15}});
    ctx.of(&id, word::SIGNAL_PROCESS, body)?.ok()?;
    init.stdout = None;
    let code = ctx.wait(&id, init.pid)?;
    ensure(code == 9, || {
        format!("the first process did not see SIGTERM: it ended with {code}")
    })?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// What the host of another age sends beside the document is passed over.
fn lenient_config(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.new_id();
    let mut config = ctx.config(&id, "exit 0", |_| {})?;
    config["Unheard"] = json!({"of": 1});
    ctx.owed.add(&id);
    let body = json!({"ContainerConfig": format!(" {config}\n"), "SupportedVersions": {"MinimumVersion": 4}});
    ctx.of(&id, word::CREATE, body)?.ok()?;
    let init = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)?;
    // The id was one container's, never the VM's.
    ctx.vm(
        word::WAIT_FOR_PROCESS,
        json!({"ContainerId": VM, "ProcessId": 4_194_301}),
    )?
    .fails(&[])
}

/// What a further process's document says holds for it, not what the first one's says.
fn exec_document(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create_with("read line", |spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "GREETING=of the first"]);
    })?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    let mut words = ctx.container_setup()?.shell.clone();
    words.push("echo \"$GREETING|$(pwd)\"".into());
    let document = json!({
        "cwd": "/proc", "user": {"uid": 0, "gid": 0}, "args": words, "env": ["PATH=/bin", "GREETING=of the second"],
    });
    let mut exec = ctx.execute(&id, json!({"OciProcess": document}), OUT)?;
    let text = exec.output()?;
    ensure(text == "of the second|/proc\n", || {
        format!("the process says {text:?}")
    })?;
    ctx.wait(&id, exec.pid)?;
    init.end_input()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// A start without its stream fails. The container is held as before, or ends; either way its end is told once.
fn failed_dial(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("exit 0")?;
    let port = ctx.port()?;
    let closed = port.number;
    drop(port);
    let settings = json!({
        "ProcessParameters": json!({"CreateStdOutPipe": true}).to_string(),
        "VsockStdioRelaySettings": {"StdOut": closed},
    });
    ctx.of(&id, word::EXECUTE_PROCESS, json!({"Settings": settings}))?
        .fails(&[])?;
    let reply = ctx.of(&id, word::SHUTDOWN_FORCED, json!({}))?;
    if reply.result != 0 {
        reply.fails(&[])?;
    }
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// Processes that have ended before anybody looked: their output comes all the same.
fn quick_processes(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("read line")?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    for round in 0..5 {
        let mut started = Vec::new();
        for number in 0..8 {
            let mut words = ctx.container_setup()?.shell.clone();
            words.push(format!("echo {round} {number}"));
            let document = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": words});
            let (request, ports) = ctx.send_execute(&id, json!({"OciProcess": document}), OUT)?;
            started.push((request, ports, format!("{round} {number}\n")));
        }
        for (request, ports, expected) in started {
            let reply = ctx.session.answer(request)?.ok()?;
            let mut process = ctx.connected(&reply, &ports)?;
            let text = process.output()?;
            ensure(text == expected, || format!("of {expected:?} came {text:?}"))?;
            ctx.wait(&id, process.pid)?;
        }
    }
    init.end_input()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}
