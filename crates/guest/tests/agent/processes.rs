//! Processes of the VM itself: streams, exit codes, signals, consoles.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use cofferdam_protocol::{HResult, NULL_CONTAINER_ID, message as m};
use serde_json::json;

use crate::agent::{Agent, command};

#[test]
fn a_processs_streams_and_exit_code_reach_the_host() {
    let mut agent = Agent::ready();
    let mut parameters = command(&["sh", "-c", "cat; echo \"$GREETING $(pwd)\" >&2; exit 42"]);
    parameters.environment.insert("GREETING".into(), "hello".into());
    parameters.working_directory = "/usr".into();
    let (pid, [stdin, stdout, stderr]) = agent.execute(parameters, [true; 3]);
    let mut stdin = stdin.unwrap();
    stdin.write_all(b"to be copied").unwrap();
    stdin.shutdown(Shutdown::Write).unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    stdout.unwrap().read_to_string(&mut out).unwrap();
    stderr.unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("to be copied", "hello /usr\n"));
    assert_eq!(agent.wait(pid), 42);
    assert_eq!(agent.wait(pid), 42, "asking again gives the same");
}

#[test]
fn a_command_line_is_split_and_unwanted_streams_lead_nowhere() {
    let mut agent = Agent::ready();
    let parameters = m::ProcessParameters {
        command_line: "sh -c 'read line; echo \"got: $line\"; exit 3'".into(),
        ..m::ProcessParameters::default()
    };
    let (pid, _) = agent.execute(parameters, [false; 3]);
    assert_eq!(agent.wait(pid), 3);
}

#[test]
fn large_output_is_complete() {
    let mut agent = Agent::ready();
    let (pid, [_, stdout, _]) = agent.execute(
        command(&["sh", "-c", "head -c 3000000 /dev/zero"]),
        [false, true, false],
    );
    let mut bytes = Vec::new();
    stdout.unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len(), agent.wait(pid)), (3_000_000, 0));
}

#[test]
fn signals_are_delivered_and_none_means_kill() {
    let mut agent = Agent::ready();
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    for (options, code) in [
        (json!({"Signal": 15}), 9),
        (json!({"Signal": 0}), 137),
        (json!(null), 137),
    ] {
        let (pid, [_, stdout, _]) = agent.execute(command(&["sh", "-c", script]), [false, true, false]);
        stdout.unwrap().read_exact(&mut [0; 6]).unwrap();
        agent
            .call_vm(m::SIGNAL_PROCESS, json!({"ProcessId": pid, "Options": options}))
            .ok();
        assert_eq!(agent.wait(pid), code);
        agent
            .call_vm(m::SIGNAL_PROCESS, json!({"ProcessId": pid}))
            .failed(HResult::NOT_FOUND);
    }
}

#[test]
fn a_wait_with_a_limit_ends_in_time_and_another_goes_on() {
    let mut agent = Agent::ready();
    let (pid, [stdin, ..]) = agent.execute(command(&["cat"]), [true, false, false]);
    let body = |limit: u32| json!({"ContainerId": NULL_CONTAINER_ID, "ProcessId": pid, "TimeoutInMs": limit});
    let for_ever = agent.send(m::WAIT_FOR_PROCESS, &body(u32::MAX));
    let start = Instant::now();
    agent
        .call(m::WAIT_FOR_PROCESS, &body(100))
        .failed(HResult::TIMEOUT);
    assert!(start.elapsed() >= Duration::from_millis(100));
    agent.call(m::WAIT_FOR_PROCESS, &body(0)).failed(HResult::TIMEOUT);
    drop(stdin);
    assert_eq!(agent.answer(for_ever).1.ok()["ExitCode"], 0);
}

#[test]
fn a_console_is_a_terminal_of_its_own_with_the_size_asked_for() {
    let mut agent = Agent::ready();
    let mut parameters = command(&[
        "sh",
        "-c",
        "tty; stty size; read x; stty size; ps -o tty= -p $$; echo err >&2",
    ]);
    parameters.emulate_console = true;
    parameters.console_size = Some([33, 77]);
    let (pid, [stdin, stdout, _]) = agent.execute(parameters, [true, true, false]);
    let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
    let mut text = String::new();
    while !text.contains("33 77") {
        let mut bytes = [0; 256];
        let length = stdout.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    agent
        .call_vm(
            m::RESIZE_CONSOLE,
            json!({"ProcessId": pid, "Height": 40, "Width": 100}),
        )
        .ok();
    stdin.write_all(b"\n").unwrap();
    stdout.read_to_string(&mut text).unwrap();
    drop(stdout);
    assert!(text.starts_with("/dev/pts/"), "{text}");
    assert!(
        text.contains("40 100") && text.contains("pts/") && text.ends_with("err\r\n"),
        "{text}"
    );
    assert_eq!(agent.wait(pid), 0);
    agent
        .call_vm(
            m::RESIZE_CONSOLE,
            json!({"ProcessId": pid, "Height": 1, "Width": 1}),
        )
        .ok();
}

#[test]
fn resizing_what_has_no_console_is_refused() {
    let mut agent = Agent::ready();
    let (pid, _stdin) = agent.execute(command(&["sleep", "60"]), [false; 3]);
    agent
        .call_vm(
            m::RESIZE_CONSOLE,
            json!({"ProcessId": pid, "Height": 1, "Width": 1}),
        )
        .failed(HResult::INVALID_STATE);
    agent.call_vm(m::SIGNAL_PROCESS, json!({"ProcessId": pid})).ok();
    assert_eq!(agent.wait(pid), 137);
}

#[test]
fn orphans_are_cleared_away_and_do_not_hold_the_end() {
    let mut agent = Agent::ready();
    let script = "(sleep 0.2; exit 5) & echo started";
    for _ in 0..5 {
        let (pid, _) = agent.execute(command(&["sh", "-c", script]), [false; 3]);
        assert_eq!(agent.wait(pid), 0);
    }
    std::thread::sleep(Duration::from_millis(600));
    let agent_pid = agent.pid().to_string();
    let zombies = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()))
        .filter(|rest| rest.starts_with("Z ") && rest.split(' ').nth(1) == Some(agent_pid.as_str()))
        .count();
    assert_eq!(zombies, 0);
}

#[test]
fn stacks_and_memory_are_told() {
    let mut agent = Agent::ready();
    // A thread gives itself its name, some time after it was started.
    let named = (0..100).any(|_| {
        let stacks = agent.call_vm(m::DUMP_STACKS, json!({})).ok();
        let named = stacks["GuestStacks"].as_str().unwrap().contains("(reaper)");
        if !named {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        named
    });
    assert!(named, "no thread is the reaper");
    let query = json!({"PropertyTypes": ["Mounts", "AgentMemory", "Odd"]}).to_string();
    let answer = agent.call_vm(m::GET_PROPERTIES, json!({"Query": query})).ok();
    let properties: serde_json::Value = serde_json::from_str(answer["Properties"].as_str().unwrap()).unwrap();
    assert_eq!(properties["Mounts"], json!([]));
    assert!(properties["AgentMemory"]["RssBytes"].as_u64().unwrap() < 64 << 20);
}
