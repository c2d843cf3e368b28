//! Commands for containers that run: they ask the process that owns the container.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Output, Stdio},
};

use bundle::{Bundle, output_of};

/// The container's name; each has a root of its own.
const ID: &str = "web";

/// A container that runs until it is killed, and its owner.
struct Running {
    bundle: Bundle,
    child: Child,
}

impl Running {
    fn new() -> Self {
        let bundle = Bundle::with_layers("echo ready; exec sleep 600");
        let mut command = bundle.command();
        let mut child = command
            .env("COFFERDAM_ROOT", bundle.path("owners"))
            .arg(ID)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        Self { bundle, child }
    }

    fn cofferdam(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .env("COFFERDAM_ROOT", self.bundle.path("owners"))
            .args(args);
        command
    }

    fn did(&self, args: &[&str]) -> Output {
        self.cofferdam(args).output().unwrap()
    }

    fn ended(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_running_container_is_listed_entered_paused_measured_and_killed() {
    let mut running = Running::new();
    let listed = output_of(&running.did(&["ps"]), 0);
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with(ID) && line.contains("running")),
        "{listed}"
    );

    let entered = running.did(&["exec", ID, "sh", "-c", "echo inside; echo aside >&2; exit 7"]);
    assert_eq!(output_of(&entered, 7), "inside\n");
    assert_eq!(said(&entered), "aside\n");
    let missing = running.did(&["exec", ID, "/no/such/program"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(said(&missing).contains("/no/such/program"), "{}", said(&missing));

    let stats = output_of(&running.did(&["stats", ID, "--format", "json"]), 0);
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert!(stats[0]["memoryBytes"].as_u64().unwrap() > 0, "{stats}");

    output_of(&running.did(&["pause", ID]), 0);
    let paused = running.did(&["exec", ID, "true"]);
    assert!(said(&paused).contains("is paused"), "{}", said(&paused));
    output_of(&running.did(&["resume", ID]), 0);

    let waiting = running
        .cofferdam(&["wait", ID])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    output_of(&running.did(&["kill", "--signal", "SIGKILL", ID]), 0);
    assert_eq!(running.ended(), 128 + 9);
    let waited = waiting.wait_with_output().unwrap();
    // It may have come too late, when nobody was left to ask.
    if waited.status.success() {
        assert_eq!(waited.stdout, b"137\n");
    }
    let gone = running.did(&["kill", ID]);
    assert!(said(&gone).contains("does not exist"), "{}", said(&gone));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn no_byte_is_lost_on_the_way_through_a_further_process() {
    let mut running = Running::new();
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut exec = running
        .cofferdam(&["exec", "-i", ID, "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = exec.stdin.take().unwrap();
    let bytes = sent.clone();
    let sending = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = exec.wait_with_output().unwrap();
    sending.join().unwrap();
    assert!(output.status.success() && output.stdout == sent);
    output_of(&running.did(&["kill", ID]), 0);
    running.ended();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_further_process_has_a_terminal_of_the_callers_size() {
    let mut running = Running::new();
    let exec = running.cofferdam(&["exec", "-it", ID, "busybox", "stty", "size"]);
    let words: Vec<_> = std::iter::once(exec.get_program())
        .chain(exec.get_args())
        .collect();
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let mut terminal = Command::new("script");
    for (name, value) in exec.get_envs() {
        terminal.env(name, value.unwrap_or_default());
    }
    let output = terminal
        .env("SHELL", "/bin/sh")
        .args([
            "-qefc",
            &format!("stty rows 31 cols 97; exec {}", words.join(" ")),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .output()
        .unwrap();
    let shown = output_of(&output, 0);
    assert!(shown.contains("31 97"), "{shown}");
    output_of(&running.did(&["kill", ID]), 0);
    running.ended();
}

/// `run --detach` of a script, and its owners' directory.
fn detached(script: &str) -> (Bundle, Output) {
    let bundle = Bundle::with_layers(script);
    let mut command = bundle.command();
    command
        .env("COFFERDAM_ROOT", bundle.path("owners"))
        .args(["--detach", ID]);
    let output = command.output().unwrap();
    (bundle, output)
}

fn of(bundle: &Bundle, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.env("COFFERDAM_ROOT", bundle.path("owners")).args(args);
    command.output().unwrap()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_detached_container_leaves_its_log_and_status_until_it_is_removed() {
    let script = "echo out; echo err >&2; while test ! -e /go; do sleep 0.1; done; echo last; exit 5";
    let (bundle, started) = detached(script);
    assert_eq!(output_of(&started, 0), format!("{ID}\n"));
    let following = Command::new(env!("CARGO_BIN_EXE_cofferdam"))
        .env("COFFERDAM_ROOT", bundle.path("owners"))
        .args(["logs", "--follow", ID])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let early = of(&bundle, &["rm", ID]);
    assert!(said(&early).contains("stop it first"), "{}", said(&early));
    output_of(&of(&bundle, &["exec", ID, "touch", "/go"]), 0);
    let followed = following.wait_with_output().unwrap();
    assert_eq!(output_of(&followed, 0), "out\nlast\n");
    assert_eq!(said(&followed), "err\n");

    let listed = output_of(&of(&bundle, &["ps", "--all"]), 0);
    assert!(listed.contains("ended (5)"), "{listed}");
    assert!(!output_of(&of(&bundle, &["ps"]), 0).contains(ID));
    output_of(&of(&bundle, &["fsck"]), 0);
    let stamped = output_of(&of(&bundle, &["logs", "-t", ID]), 0);
    assert!(stamped.lines().all(|line| line.contains("Z ")), "{stamped}");
    output_of(&of(&bundle, &["rm", ID]), 0);
    assert!(said(&of(&bundle, &["logs", ID])).contains("does not exist"));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_detached_container_is_stopped_and_one_that_does_not_start_says_why() {
    let (bundle, started) = detached("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    output_of(&started, 0);
    // Until then the first process of a container takes no such signal.
    while !output_of(&of(&bundle, &["logs", ID]), 0).contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    output_of(&of(&bundle, &["stop", ID]), 0);
    let listed = output_of(&of(&bundle, &["ps", "-a"]), 0);
    assert!(listed.contains("ended (3)"), "{listed}");
    output_of(&of(&bundle, &["rm", ID]), 0);

    let bundle = Bundle::with_layers("").args(&["/no/such/program"]);
    let mut command = bundle.command();
    command
        .env("COFFERDAM_ROOT", bundle.path("owners"))
        .args(["--detach", ID]);
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(127));
    assert!(said(&refused).contains("/no/such/program"), "{}", said(&refused));
    assert_eq!(output_of(&of(&bundle, &["ps", "-aq"]), 0), "");
}
