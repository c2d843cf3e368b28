//! Processes, and containers that are nothing but processes.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
    net::Shutdown,
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use cofferdam_conformance::frame::{VM, code, word};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    Fault, Shared,
    serve::{Answer, in_string, member, refuse},
};

#[derive(Default)]
pub(super) struct Table {
    containers: HashMap<String, Container>,
    processes: HashMap<u32, Arc<Process>>,
}

struct Container {
    activity: String,
    arguments: Vec<String>,
    init: Option<Arc<Process>>,
    /// How its end will be told.
    end: &'static str,
    told: bool,
}

struct Process {
    pid: u32,
    code: Mutex<Option<u32>>,
    ended: Condvar,
}

impl Process {
    fn wait(&self, limit: Option<Duration>) -> Option<u32> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut code = self.code.lock().unwrap();
        while code.is_none() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match left {
                Some(Duration::ZERO) => return None,
                Some(left) => code = self.ended.wait_timeout(code, left).unwrap().0,
                None => code = self.ended.wait(code).unwrap(),
            }
        }
        *code
    }

    fn is_running(&self) -> bool {
        self.code.lock().unwrap().is_none()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).unwrap();
        let _ = kill_process(pid, signal);
    }
}

pub(super) fn exists(shared: &Shared, id: &str) -> bool {
    shared.table().containers.contains_key(id)
}

fn unknown<T>(id: &str) -> Result<T, (u32, String)> {
    refuse(code::UNKNOWN_CONTAINER, format!("no container {id:?}"))
}

fn strings(value: &Value) -> Vec<String> {
    let words = value.as_array().into_iter().flatten();
    words
        .filter_map(|word| word.as_str().map(str::to_owned))
        .collect()
}

pub(super) fn create(shared: &Arc<Shared>, id: &str, request: &Value) -> Answer {
    let config = in_string(shared, request, "ContainerConfig")?;
    if id == VM {
        return refuse(code::NOT_IMPLEMENTED, "not for the VM");
    }
    let version = |part: &str| config["SchemaVersion"][part].as_u64().unwrap_or(2);
    if (version("Major"), version("Minor")) < (2, 1) && !shared.is(Fault::TakesOldSchema) {
        return refuse(code::BAD_JSON, "schema version");
    }
    if exists(shared, id) && !shared.is(Fault::TakesDoubleCreate) {
        return refuse(code::CONTAINER_EXISTS, "exists");
    }
    let spec = &config["OciSpecification"];
    if !Path::new(spec["root"]["path"].as_str().unwrap_or_default()).exists() {
        if shared.is(Fault::NotificationOfFailedCreate) {
            notify(shared, id, "", "UnexpectedExit");
        }
        return refuse(0x8000_4005, "there is no root");
    }
    let activity = member(shared, request, "ActivityId").as_str().unwrap_or_default();
    let container = Container {
        activity: activity.to_owned(),
        arguments: strings(&spec["process"]["args"]),
        init: None,
        end: "UnexpectedExit",
        told: false,
    };
    shared.table().containers.insert(id.to_owned(), container);
    if shared.is(Fault::StartsAtCreate) {
        start_init(shared, id, [const { None }; 3])?;
    }
    Ok(json!({}))
}

fn notify(shared: &Shared, container: &str, activity: &str, kind: &str) {
    let activity = if shared.is(Fault::NotificationOtherActivity) {
        "another"
    } else {
        activity
    };
    let body = json!({
        "ContainerId": container, "ActivityId": activity, "Type": kind, "Operation": "None", "Result": 0,
    });
    let id = u64::from(shared.is(Fault::NotificationWithId));
    shared.send(word::CONTAINER_NOTIFICATION, id, &body);
    if shared.is(Fault::TwoNotifications) {
        shared.send(word::CONTAINER_NOTIFICATION, id, &body);
    }
}

/// Tells the end of a container, once.
fn tell(shared: &Shared, id: &str) {
    let (activity, end) = {
        let mut table = shared.table();
        let Some(container) = table.containers.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut container.told, true) {
            return;
        }
        (container.activity.clone(), container.end)
    };
    if !shared.is(Fault::NoNotification) {
        let end = if shared.is(Fault::OneKindOfEnd) {
            "UnexpectedExit"
        } else {
            end
        };
        notify(shared, id, &activity, end);
    }
}

pub(super) fn shut_down(shared: &Arc<Shared>, id: &str, forced: bool) -> Answer {
    if !exists(shared, id) {
        if shared.is(Fault::NotificationOfUnknown) {
            notify(shared, id, "", "ForcedExit");
        }
        return if shared.is(Fault::TakesUnknownContainers) {
            Ok(json!({}))
        } else {
            unknown(id)
        };
    }
    let init = {
        let mut table = shared.table();
        let Some(container) = table.containers.get_mut(id) else {
            return unknown(id);
        };
        if !container.told {
            container.end = if forced { "ForcedExit" } else { "GracefulExit" };
        }
        container.init.clone()
    };
    match init {
        Some(init) if init.is_running() => {
            let kills = forced || shared.is(Fault::GracefulKills);
            init.signal(if kills { Signal::KILL } else { Signal::TERM });
            Ok(json!({}))
        }
        Some(_) => refuse(code::ALREADY_STOPPED, "already stopped"),
        None => {
            tell(shared, id);
            Ok(json!({}))
        }
    }
}

pub(super) fn delete(shared: &Shared, id: &str) -> Answer {
    let mut table = shared.table();
    let init = table
        .containers
        .get(id)
        .and_then(|container| container.init.clone());
    if init.is_some_and(|init| init.is_running()) {
        return refuse(0x8037_0105, "it runs");
    }
    if !shared.is(Fault::KeepsDeleted) {
        table.containers.remove(id);
    }
    Ok(json!({}))
}

/// Dials what is wanted, in order.
fn dial(
    shared: &Shared,
    parameters: &Value,
    relay: &Value,
) -> Result<[Option<UnixStream>; 3], (u32, String)> {
    let mut streams = [None, None, None];
    let names = [
        ("CreateStdInPipe", "StdIn"),
        ("CreateStdOutPipe", "StdOut"),
        ("CreateStdErrPipe", "StdErr"),
    ];
    for (index, (flag, port)) in names.into_iter().enumerate() {
        let wanted = parameters[flag] == true || shared.is(Fault::DialsUnwanted) && !relay[port].is_null();
        if wanted {
            match shared.dial(&relay[port]) {
                Err(_) if shared.is(Fault::StartsWithoutStream) => {}
                outcome => streams[index] = Some(outcome?),
            }
        }
    }
    Ok(streams)
}

pub(super) fn execute(shared: &Arc<Shared>, id: &str, request: &Value) -> Answer {
    let settings = member(shared, request, "Settings");
    let parameters = in_string(shared, settings, "ProcessParameters")?;
    let relay = member(shared, settings, "VsockStdioRelaySettings");
    let in_vm = id == VM || parameters["CreateInUtilityVM"] == true;
    if !in_vm && !exists(shared, id) {
        return unknown(id);
    }
    if !in_vm && parameters["OciProcess"].is_null() {
        if !shared.is(Fault::TakesDoubleStart)
            && shared
                .table()
                .containers
                .get(id)
                .is_some_and(|container| container.init.is_some())
            && !shared.is(Fault::StartsAtCreate)
        {
            return refuse(0x8037_0105, "it was started before");
        }
        let streams = dial(shared, &parameters, relay)?;
        return start_init(shared, id, streams);
    }
    let mut command = if in_vm {
        vm_command(shared, &parameters)?
    } else {
        let init = shared
            .table()
            .containers
            .get(id)
            .and_then(|container| container.init.clone());
        if !init.is_some_and(|init| init.is_running()) && !shared.is(Fault::TakesExecAfterEnd) {
            return refuse(code::ALREADY_STOPPED, "it does not run");
        }
        command(&strings(&parameters["OciProcess"]["args"]))?
    };
    let streams = dial(shared, &parameters, relay)?;
    let process = start(shared, &mut command, streams, |_| {})?;
    Ok(json!({"ProcessId": process}))
}

fn command(words: &[String]) -> Result<Command, (u32, String)> {
    let Some((program, arguments)) = words.split_first() else {
        return refuse(0x8007_0057, "no command");
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn vm_command(shared: &Shared, parameters: &Value) -> Result<Command, (u32, String)> {
    let mut words = strings(&parameters["CommandArgs"]);
    if let Some(line) = parameters["CommandLine"].as_str()
        && (words.is_empty() || shared.is(Fault::LineWins))
    {
        words = line.split(' ').map(str::to_owned).collect();
    }
    let mut command = command(&words)?;
    if let Some(directory) = parameters["WorkingDirectory"].as_str() {
        command.current_dir(directory);
    }
    if !shared.is(Fault::NoEnvironment) {
        for (name, value) in parameters["Environment"].as_object().into_iter().flatten() {
            command.env(name, value.as_str().unwrap_or_default());
        }
    }
    Ok(command)
}

fn start_init(shared: &Arc<Shared>, id: &str, streams: [Option<UnixStream>; 3]) -> Answer {
    let arguments = match shared.table().containers.get(id) {
        Some(container) => container.arguments.clone(),
        None => return unknown(id),
    };
    let (of_it, name) = (Arc::clone(shared), id.to_owned());
    let pid = start(shared, &mut command(&arguments)?, streams, move |_| {
        if !of_it.is(Fault::NotificationOnlyAfterWait) {
            tell(&of_it, &name);
        }
    })?;
    let mut table = shared.table();
    let process = table.processes.get(&pid).cloned();
    if let Some(container) = table.containers.get_mut(id) {
        container.init = process;
    }
    Ok(json!({"ProcessId": pid}))
}

/// Starts a process with relays; `ended` is called once it has ended and its output is out.
fn start(
    shared: &Arc<Shared>,
    command: &mut Command,
    streams: [Option<UnixStream>; 3],
    ended: impl FnOnce(u32) + Send + 'static,
) -> Result<u32, (u32, String)> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| (0x8000_4005, format!("starting: {error}")))?;
    let process = Arc::new(Process {
        pid: child.id(),
        code: Mutex::default(),
        ended: Condvar::new(),
    });
    shared.table().processes.insert(process.pid, Arc::clone(&process));
    let [stdin, mut stdout, mut stderr] = streams;
    feed(shared, &mut child, stdin);
    if shared.is(Fault::SwapsOutputs) {
        std::mem::swap(&mut stdout, &mut stderr);
    }
    let relays = [
        relay(shared, child.stdout.take().unwrap(), stdout),
        relay(shared, child.stderr.take().unwrap(), stderr),
    ];
    let (shared, pid) = (Arc::clone(shared), process.pid);
    thread::spawn(move || {
        let status = child.wait().unwrap();
        if !shared.is(Fault::NotificationBeforeOutput) {
            relays.into_iter().for_each(|relay| relay.join().unwrap());
        }
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        *process.code.lock().unwrap() = Some(code.cast_unsigned());
        process.ended.notify_all();
        // Who starts an init notes it before its end is told.
        thread::sleep(Duration::from_millis(10));
        ended(code.cast_unsigned());
    });
    Ok(pid)
}

fn feed(shared: &Arc<Shared>, child: &mut Child, stream: Option<UnixStream>) {
    let mut to = child.stdin.take().unwrap();
    let Some(mut from) = stream else { return };
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        if shared.is(Fault::KeepsInputOpen) {
            thread::sleep(Duration::from_secs(30));
        }
    });
}

fn relay(
    shared: &Arc<Shared>,
    mut from: impl Read + Send + 'static,
    to: Option<UnixStream>,
) -> thread::JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let Some(mut to) = to else {
            let _ = io::copy(&mut from, &mut io::sink());
            return;
        };
        if shared.is(Fault::NotificationBeforeOutput) {
            // All of it is taken from the process, which can then end.
            let mut all = Vec::new();
            let _ = from.read_to_end(&mut all);
            let _ = to.write_all(&all);
        } else if shared.is(Fault::CutsOutput) {
            let _ = io::copy(&mut from.by_ref().take(100_000), &mut to);
            let _ = io::copy(&mut from, &mut io::sink());
        } else {
            let _ = io::copy(&mut from, &mut to);
        }
        let _ = to.shutdown(Shutdown::Write);
    })
}

fn find(shared: &Shared, pid: u32) -> Option<Arc<Process>> {
    shared.table().processes.get(&pid).cloned()
}

pub(super) fn wait(shared: &Shared, pid: u32, limit_ms: Option<u64>) -> Answer {
    let Some(process) = find(shared, pid) else {
        if shared.is(Fault::TakesUnknownProcesses) {
            return Ok(json!({"ExitCode": 0}));
        }
        return refuse(code::UNKNOWN_PROCESS, format!("no process {pid}"));
    };
    if shared.is(Fault::WaitsNever) {
        return Ok(json!({"ExitCode": 0}));
    }
    let forever = limit_ms == Some(u64::from(u32::MAX)) || shared.is(Fault::WaitsWithoutLimit);
    let limit = (!forever).then(|| Duration::from_millis(limit_ms.unwrap_or(0)));
    let Some(code) = process.wait(limit) else {
        return refuse(code::WAIT_TIMEOUT, "it still runs");
    };
    if shared.is(Fault::ForgetsExitCodes) {
        shared.table().processes.remove(&pid);
    }
    let container = {
        let table = shared.table();
        let mut all = table.containers.iter();
        all.find(|(_, container)| container.init.as_ref().is_some_and(|init| init.pid == pid))
            .map(|(id, _)| id.clone())
    };
    if let Some(id) = container {
        tell(shared, &id);
    }
    Ok(json!({"ExitCode": code}))
}

pub(super) fn signal(shared: &Shared, pid: u32, number: Option<i64>) -> Answer {
    let Some(process) = find(shared, pid).filter(|process| process.is_running()) else {
        return refuse(code::UNKNOWN_PROCESS, format!("no process {pid}"));
    };
    let default = if shared.is(Fault::TermForKill) {
        Signal::TERM
    } else {
        Signal::KILL
    };
    process.signal(match number {
        None | Some(0) => default,
        Some(15) => Signal::TERM,
        Some(_) => Signal::KILL,
    });
    Ok(json!({}))
}
