//! A killed owner whose VM had taken an interface's place: what `fsck` finds of that, and puts right. The hypervisor is a
//! program that does nothing: what is left on the host is the same.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// A network namespace with an interface, and containers that are about to be run on it.
struct Scene {
    dir: tempfile::TempDir,
    namespace: String,
    runs: Vec<Child>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self {
            dir,
            namespace: format!("cofferdam-fsck-{}", std::process::id()),
            runs: Vec::new(),
        };
        fs::create_dir_all(scene.path("bundle/rootfs")).unwrap();
        let spec = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": { "args": ["true"], "cwd": "/" },
        });
        fs::write(scene.path("bundle/config.json"), spec.to_string()).unwrap();
        for name in ["kernel", "initramfs"] {
            fs::write(scene.path(name), "").unwrap();
        }
        let hypervisor = scene.path("hypervisor");
        fs::write(&hypervisor, "#!/bin/sh\nexec sleep 600\n").unwrap();
        fs::set_permissions(&hypervisor, fs::Permissions::from_mode(0o755)).unwrap();
        let name = &scene.namespace;
        for words in [
            format!("netns add {name}"),
            format!("-n {name} link add name eth0 type veth peer name veth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            told(&Command::new("ip").args(words.split(' ')).output().unwrap());
        }
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tc(&self, words: &str) -> String {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "tc"])
            .args(words.split(' '));
        told(&command.output().unwrap())
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command.arg(subcommand).arg("--root").arg(self.path("run"));
        command
    }

    /// Begins to run a container, until its VM has the interface's place.
    fn run(&mut self, id: &str) {
        let mut command = self.command("run");
        command
            .arg("--network")
            .arg(format!("ns:/run/netns/{}", self.namespace));
        for (option, name) in [
            ("--kernel", "kernel"),
            ("--initramfs", "initramfs"),
            ("--qemu", "hypervisor"),
            ("--bundle", "bundle"),
        ] {
            command.arg(option).arg(self.path(name));
        }
        let run = command.arg(id).stderr(Stdio::piped()).spawn().unwrap();
        self.runs.push(run);
        let begun = Instant::now();
        while !self.path("run").join(id).join("owner.json").exists() || !self.redirects() {
            let run = self.runs.last_mut().unwrap();
            if begun.elapsed() > SOON || run.try_wait().unwrap().is_some() {
                let _ = run.kill();
                panic!("{:?}", self.runs.pop().unwrap().wait_with_output());
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn redirects(&self) -> bool {
        self.tc("filter show dev eth0 ingress").contains("mirred")
    }

    fn kill(&mut self, run: usize) {
        self.runs[run].kill().unwrap();
        self.runs[run].wait().unwrap();
        // The hypervisor ends with it, and the device then.
        let begun = Instant::now();
        while self.tc("filter show dev eth0 ingress").contains("device tapcoff") {
            assert!(begun.elapsed() < SOON);
            sleep(Duration::from_millis(20));
        }
    }

    /// The status, and what was found.
    fn fsck(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let mut command = self.command("fsck");
        let output = command
            .args(["--format", "json"])
            .args(arguments)
            .output()
            .unwrap();
        let reports: Vec<Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let found = reports
            .iter()
            .flat_map(|report| report["found"].as_array().unwrap().clone());
        let of_interface = |line: &Value| line["what"].as_str().unwrap().starts_with("redirected interface");
        (
            output.status.code().unwrap(),
            found.filter(of_interface).collect(),
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for run in &mut self.runs {
            let _ = run.kill();
            let _ = run.wait();
        }
        let _ = Command::new("ip")
            .args(["netns", "del", &self.namespace])
            .output();
    }
}

fn told(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{output:?} (network namespaces need root)"
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn an_interface_that_a_killed_owner_left_redirected_gets_its_place_back_unless_another_has_taken_it() {
    let mut scene = Scene::new();
    let untouched = scene.tc("qdisc show");
    let what = format!("redirected interface eth0 in /run/netns/{}", scene.namespace);
    scene.run("first");
    scene.kill(0);
    assert!(scene.redirects(), "nobody has undone it");
    let (status, found) = scene.fsck(&[]);
    let expected = json!([{ "what": what, "state": "left behind", "remedy": "restore", "freed": false }]);
    assert_eq!((status, Value::from(found)), (1, expected));
    assert!(scene.redirects(), "it was only looked at");

    // Somebody else has put it right, and another VM took it.
    scene.tc("qdisc delete dev eth0 ingress");
    scene.run("second");
    let (_, found) = scene.fsck(&["first"]);
    let expected = json!([{ "what": what, "state": "replaced by another; kept", "freed": false }]);
    assert_eq!(Value::from(found), expected);
    let (_, found) = scene.fsck(&["--repair", "first"]);
    assert_eq!(Value::from(found), expected);
    assert!(scene.redirects() && !scene.path("run/first").exists());

    scene.kill(1);
    let (status, found) = scene.fsck(&["--repair"]);
    let expected = json!([{ "what": what, "state": "left behind", "remedy": "restore", "freed": true }]);
    assert_eq!((status, Value::from(found)), (0, expected));
    assert_eq!(scene.tc("qdisc show"), untouched);
    assert!(!scene.path("run/second").exists());
}
