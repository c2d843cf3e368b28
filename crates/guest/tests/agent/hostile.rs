//! Frames no honest host sends.

use std::time::{Duration, Instant};

use cofferdam_protocol::{HResult, frame::HEADER_BYTES, message as m};
use serde_json::json;

use crate::agent::Agent;

fn header(size: u32) -> Vec<u8> {
    [
        &m::START.0.to_le_bytes()[..],
        &size.to_le_bytes(),
        &7_u64.to_le_bytes(),
    ]
    .concat()
}

#[test]
fn a_size_below_the_header_or_above_the_limit_closes_the_bridge() {
    for size in [0, 15, (4 << 20) + 1, u32::MAX] {
        let mut agent = Agent::ready();
        agent.send_bytes(&header(size));
        assert_eq!(agent.until_closed(), Some(0), "size {size}");
    }
}

#[test]
fn a_frame_that_never_ends_leaves_no_agent_behind() {
    let mut agent = Agent::ready();
    agent.send_bytes(&header(1000));
    agent.send_bytes(b"{\"Contai");
    assert_eq!(agent.close(), Some(0));
    let mut agent = Agent::start();
    agent.send_bytes(&header(20)[..HEADER_BYTES - 3]);
    assert_eq!(agent.close(), Some(0));
}

#[test]
fn answers_and_notifications_from_the_host_are_passed_over() {
    let mut agent = Agent::ready();
    agent.send(m::START.response(), &json!({}));
    agent.send(m::CONTAINER_NOTIFICATION, &json!({}));
    agent
        .call(m::START, &json!({"ContainerId": "x"}))
        .failed(HResult::CONTAINER_NOT_FOUND);
}

#[test]
fn a_huge_request_is_answered_within_a_frame() {
    let mut agent = Agent::ready();
    let long = "\u{1}".repeat(300_000);
    let answer = agent.call(m::START, &json!({"ContainerId": long, "ActivityId": long}));
    answer.failed(HResult::CONTAINER_NOT_FOUND);
}

#[test]
fn thousands_of_requests_are_each_answered_once() {
    let mut agent = Agent::ready();
    let body = json!({"ContainerId": "x"});
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.extend((0..100).map(|_| agent.send(m::GET_PROPERTIES, &body)));
        for id in ids.drain(..) {
            agent.answer(id).1.failed(HResult::CONTAINER_NOT_FOUND);
        }
    }
}

#[test]
fn waits_take_no_threads_and_are_bounded() {
    let mut agent = Agent::ready();
    let (pid, _) = agent.execute(crate::agent::command(&["sleep", "60"]), [false; 3]);
    let wait = json!({"ProcessId": pid, "TimeoutInMs": u32::MAX, "ContainerId": "00000000-0000-0000-0000-000000000000"});
    let waits: Vec<_> = (0..300).map(|_| agent.send(m::WAIT_FOR_PROCESS, &wait)).collect();
    agent.answer(waits[299]).1.failed(HResult::INVALID_STATE);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid()))
        .unwrap()
        .count();
    assert!(tasks < 20, "{tasks} threads");
    agent.call_vm(m::SIGNAL_PROCESS, json!({"ProcessId": pid})).ok();
    for id in &waits[..256] {
        assert_eq!(agent.answer(*id).1.ok()["ExitCode"], 137);
    }
}

#[test]
fn the_vms_end_is_asked_for_without_an_answer() {
    let mut agent = Agent::ready();
    let start = Instant::now();
    agent.send(
        m::SHUTDOWN_FORCED,
        &json!({"ContainerId": "00000000-0000-0000-0000-000000000000"}),
    );
    assert_eq!(agent.until_closed(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10));
}
