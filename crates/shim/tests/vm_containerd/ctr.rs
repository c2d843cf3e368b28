//! Containers through containerd's own client.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Output, Stdio},
};

use crate::daemon::{Containerd, IMAGE, eventually};
use serde_json::{Value, json};

const RUNTIME: &str = "io.containerd.cofferdam.v1";
/// The CRI plugin is none of its clients' business here, and slow to start.
const WITHOUT_CRI: &str = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]";

pub(crate) fn started() -> Containerd {
    let containerd = Containerd::start(|_| WITHOUT_CRI.to_owned());
    containerd.import("default", IMAGE, &["sh"]);
    containerd
}

pub(crate) fn run(containerd: &Containerd, options: &[&str], id: &str, command: &[&str]) -> Command {
    let mut args = vec!["run", "--runtime", RUNTIME];
    args.extend(options);
    args.extend([IMAGE, id]);
    args.extend(command);
    containerd.ctr(&args)
}

fn task(containerd: &Containerd, args: &[&str]) -> Output {
    let mut all = vec!["task"];
    all.extend(args);
    containerd.ctr(&all).output().unwrap()
}

/// The state of a container's task, or nothing.
fn state(containerd: &Containerd, id: &str) -> Option<String> {
    let list = containerd.succeeded(&task(containerd, &["ls"]));
    let line = list
        .lines()
        .find(|line| line.split_whitespace().next() == Some(id))?;
    line.split_whitespace().last().map(str::to_owned)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_runs_in_the_foreground_and_nothing_is_left() {
    let containerd = started();
    fs::write(containerd.path("file"), "of the host\n").unwrap();
    let mount = format!(
        "type=bind,src={},dst=/etc/given,options=bind:ro",
        containerd.path("file").display()
    );
    let script = "id -u; cat /etc/given; touch /no 2>/dev/null && echo written; exit 7";
    let options = ["--rm", "--read-only", "--mount", &mount];
    let output = run(&containerd, &options, "c", &["sh", "-c", script])
        .output()
        .unwrap();
    assert_eq!(containerd.ended_with(&output, 7), "0\nof the host\n");
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_detached_container_is_looked_at_entered_killed_and_deleted() {
    let containerd = started();
    let output = run(&containerd, &["-d"], "c", &["sleep", "600"])
        .output()
        .unwrap();
    containerd.succeeded(&output);
    assert_eq!(state(&containerd, "c").as_deref(), Some("RUNNING"));

    let exec = |id: &str, command: &[&str]| {
        let mut args = vec!["exec", "--exec-id", id, "c"];
        args.extend(command);
        task(&containerd, &args)
    };
    let entered = exec("e", &["sh", "-c", "echo inside; exit 3"]);
    assert_eq!(containerd.ended_with(&entered, 3), "inside\n");
    let missing = exec("m", &["/no/such/program"]);
    assert!(!missing.status.success());
    assert!(said(&missing).contains("/no/such/program"), "{}", said(&missing));
    let listed = containerd.succeeded(&task(&containerd, &["ps", "c"]));
    assert_eq!(listed.lines().count(), 2, "{listed}");
    let figures = containerd.succeeded(&task(&containerd, &["metrics", "c"]));
    let usage = figures
        .lines()
        .find(|line| line.starts_with("memory.usage_in_bytes"));
    let usage = usage.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    assert!(usage.is_some_and(|bytes| bytes > 0), "{figures}");

    let twice = task(&containerd, &["start", "c"]);
    assert!(said(&twice).contains("already exists"), "{}", said(&twice));
    let early = task(&containerd, &["delete", "c"]);
    assert!(!early.status.success());

    containerd.succeeded(&task(&containerd, &["kill", "-s", "KILL", "c"]));
    eventually("it has stopped", || {
        state(&containerd, "c").as_deref() == Some("STOPPED")
    });
    let late = exec("l", &["true"]);
    assert!(said(&late).contains("has stopped"), "{}", said(&late));
    let again = task(&containerd, &["kill", "c"]);
    assert!(said(&again).contains("already finished"), "{}", said(&again));
    let deleted = task(&containerd, &["delete", "c"]);
    assert!(said(&deleted).contains("137"), "{}", said(&deleted));
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn no_byte_of_input_or_output_is_lost() {
    let containerd = started();
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut child = run(&containerd, &["--rm"], "c", &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = sent.clone();
    let sending = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    sending.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        output.stdout == sent,
        "{} of {} bytes",
        output.stdout.len(),
        sent.len()
    );
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_terminal_has_the_callers_size() {
    let containerd = started();
    let command = run(
        &containerd,
        &["--rm", "-t"],
        "c",
        &["sh", "-c", "'stty size; exit 5'"],
    );
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let line = format!("stty rows 31 cols 97; exec {}", words.join(" "));
    let output = Command::new("script")
        .env("SHELL", "/bin/sh")
        .args(["-qefc", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let shown = containerd.ended_with(&output, 5);
    assert!(shown.contains("31 97"), "{shown}");
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn events_come_in_the_order_in_which_things_happen() {
    let containerd = started();
    let mut listener = containerd
        .ctr(&["events"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(listener.stdout.take().unwrap()).lines();
    // The listener has no way to say that it listens: it is asked by an event of another kind, until one arrives.
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let hearing = {
        let heard = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        })
    };
    eventually("it listens", || {
        let output = containerd.ctr(&["namespace", "label", "default", "a=b"]).output();
        containerd.succeeded(&output.unwrap());
        !heard.lock().unwrap().is_empty()
    });
    let output = run(&containerd, &["-d"], "c", &["sleep", "600"])
        .output()
        .unwrap();
    containerd.succeeded(&output);
    let entered = task(&containerd, &["exec", "--exec-id", "e", "c", "false"]);
    containerd.ended_with(&entered, 1);
    containerd.succeeded(&task(&containerd, &["kill", "-s", "KILL", "c"]));
    eventually("it has stopped", || {
        state(&containerd, "c").as_deref() == Some("STOPPED")
    });
    task(&containerd, &["delete", "c"]);
    let topics = || -> Vec<String> {
        let heard = heard.lock().unwrap();
        let topics = heard
            .iter()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("/tasks/")));
        topics.map(str::to_owned).collect()
    };
    eventually("the deletion is told", || {
        topics().last().is_some_and(|topic| topic == "/tasks/delete")
    });
    let names = [
        "create",
        "start",
        "exec-added",
        "exec-started",
        "exit",
        "delete",
        "exit",
        "delete",
    ];
    // The deletion of a further process is told by the shim, that of the container by containerd itself.
    let expected = names.map(|name| format!("/tasks/{name}"));
    assert_eq!(topics(), expected);
    listener.kill().unwrap();
    listener.wait().unwrap();
    hearing.join().unwrap();
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_is_paused_and_resumed_and_one_that_runs_out_of_memory_says_so() {
    let containerd = started();
    let mut listener = containerd
        .ctr(&["events"])
        .stdout(Stdio::from(fs::File::create(containerd.path("events")).unwrap()))
        .spawn()
        .unwrap();
    let heard = |topic: &str| {
        let text = fs::read_to_string(containerd.path("events")).unwrap();
        text.lines().any(|line| line.contains(topic))
    };
    eventually("it listens", || {
        let output = containerd.ctr(&["namespace", "label", "default", "a=b"]).output();
        containerd.succeeded(&output.unwrap());
        heard("/namespaces/")
    });
    let options = ["-d", "--memory-limit", "33554432"];
    // In itself it needs little; once it goes on, more than there is.
    let script =
        "while ! test -e /go; do sleep 0.1; done; dd if=/dev/zero of=/dev/shm/full bs=1M count=60; exit 0";
    let output = run(&containerd, &options, "c", &["sh", "-c", script])
        .output()
        .unwrap();
    containerd.succeeded(&output);
    containerd.succeeded(&task(&containerd, &["pause", "c"]));
    assert_eq!(state(&containerd, "c").as_deref(), Some("PAUSED"));
    let entered = task(&containerd, &["exec", "--exec-id", "p", "c", "true"]);
    assert!(said(&entered).contains("paused"), "{}", said(&entered));
    containerd.succeeded(&task(&containerd, &["resume", "c"]));
    assert_eq!(state(&containerd, "c").as_deref(), Some("RUNNING"));
    assert!(heard("/tasks/paused") && heard("/tasks/resumed") && !heard("/tasks/oom"));

    let go = task(&containerd, &["exec", "--exec-id", "g", "c", "touch", "/go"]);
    containerd.succeeded(&go);
    eventually("it has run out of memory", || heard("/tasks/oom"));
    // What was killed may have been a part of it only.
    task(&containerd, &["kill", "-s", "KILL", "c"]);
    eventually("it has stopped", || {
        state(&containerd, "c").as_deref() == Some("STOPPED")
    });
    task(&containerd, &["delete", "c"]);
    listener.kill().unwrap();
    listener.wait().unwrap();
    containerd.assert_nothing_left();
}

/// What follows a VM that has gone: its container has stopped, and can be deleted.
fn assert_over(containerd: &Containerd) {
    eventually("it has stopped", || {
        state(containerd, "c").as_deref() == Some("STOPPED")
    });
    let deleted = task(containerd, &["delete", "c"]);
    assert!(said(&deleted).contains("137"), "{}", said(&deleted));
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_hypervisor_that_is_killed_ends_the_container_which_can_be_deleted() {
    let containerd = started();
    let output = run(&containerd, &["-d"], "c", &["sleep", "600"])
        .output()
        .unwrap();
    containerd.succeeded(&output);
    containerd.kill("qemu");
    assert_over(&containerd);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_guest_that_ends_by_itself_ends_the_container_which_can_be_deleted() {
    let containerd = started();
    let rootfs = containerd.path("rootfs");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::copy("/usr/bin/busybox", rootfs.join("bin/sh")).unwrap();
    let mut spec: Value =
        serde_json::from_str(&containerd.succeeded(&containerd.ctr(&["oci", "spec"]).output().unwrap()))
            .unwrap();
    // In the VM's own process namespace, with the right to end it.
    spec["root"] = json!({ "path": rootfs });
    spec["process"]["args"] = json!(["/bin/sh", "-c", "exec sleep 600"]);
    for set in ["bounding", "effective", "permitted"] {
        let capabilities = spec["process"]["capabilities"][set].as_array_mut().unwrap();
        capabilities.push("CAP_SYS_BOOT".into());
    }
    let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let config = containerd.path("spec.json");
    fs::write(&config, spec.to_string()).unwrap();
    let options = [
        "run",
        "-d",
        "--runtime",
        RUNTIME,
        "--config",
        config.to_str().unwrap(),
        "c",
    ];
    containerd.succeeded(&containerd.ctr(&options).output().unwrap());
    let end = ["exec", "--exec-id", "e", "c", "/bin/sh", "-c", "exec reboot -f"];
    let ended = task(&containerd, &end);
    assert!(!ended.status.success());
    assert_over(&containerd);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_shim_that_is_killed_leaves_nothing_once_containerd_has_noticed() {
    let containerd = started();
    let output = run(&containerd, &["-d"], "c", &["sleep", "600"])
        .output()
        .unwrap();
    containerd.succeeded(&output);
    containerd.kill("containerd-shim");
    eventually("its task is gone", || state(&containerd, "c").is_none());
    containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_program_that_is_missing_is_named_and_leaves_nothing() {
    let containerd = started();
    let output = run(&containerd, &["--rm"], "c", &["/no/such/program"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("/no/such/program"), "{}", said(&output));
    containerd.assert_nothing_left();
}
