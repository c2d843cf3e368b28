//! Each message's ways to fail, with the codes of the protocol.

use cofferdam_protocol::{HResult, MessageType, NULL_CONTAINER_ID, message as m};
use serde_json::json;

use crate::agent::Agent;

const ALL: [MessageType; 12] = [
    m::CREATE,
    m::START,
    m::SHUTDOWN_GRACEFUL,
    m::SHUTDOWN_FORCED,
    m::EXECUTE_PROCESS,
    m::WAIT_FOR_PROCESS,
    m::SIGNAL_PROCESS,
    m::RESIZE_CONSOLE,
    m::GET_PROPERTIES,
    m::MODIFY_SETTINGS,
    m::DUMP_STACKS,
    m::DELETE_CONTAINER_STATE,
];

#[test]
fn nothing_is_served_before_negotiation_and_a_bad_range_is_refused() {
    let mut agent = Agent::start();
    for message in ALL {
        agent
            .call(message, &json!({"ContainerId": NULL_CONTAINER_ID}))
            .failed(HResult::NOT_IMPLEMENTED);
    }
    for (minimum, maximum) in [(5, 9), (0, 3), (4, 3)] {
        agent
            .negotiate(minimum, maximum)
            .failed(HResult::UNSUPPORTED_PROTOCOL_VERSION);
    }
    let reply = agent.negotiate(1, 9).ok();
    assert_eq!(reply["Version"], 4);
    assert_eq!(reply["Capabilities"]["RuntimeOsType"], "Linux");
    let own = &reply["Capabilities"]["GuestDefinedCapabilities"];
    assert_eq!(
        (&own["SignalProcessSupported"], &own["CofferdamMounts"]),
        (&json!(true), &json!(true))
    );
}

#[test]
fn every_message_answers_a_container_that_is_not_there() {
    let mut agent = Agent::ready();
    let body = json!({"ContainerId": "nobody", "ActivityId": "an activity"});
    for message in ALL {
        let answer = agent.call(message, &body);
        assert_eq!(answer.0["ActivityId"], "an activity", "{message}");
        let expected = match message {
            m::CREATE => HResult::INVALID_ARGUMENT,
            m::WAIT_FOR_PROCESS => HResult::NOT_FOUND,
            m::DUMP_STACKS | m::DELETE_CONTAINER_STATE => HResult::OK,
            _ => HResult::CONTAINER_NOT_FOUND,
        };
        assert_eq!(answer.result(), expected, "{message}: {:?}", answer.0);
    }
    assert!(
        agent.notifications.is_empty(),
        "a container that never was ends nowhere"
    );
}

#[test]
fn messages_for_containers_refuse_the_vm_itself() {
    let mut agent = Agent::ready();
    for message in [m::CREATE, m::START, m::GET_PROPERTIES, m::DELETE_CONTAINER_STATE] {
        agent.call_vm(message, json!({})).failed(HResult::NOT_IMPLEMENTED);
    }
}

#[test]
fn bad_json_and_unknown_messages_are_answered_with_their_ids() {
    let mut agent = Agent::ready();
    for body in [
        &b"{"[..],
        b"",
        b"[]",
        b"{\"ContainerId\":7}",
        b"\xff\xfe",
        &b"[".repeat(100_000),
    ] {
        let id = agent.send_text(m::START, body);
        agent.answer(id).1.failed(HResult::INVALID_JSON);
    }
    let id = agent.send_text(
        m::CREATE,
        br#"{"ContainerId":"c","ContainerConfig":"{\"SchemaVersion\":3"}"#,
    );
    agent.answer(id).1.failed(HResult::INVALID_JSON);
    for word in [0x1010_0e01, 0x1020_0101, 0x1010_0102, 0x1010_ff01] {
        let message = agent
            .call(MessageType(word), &json!({}))
            .failed(HResult::UNKNOWN_MESSAGE);
        assert_eq!(message, format!("unknown message 0x{word:08x}"));
    }
}

#[test]
fn a_container_document_that_cannot_be_is_refused_and_its_id_stays_free() {
    let mut agent = Agent::ready();
    let mut create = |id: &str, config: serde_json::Value| {
        agent.call(
            m::CREATE,
            &json!({"ContainerId": id, "ContainerConfig": config.to_string()}),
        )
    };
    let bundle = "/run/gcs-agent-test/c";
    let old =
        json!({"SchemaVersion": {"Major": 2, "Minor": 0}, "OciBundlePath": bundle, "OciSpecification": {}});
    assert_eq!(
        create("c", old).failed(HResult::INVALID_JSON),
        "schema version 2.0 is below 2.1"
    );
    for (id, path) in [
        ("../c", bundle),
        ("", bundle),
        ("c", "relative"),
        ("c", "/run/../etc"),
    ] {
        create(id, json!({"OciBundlePath": path, "OciSpecification": {}})).failed(HResult::INVALID_ARGUMENT);
    }
    for _ in 0..2 {
        let message = create("c", json!({"OciBundlePath": bundle})).failed(HResult::INVALID_ARGUMENT);
        assert!(message.contains("no OciSpecification"), "{message}");
        let message = create("c", json!({"OciBundlePath": bundle, "OciSpecification": {}}))
            .failed(HResult::INVALID_ARGUMENT);
        assert!(message.contains("no root.path"), "{message}");
    }
    assert!(!std::path::Path::new(bundle).exists());
}

#[test]
fn processes_that_cannot_start_say_why() {
    let mut agent = Agent::ready();
    let mut execute = |parameters: serde_json::Value, ports: serde_json::Value| {
        let settings = json!({"ProcessParameters": parameters.to_string(), "VsockStdioRelaySettings": ports});
        agent.call_vm(m::EXECUTE_PROCESS, json!({"Settings": settings}))
    };
    let message = execute(json!({"CommandArgs": ["/no/such"]}), json!({})).failed(HResult::FAIL);
    assert!(
        message.starts_with("starting \"/no/such\" in the VM: No such file"),
        "{message}"
    );
    execute(json!({}), json!({})).failed(HResult::INVALID_ARGUMENT);
    execute(json!({"CommandLine": "sh 'x"}), json!({})).failed(HResult::INVALID_ARGUMENT);
    execute(
        json!({"CommandArgs": ["true"], "CreateStdOutPipe": true}),
        json!({}),
    )
    .failed(HResult::INVALID_ARGUMENT);
    let message = execute(
        json!({"CommandArgs": ["true"], "CreateStdOutPipe": true}),
        json!({"StdOut": 77}),
    )
    .failed(HResult::FAIL);
    assert!(
        message.starts_with("dialling port 77 of the host for stdout"),
        "{message}"
    );
}

#[test]
fn unknown_processes_and_signals_are_refused() {
    let mut agent = Agent::ready();
    let stranger = std::process::id();
    for message in [m::WAIT_FOR_PROCESS, m::SIGNAL_PROCESS, m::RESIZE_CONSOLE] {
        for pid in [0, 1, stranger, u32::MAX] {
            let answer = agent.call_vm(message, json!({"ProcessId": pid, "Options": {"Signal": 19}}));
            answer.failed(HResult::NOT_FOUND);
        }
    }
    for signal in [-1, 1000] {
        let body = json!({"ProcessId": 1, "Options": {"Signal": signal}});
        agent
            .call_vm(m::SIGNAL_PROCESS, body)
            .failed(HResult::INVALID_ARGUMENT);
    }
}
