//! What is seen of a container while it lives and afterwards: its state, who holds which device, what happens to it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod owned;

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStdout, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use bundle::{Bundle, output_of};
use owned::{ID, cofferdam, did, running, said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// For what must happen.
const SOON: Duration = Duration::from_secs(60);

fn document(bundle: &Bundle, args: &[&str]) -> Value {
    serde_json::from_str(&output_of(&did(bundle, args), 0)).unwrap()
}

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// `cofferdam events`, read as it comes.
struct Listener {
    child: Child,
    lines: Receiver<String>,
}

impl Listener {
    fn start(bundle: &Bundle, args: &[&str]) -> Self {
        let mut command = cofferdam(bundle, &["events", "--format", "json"]);
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let lines: Lines<BufReader<ChildStdout>> = BufReader::new(child.stdout.take().unwrap()).lines();
        let (read, received) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| read.send(line)));
        Self {
            child,
            lines: received,
        }
    }

    /// The next event: type, further process, exit status.
    #[track_caller]
    fn next(&self) -> (String, Option<String>, Option<u64>) {
        let line = self.lines.recv_timeout(SOON).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["id"], ID);
        assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
        (
            event["type"].as_str().unwrap().to_owned(),
            event["exec"].as_str().map(str::to_owned),
            event["attributes"]["exitStatus"].as_u64(),
        )
    }

    #[track_caller]
    fn expect(&self, kinds: &[(&str, Option<u64>)]) {
        for (kind, status) in kinds {
            let (told, _, exit) = self.next();
            assert_eq!((told.as_str(), exit), (*kind, *status));
        }
    }

    /// The process, whose output nobody reads from now on.
    fn without_reader(self) -> Child {
        self.child
    }

    /// Interrupts it. Nothing was told that was not asked for.
    fn end(mut self) {
        signal(&self.child, Signal::INT);
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.lines.iter().collect::<Vec<_>>(), Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn every_device_of_a_vm_has_its_holders() {
    let bundle = Bundle::with_layers("echo ready; exec sleep 600");
    let share = bundle.directory("share", &[("f", "")]);
    let files = bundle.directory("files", &[("g", "")]);
    let disk = bundle.disk("data.vhdx", "vhdx", &[]);
    let hot = bundle.disk("hot.ext4", "raw", &[]);
    let bundle = bundle
        .mount("bind", &share, "/share", &["ro"])
        .mount("bind", files.join("g"), "/g", &[])
        .mount("virtual-disk", &disk, "/mnt/x", &["ro"])
        .set("annotations", json!({ "team": "blue" }));
    let mut child = running(&bundle);
    for (kind, source, destination) in [("virtual-disk", &hot, "/hot"), ("bind", &share, "/again")] {
        let mount = format!(
            "type={kind},source={},destination={destination}",
            source.display()
        );
        output_of(&did(&bundle, &["mount", "add", ID, "--mount", &mount]), 0);
    }

    let all = document(&bundle, &["inspect", ID]);
    let web = &all[0];
    assert_eq!((&web["id"], &web["status"]), (&json!(ID), &json!("running")));
    assert_eq!(web["annotations"], json!({ "team": "blue" }));
    assert_eq!(web["owner"]["pid"], child.id());
    assert_eq!(web["network"]["kind"], "none");
    assert!(web["startedAt"].as_str() >= web["createdAt"].as_str());
    let devices = web["devices"].as_array().unwrap();
    let mut held: Vec<_> = devices
        .iter()
        .map(|device| {
            let holders = device["heldBy"].as_array().unwrap();
            assert_eq!(
                device["references"],
                holders.len(),
                "somebody has no name: {device}"
            );
            assert_eq!(device["state"], "attached", "{device}");
            let names = holders.iter().map(|holder| holder["item"].as_str().unwrap());
            let path = device["hostPath"].as_str().unwrap_or_default();
            let name = path.rsplit('/').next().unwrap();
            let writable = device["readOnly"].as_bool().map(|read_only| !read_only);
            (name.to_owned(), writable, names.collect::<Vec<_>>().join(", "))
        })
        .collect();
    held.sort();
    let line = |name: &str, writable, items: &str| (name.to_owned(), writable, items.to_owned());
    assert_eq!(
        held,
        [
            line("", None, "mount 7 on /hot"),
            line("", None, "mount 8 on /again"),
            line("", None, "root"),
            line("data.vhdx", Some(false), "mount 6 on /mnt/x"),
            line("files", Some(true), "mount 5 on /g"),
            line("hot.ext4.ext4", Some(true), "mount 7 on /hot"),
            line("layer.vhd", Some(false), "layer 1"),
            line("layer.vhd", Some(false), "layer 2"),
            line("sandbox.vhdx", Some(true), "scratch"),
            line("share", Some(false), "mount 4 on /share"),
            line("share", Some(true), "mount 8 on /again"),
        ]
    );
    let shown = output_of(&did(&bundle, &["inspect", "--format", "table", ID]), 0);
    let row = shown.lines().find(|line| line.contains("/data.vhdx")).unwrap();
    assert!(
        row.starts_with("SCSI ") && row.ends_with("web: mount 6 on /mnt/x"),
        "{row}"
    );

    output_of(&did(&bundle, &["mount", "remove", ID, "/hot"]), 0);
    let text = output_of(&did(&bundle, &["inspect", ID]), 0);
    assert!(!text.contains("hot.ext4") && !text.contains("/hot"), "{text}");
    output_of(&did(&bundle, &["kill", ID]), 0);
    child.wait().unwrap();
    let gone = did(&bundle, &["inspect", ID]);
    assert_eq!(output_of(&gone, 1), "[]\n");
    assert!(said(&gone).contains("does not exist"), "{}", said(&gone));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn what_happens_is_told_in_order_from_the_creation_to_the_last_release() {
    let bundle = Bundle::with_layers("echo ready; exec sleep 600");
    // They find an owner that is not there yet, and may be slower to start than it is.
    let listening = Listener::start(&bundle, &["--since", "1h"]);
    let exits = Listener::start(&bundle, &["--since", "1h", "--filter", "type=exit", ID]);
    let others = Listener::start(&bundle, &["--since", "1h", "another"]);
    let mut child = running(&bundle);
    listening.expect(&[("create", None), ("start", None)]);
    assert_eq!(
        did(&bundle, &["exec", ID, "sh", "-c", "exit 7"]).status.code(),
        Some(7)
    );
    let added = listening.next();
    assert_eq!(added.0, "exec-added");
    assert!(added.1.is_some());
    assert_eq!(
        listening.next(),
        ("exec-started".to_owned(), added.1.clone(), None)
    );
    assert_eq!(listening.next(), ("exit".to_owned(), added.1.clone(), Some(7)));
    assert_eq!(listening.next(), ("delete".to_owned(), added.1, Some(7)));
    output_of(&did(&bundle, &["pause", ID]), 0);
    output_of(&did(&bundle, &["resume", ID]), 0);
    listening.expect(&[("paused", None), ("resumed", None)]);
    let late = Listener::start(&bundle, &["--since", "1h"]);
    late.expect(&[("create", None), ("start", None), ("exec-added", None)]);
    output_of(&did(&bundle, &["kill", ID]), 0);
    child.wait().unwrap();
    listening.expect(&[("exit", Some(137)), ("delete", Some(137))]);
    exits.expect(&[("exit", Some(7)), ("exit", Some(137))]);
    listening.end();
    exits.end();
    others.end();
    // Nobody reads what it has to say any more.
    let mut late = late.without_reader();
    let mut again = running(&bundle);
    assert!(late.wait().unwrap().success());
    output_of(&did(&bundle, &["kill", ID]), 0);
    again.wait().unwrap();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn an_owner_that_is_killed_is_told_as_lost_and_shown_as_dead() {
    let bundle = Bundle::with_layers("echo ready; exec sleep 600");
    let mut child = running(&bundle);
    let late = Listener::start(&bundle, &["--since", "1h"]);
    late.expect(&[("create", None), ("start", None)]);
    child.kill().unwrap();
    child.wait().unwrap();
    late.expect(&[("lost", None)]);
    late.end();
    let web = &document(&bundle, &["inspect", ID])[0];
    assert_eq!(
        (&web["status"], &web["owner"]["alive"]),
        (&json!("dead"), &json!(false))
    );
    assert!(web["note"].as_str().unwrap().contains("cofferdam fsck"), "{web}");
    let state = document(&bundle, &["state", ID]);
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    output_of(&did(&bundle, &["fsck", "--repair", ID]), 0);
    assert_eq!(did(&bundle, &["state", ID]).status.code(), Some(1));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn the_state_of_a_container_goes_through_its_life() {
    let bundle = Bundle::with_layers("while test ! -e /go; do sleep 0.1; done; exit 5")
        .set("annotations", json!({ "team": "blue" }));
    let mut command = bundle.command_of("create");
    command.env("COFFERDAM_ROOT", bundle.path("owners")).arg(ID);
    output_of(&command.output().unwrap(), 0);
    let state = || document(&bundle, &["state", ID]);
    let created = state();
    assert_eq!(created["status"], "created");
    assert!(document(&bundle, &["inspect", ID])[0]["startedAt"].is_null());
    output_of(&did(&bundle, &["start", ID]), 0);
    let running = state();
    assert_eq!(
        (&running["created"], &running["pid"]),
        (&created["created"], &created["pid"])
    );
    assert_eq!(
        (&running["id"], &running["status"]),
        (&json!(ID), &json!("running"))
    );
    assert_eq!(running["ociVersion"], "1.0.2");
    assert_eq!(running["annotations"], json!({ "team": "blue" }));
    let pid = running["pid"].as_u64().unwrap();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert!(name.starts_with("qemu"), "{name}");
    output_of(&did(&bundle, &["pause", ID]), 0);
    assert_eq!(state()["status"], "paused");
    output_of(&did(&bundle, &["resume", ID]), 0);
    let listening = Listener::start(&bundle, &["--since", "1h", "--filter", "type=exit"]);
    output_of(&did(&bundle, &["exec", ID, "touch", "/go"]), 0);
    listening.expect(&[("exit", Some(0)), ("exit", Some(5))]);
    // Its record is kept when its owner has ended.
    let stopped = loop {
        let state = state();
        if state["status"] == "stopped" {
            break state;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(stopped["pid"], 0);
    listening.end();
    let web = loop {
        let web = document(&bundle, &["inspect", ID])[0].clone();
        if web["owner"]["alive"] == json!(false) {
            break web;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(
        (&web["status"], &web["exitStatus"]),
        (&json!("stopped"), &json!(5))
    );
    assert_eq!(web["createdAt"], running["created"]);
    assert!(
        web["startedAt"].is_string() && web["finishedAt"].is_string(),
        "{web}"
    );
    assert!(std::path::Path::new(web["logPath"].as_str().unwrap()).exists());
    output_of(&did(&bundle, &["rm", ID]), 0);
    assert_eq!(did(&bundle, &["state", ID]).status.code(), Some(1));
}
