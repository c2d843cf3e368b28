//! Hot-plug against a scripted QEMU: what it does when QEMU refuses, dawdles or dies.

use std::{sync::Arc, time::Duration};

use cofferdam_ledger::address::ScsiAddress;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream},
    sync::Mutex,
};

use super::*;

const HERE: ScsiAddress = ScsiAddress {
    controller: 0,
    lun: 5,
};
const IN_USE: &str = "Node 'disk-0-5' is busy: node is used as backing hd";

/// What the scripted QEMU does with a command.
enum Reaction {
    Answer(Value),
    Refuse(&'static str, &'static str),
    /// The answer, then the event after this many milliseconds.
    AnswerThenEvent(u64, Value),
    /// The event first, then the answer.
    EventThenAnswer(Value),
    Die,
}

struct Scripted {
    qmp: QmpClient,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Expects exactly these commands, in this order.
    async fn new(script: Vec<(&'static str, Reaction)>) -> Self {
        let (near, far) = tokio::io::duplex(1 << 16);
        let seen = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(play(BufReader::new(far), script, Arc::clone(&seen)));
        let qmp = QmpClient::connect(near, Duration::from_secs(5))
            .await
            .expect("connected");
        Self { qmp, seen }
    }

    async fn seen(&self) -> Vec<String> {
        self.seen.lock().await.clone()
    }
}

async fn play(
    mut far: BufReader<DuplexStream>,
    script: Vec<(&'static str, Reaction)>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    far.write_all(b"{\"QMP\": {}}\n").await.expect("greeting");
    let mut script = script.into_iter();
    let mut line = String::new();
    while far.read_line(&mut line).await.is_ok_and(|length| length > 0) {
        let request: Value = serde_json::from_str(&line).expect("JSON");
        line.clear();
        let name = request["execute"].as_str().expect("a command").to_owned();
        let mut lines = Vec::new();
        if name == "qmp_capabilities" {
            lines.push((0, json!({ "return": {} })));
        } else {
            seen.lock().await.push(name.clone());
            let (expected, reaction) = script.next().expect("no more commands than the script has");
            assert_eq!(name, expected);
            match reaction {
                Reaction::Answer(value) => lines.push((0, json!({ "return": value }))),
                Reaction::Refuse(class, desc) => {
                    lines.push((0, json!({ "error": { "class": class, "desc": desc } })));
                }
                Reaction::AnswerThenEvent(after_ms, event) => {
                    lines.extend([(0, json!({ "return": {} })), (after_ms, event)]);
                }
                Reaction::EventThenAnswer(event) => lines.extend([(0, event), (0, json!({ "return": {} }))]),
                Reaction::Die => return,
            }
        }
        for (after_ms, mut line) in lines {
            sleep(Duration::from_millis(after_ms)).await;
            if line.get("event").is_none() {
                line["id"] = request["id"].clone();
            }
            far.write_all(format!("{line}\n").as_bytes())
                .await
                .expect("write");
        }
    }
}

fn deleted(device: &str) -> Value {
    json!({ "event": "DEVICE_DELETED", "data": { "device": device, "path": "/machine/peripheral/x" } })
}

fn ok() -> Reaction {
    Reaction::Answer(json!({}))
}

fn not_found() -> Reaction {
    Reaction::Refuse("DeviceNotFound", "Device 'scsi-0-5' not found")
}

#[tokio::test]
async fn refused_device_leaves_no_block_node_behind() {
    let vm = Scripted::new(vec![
        ("blockdev-add", ok()),
        (
            "device_add",
            Reaction::Refuse("GenericError", "Bus 'scsi0.0' not found"),
        ),
        ("device_del", not_found()),
        ("blockdev-del", ok()),
    ])
    .await;
    let error = attach_scsi(&vm.qmp, HERE, json!({})).await.expect_err("refused");
    assert_eq!(error.to_string(), "Bus 'scsi0.0' not found");
    assert_eq!(vm.seen().await.last().map(String::as_str), Some("blockdev-del"));
}

#[tokio::test]
async fn refused_block_node_touches_nothing_of_another_holder() {
    let refusal = Reaction::Refuse("GenericError", "Duplicate nodes with node-name='disk-0-5'");
    let vm = Scripted::new(vec![("blockdev-add", refusal)]).await;
    assert!(attach_scsi(&vm.qmp, HERE, json!({})).await.is_err());
    assert_eq!(vm.seen().await, ["blockdev-add"]);
}

#[tokio::test]
async fn undoing_that_fails_is_told_beside_the_first_failure() {
    let vm = Scripted::new(vec![
        ("blockdev-add", ok()),
        ("device_add", Reaction::Refuse("GenericError", "first")),
        ("device_del", Reaction::Refuse("GenericError", "second")),
    ])
    .await;
    let error = attach_scsi(&vm.qmp, HERE, json!({}))
        .await
        .expect_err("refused")
        .to_string();
    assert!(error.starts_with("first") && error.ends_with("second"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn removal_waits_for_a_late_event_and_not_for_a_strangers() {
    let vm = Scripted::new(vec![
        ("device_del", Reaction::AnswerThenEvent(3000, deleted("scsi-0-5"))),
        ("blockdev-del", ok()),
    ])
    .await;
    let begun = Instant::now();
    detach_scsi(&vm.qmp, HERE).await.expect("removed");
    assert!(begun.elapsed() >= Duration::from_millis(3000));

    let vm = Scripted::new(vec![
        ("device_del", Reaction::AnswerThenEvent(0, deleted("scsi-0-55"))),
        ("qom-list", Reaction::Answer(json!([{ "name": "scsi-0-5" }]))),
    ])
    .await;
    assert!(matches!(
        detach_scsi(&vm.qmp, HERE).await,
        Err(QmpError::TimedOut { .. })
    ));
}

#[tokio::test]
async fn event_before_the_answer_counts() {
    let vm = Scripted::new(vec![
        ("device_del", Reaction::EventThenAnswer(deleted("scsi-0-5"))),
        ("blockdev-del", ok()),
    ])
    .await;
    detach_scsi(&vm.qmp, HERE).await.expect("removed");
}

#[tokio::test(start_paused = true)]
async fn removal_without_an_event_looks_for_itself_at_the_end() {
    let vm = Scripted::new(vec![
        ("device_del", ok()),
        ("qom-list", Reaction::Answer(json!([{ "name": "type" }]))),
        ("blockdev-del", ok()),
    ])
    .await;
    detach_scsi(&vm.qmp, HERE).await.expect("gone after all");
}

#[tokio::test]
async fn guest_that_does_not_let_go_is_named() {
    let event = json!({ "event": "DEVICE_UNPLUG_GUEST_ERROR", "data": { "device": "scsi-0-5" } });
    let vm = Scripted::new(vec![("device_del", Reaction::AnswerThenEvent(0, event))]).await;
    let error = detach_scsi(&vm.qmp, HERE).await.expect_err("refused").to_string();
    assert!(error.contains("the guest did not let go"), "{error}");
}

#[tokio::test]
async fn second_removal_goes_on_where_the_first_one_stopped() {
    let vm = Scripted::new(vec![("device_del", not_found()), ("blockdev-del", ok())]).await;
    detach_scsi(&vm.qmp, HERE).await.expect("only the node was left");
    let missing = Reaction::Refuse("GenericError", "Failed to find node with node-name='disk-0-5'");
    let vm = Scripted::new(vec![
        ("device_del", not_found()),
        ("blockdev-del", missing),
        ("query-named-block-nodes", Reaction::Answer(json!([]))),
    ])
    .await;
    detach_scsi(&vm.qmp, HERE).await.expect("nothing was left");
}

#[tokio::test(start_paused = true)]
async fn node_that_is_busy_for_a_moment_is_tried_again() {
    let nodes = || Reaction::Answer(json!([{ "node-name": "disk-0-5" }]));
    let vm = Scripted::new(vec![
        ("device_del", not_found()),
        ("blockdev-del", Reaction::Refuse("GenericError", IN_USE)),
        ("query-named-block-nodes", nodes()),
        ("blockdev-del", ok()),
    ])
    .await;
    detach_scsi(&vm.qmp, HERE).await.expect("freed");
}

#[tokio::test]
async fn death_in_the_middle_ends_the_step_at_once() {
    let vm = Scripted::new(vec![("blockdev-add", ok()), ("device_add", Reaction::Die)]).await;
    assert!(matches!(
        attach_scsi(&vm.qmp, HERE, json!({})).await,
        Err(QmpError::Closed(_))
    ));
    let vm = Scripted::new(vec![("device_del", Reaction::Die)]).await;
    assert!(matches!(
        detach_scsi(&vm.qmp, HERE).await,
        Err(QmpError::Closed(_))
    ));
}

#[tokio::test]
async fn death_while_waiting_for_the_event_ends_the_wait() {
    let vm = Scripted::new(vec![("device_del", ok()), ("quit", Reaction::Die)]).await;
    let (removed, _) = tokio::join!(detach_scsi(&vm.qmp, HERE), async {
        sleep(Duration::from_millis(50)).await;
        vm.qmp.execute("quit", Value::Null, COMMAND_LIMIT).await
    });
    assert!(matches!(removed, Err(QmpError::Closed(_))), "{removed:?}");
}

#[tokio::test]
async fn persistent_memory_that_cannot_be_added_frees_its_file() {
    let vm = Scripted::new(vec![
        ("object-add", ok()),
        ("device_add", Reaction::Refuse("GenericError", "no slot")),
        ("device_del", not_found()),
        ("object-del", ok()),
    ])
    .await;
    assert!(attach_vpmem(&vm.qmp, 3, "/l.vhd", 4096).await.is_err());
    assert_eq!(vm.seen().await.last().map(String::as_str), Some("object-del"));
}
