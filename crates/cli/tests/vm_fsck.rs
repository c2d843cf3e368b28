//! Owners that are killed at any step, and what `fsck` finds and frees of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use bundle::{Bundle, output_of, succeed};
use serde_json::Value;

/// A container with layers, disks of its own and shares, whose records are in a directory of its own.
struct Subject {
    bundle: Bundle,
    root: PathBuf,
    managed: PathBuf,
}

impl Subject {
    fn new() -> Self {
        let bundle = Bundle::with_layers("echo ready; sleep 600");
        let (plain, managed) = (
            bundle.disk("plain.qcow2", "qcow2", &[]),
            bundle.disk("managed.vhdx", "vhdx", &[]),
        );
        let share = bundle.directory("share", &[("a", "x\n")]);
        let root = bundle.path("run");
        let bundle = bundle
            .mount("virtual-disk", plain, "/plain", &[])
            .mount("automanage-virtual-disk", &managed, "/managed", &[])
            .mount("bind", &share, "/share", &[])
            .mount("bind", share.join("a"), "/a", &["ro"]);
        Self {
            bundle,
            root,
            managed,
        }
    }

    fn start(&self) -> Child {
        let mut command = self.bundle.command();
        command.arg("--root").arg(&self.root).arg("web");
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    fn fsck(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command.arg("fsck").arg("--root").arg(&self.root).args(arguments);
        command.output().unwrap()
    }

    fn journal(&self) -> PathBuf {
        self.root.join("web/journal")
    }

    /// Waits until the owner is about to perform its `number`th step.
    fn await_step(&self, number: usize) {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(self.journal()).unwrap_or_default();
            if text.lines().filter(|line| line.starts_with("{\"begin\"")).count() >= number {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no step {number}: {text}"
            );
        }
    }
}

fn kill(child: &mut Child) {
    succeed(Command::new("kill").args(["-9", &child.id().to_string()]));
    child.wait().unwrap();
}

/// The processes that have this text in their command line, but for this one.
fn processes_with(text: &str) -> Vec<String> {
    let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text).then_some(line)
    });
    found.filter(|line| line.contains("qemu-system")).collect()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn an_owner_killed_at_any_step_leaves_nothing_that_repair_does_not_free() {
    // The first step, the middle of the allocation, the last ones, and the running container.
    for step in [1, 4, 9, 15] {
        let subject = Subject::new();
        let mut owner = subject.start();
        subject.await_step(step);
        let directories = record(&subject.root)["directories"].clone();
        kill(&mut owner);
        let directory = PathBuf::from(directories[0].as_str().unwrap());

        let found = subject.fsck(&[]);
        let text = output_of(&found, 1);
        println!("killed at step {step} or later:\n{text}");
        assert!(text.contains("is gone") && text.contains("record "), "{text}");
        let attached = fs::read_to_string(subject.journal()).unwrap();
        let taken = attached.lines().any(|line| {
            line.starts_with("{\"begin\"") && line.contains("AttachScsi") && line.contains("managed.vhdx")
        });
        assert_eq!(text.contains("auto-managed disk"), taken, "{text}");
        assert!(subject.managed.exists(), "looking frees nothing");

        let freed = output_of(&subject.fsck(&["--repair"]), 0);
        println!("{freed}");
        assert!(freed.contains("nothing is left"), "{freed}");
        assert_eq!(subject.managed.exists(), !taken);
        assert!(!directory.exists() && !subject.root.join("web").exists());
        assert_eq!(processes_with(directory.to_str().unwrap()), [""; 0]);
        let nothing = output_of(&subject.fsck(&[]), 0);
        assert!(nothing.contains("nothing is held"), "{nothing}");
    }
}

fn record(root: &Path) -> Value {
    serde_json::from_slice(&fs::read(root.join("web/owner.json")).unwrap()).unwrap()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_living_owners_three_sides_agree_and_its_name_is_taken() {
    let subject = Subject::new();
    let mut owner = subject.start();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let agree = output_of(&subject.fsck(&["web"]), 0);
    assert!(agree.contains("agree"), "{agree}");
    let json: Value = serde_json::from_str(&output_of(&subject.fsck(&["--format", "json"]), 0)).unwrap();
    assert_eq!(
        (&json[0]["status"], &json[0]["found"]),
        (&"alive".into(), &Value::Array(vec![]))
    );

    let second = subject.start().wait_with_output().unwrap();
    output_of(&second, 125);
    succeed(Command::new("kill").args(["-KILL", &record(&subject.root)["hypervisor"]["pid"].to_string()]));
    owner.wait().unwrap();
    assert!(
        !subject.root.join("web").exists(),
        "its owner has cleared up itself"
    );
    assert!(
        !subject.managed.exists(),
        "a VM that died is no reason to keep what is managed"
    );
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_name_left_behind_says_what_to_do() {
    let subject = Subject::new();
    let mut owner = subject.start();
    subject.await_step(2);
    kill(&mut owner);
    let mut command = subject.bundle.command();
    command.arg("--root").arg(&subject.root).arg("web");
    let again = command.output().unwrap();
    output_of(&again, 125);
    let message = String::from_utf8_lossy(&again.stderr);
    assert!(message.contains("fsck --repair web"), "{message}");
    output_of(&subject.fsck(&["--repair", "web"]), 0);
    let absent = subject.fsck(&["web"]);
    output_of(&absent, 1);
    assert!(String::from_utf8_lossy(&absent.stderr).contains("web does not exist"));
}
