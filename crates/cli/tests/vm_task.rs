//! Commands for containers that run: they ask the process that owns the container.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod owned;

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Output, Stdio},
};

use bundle::{Bundle, output_of};
use owned::{ID, cofferdam, did, running, said};

/// A container that runs until it is killed, and its owner.
struct Running {
    bundle: Bundle,
    child: Child,
}

impl Running {
    fn new() -> Self {
        let bundle = Bundle::with_layers("echo ready; exec sleep 600");
        let child = running(&bundle);
        Self { bundle, child }
    }

    fn cofferdam(&self, args: &[&str]) -> Command {
        cofferdam(&self.bundle, args)
    }

    fn did(&self, args: &[&str]) -> Output {
        self.cofferdam(args).output().unwrap()
    }

    fn ended(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }
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

/// The command in a terminal of 31 rows and 97 columns.
fn in_terminal(command: &Command) -> Command {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let mut terminal = Command::new("script");
    for (name, value) in command.get_envs() {
        terminal.env(name, value.unwrap_or_default());
    }
    let line = format!("stty rows 31 cols 97; exec {}", words.join(" "));
    terminal
        .env("SHELL", "/bin/sh")
        .args(["-qefc", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    terminal
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_further_process_has_a_terminal_of_the_callers_size() {
    let mut running = Running::new();
    let exec = running.cofferdam(&["exec", "-it", ID, "busybox", "stty", "size"]);
    let output = in_terminal(&exec).output().unwrap();
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

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_detached_container_leaves_its_log_and_status_until_it_is_removed() {
    let script = "echo out; echo err >&2; while test ! -e /go; do sleep 0.1; done; echo last; exit 5";
    let (bundle, started) = detached(script);
    assert_eq!(output_of(&started, 0), format!("{ID}\n"));
    let following = cofferdam(&bundle, &["logs", "--follow", ID])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let early = did(&bundle, &["rm", ID]);
    assert!(said(&early).contains("stop it first"), "{}", said(&early));
    output_of(&did(&bundle, &["exec", ID, "touch", "/go"]), 0);
    let followed = following.wait_with_output().unwrap();
    assert_eq!(output_of(&followed, 0), "out\nlast\n");
    assert_eq!(said(&followed), "err\n");

    let listed = output_of(&did(&bundle, &["ps", "--all"]), 0);
    assert!(listed.contains("ended (5)"), "{listed}");
    assert!(!output_of(&did(&bundle, &["ps"]), 0).contains(ID));
    output_of(&did(&bundle, &["fsck"]), 0);
    // Which of the first two lines came first is not said: they are of two streams.
    for (lines, shown) in [
        ("1", "last\n"),
        ("3", "out\nlast\n"),
        ("all", "out\nlast\n"),
        ("0", ""),
    ] {
        let tail = did(&bundle, &["logs", "--tail", lines, ID]);
        assert_eq!(output_of(&tail, 0), shown, "{lines}");
    }
    let recent = did(&bundle, &["logs", "--since", "1d", ID]);
    assert_eq!(output_of(&recent, 0), "out\nlast\n");
    let future = did(&bundle, &["logs", "--since", "2999-01-01T00:00:00Z", ID]);
    assert_eq!(output_of(&future, 0), "");
    let stamped = output_of(&did(&bundle, &["logs", "-t", ID]), 0);
    assert!(stamped.lines().all(|line| line.contains("Z ")), "{stamped}");
    output_of(&did(&bundle, &["rm", ID]), 0);
    assert!(said(&did(&bundle, &["logs", ID])).contains("does not exist"));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_detached_container_is_stopped_and_one_that_does_not_start_says_why() {
    let (bundle, started) = detached("trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    output_of(&started, 0);
    // Until then the first process of a container takes no such signal.
    while !output_of(&did(&bundle, &["logs", ID]), 0).contains("ready") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    output_of(&did(&bundle, &["stop", ID]), 0);
    let listed = output_of(&did(&bundle, &["ps", "-a"]), 0);
    assert!(listed.contains("ended (3)"), "{listed}");
    output_of(&did(&bundle, &["rm", ID]), 0);

    let bundle = Bundle::with_layers("").args(&["/no/such/program"]);
    let mut command = bundle.command();
    command
        .env("COFFERDAM_ROOT", bundle.path("owners"))
        .args(["--detach", ID]);
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(127));
    assert!(said(&refused).contains("/no/such/program"), "{}", said(&refused));
    assert_eq!(output_of(&did(&bundle, &["ps", "-aq"]), 0), "");
}

/// `create` of a script, and its owners' directory.
fn created(script: &str, options: &[&str]) -> (Bundle, Output) {
    let bundle = Bundle::with_layers(script);
    let mut command = bundle.command_of("create");
    command
        .env("COFFERDAM_ROOT", bundle.path("owners"))
        .args(options)
        .arg(ID);
    let output = command.output().unwrap();
    (bundle, output)
}

fn spawned(bundle: &Bundle, args: &[&str]) -> Child {
    cofferdam(bundle, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_created_container_waits_to_be_started_and_whoever_attached_gets_every_byte() {
    let (bundle, made) = created("cat; echo aside >&2; exit 6", &["--interactive"]);
    assert_eq!(output_of(&made, 0), format!("{ID}\n"));
    assert!(output_of(&did(&bundle, &["ps"]), 0).contains("created"));
    let refused = did(&bundle, &["exec", ID, "true"]);
    assert!(said(&refused).contains("is created"), "{}", said(&refused));
    let refused = did(&bundle, &["attach", ID]);
    assert!(said(&refused).contains("was not started"), "{}", said(&refused));

    let mut started = spawned(&bundle, &["start", "--attach", "--interactive", ID]);
    let sent: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.to_be_bytes()).collect();
    let (bytes, mut input) = (sent.clone(), started.stdin.take().unwrap());
    let sending = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = started.wait_with_output().unwrap();
    sending.join().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", said(&output));
    assert!(
        output.stdout == sent,
        "{} of {} bytes",
        output.stdout.len(),
        sent.len()
    );
    assert_eq!(said(&output), "aside\n");
    let again = did(&bundle, &["start", ID]);
    assert!(
        said(&again).contains("has ended, with status 6"),
        "{}",
        said(&again)
    );
    output_of(&did(&bundle, &["delete", ID]), 0);
    assert_eq!(output_of(&did(&bundle, &["ps", "-aq"]), 0), "");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn clients_come_and_go_and_the_container_goes_on() {
    let (bundle, made) = created(
        "read line; echo got $line; read line; echo got $line; exit 4",
        &["-i"],
    );
    output_of(&made, 0);
    assert_eq!(output_of(&did(&bundle, &["start", ID]), 0), format!("{ID}\n"));
    let twice = did(&bundle, &["start", ID]);
    assert!(said(&twice).contains("is running"), "{}", said(&twice));
    let mut first = spawned(&bundle, &["attach", ID]);
    first.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    let mut line = [0; 8];
    first.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"got one\n");
    // It vanishes, in the middle of what it has to say.
    first.stdin.as_mut().unwrap().write_all(b"tw").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = spawned(&bundle, &["attach", ID]);
    second.stdin.as_mut().unwrap().write_all(b"o\n").unwrap();
    let output = second.wait_with_output().unwrap();
    assert_eq!(output_of(&output, 4), "got two\n");
    assert_eq!(output_of(&did(&bundle, &["logs", ID]), 0), "got one\ngot two\n");
    output_of(&did(&bundle, &["rm", ID]), 0);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn the_keys_let_go_of_a_terminal_and_the_container_goes_on() {
    let script = "echo ready; while read line; do busybox stty size; echo got $line; done";
    let (bundle, made) = created(script, &["-it"]);
    output_of(&made, 0);
    let start = cofferdam(&bundle, &["start", "-ai", ID]);
    let mut terminal = in_terminal(&start).spawn().unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut shown = String::new();
    let mut until = |text: &str| {
        let mut chunk = [0; 1000];
        while !shown.contains(text) {
            let length = screen.read(&mut chunk).unwrap();
            assert!(length > 0, "{shown}");
            shown.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    };
    until("ready");
    keys.write_all(b"word\r").unwrap();
    until("got word");
    assert!(shown.contains("31 97"), "{shown}");
    keys.write_all(b"\x10\x11").unwrap();
    assert!(terminal.wait().unwrap().success());
    assert!(output_of(&did(&bundle, &["ps"]), 0).contains("running"));
    output_of(&did(&bundle, &["rm", "--force", ID]), 0);
    assert_eq!(output_of(&did(&bundle, &["ps", "-aq"]), 0), "");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_created_container_is_removed_without_force_and_one_that_cannot_start_says_why() {
    let (bundle, made) = created("true", &[]);
    output_of(&made, 0);
    output_of(&did(&bundle, &["rm", ID]), 0);
    assert_eq!(output_of(&did(&bundle, &["ps", "-aq"]), 0), "");
    assert!(output_of(&did(&bundle, &["fsck"]), 0).contains("nothing"));

    let bundle = Bundle::with_layers("").args(&["/no/such/program"]);
    let mut command = bundle.command_of("create");
    command.env("COFFERDAM_ROOT", bundle.path("owners")).arg(ID);
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(127));
    assert!(said(&refused).contains("/no/such/program"), "{}", said(&refused));
    assert_eq!(output_of(&did(&bundle, &["ps", "-aq"]), 0), "");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_detached_container_whose_vm_is_killed_is_kept_with_the_reason() {
    let (bundle, started) = detached("exec sleep 600");
    output_of(&started, 0);
    let record = std::fs::read(bundle.path("owners").join(ID).join("owner.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let pid = record["hypervisor"]["pid"].to_string();
    assert!(
        Command::new("kill")
            .args(["-9", &pid])
            .status()
            .unwrap()
            .success()
    );
    let waited = did(&bundle, &["wait", ID]);
    assert_eq!(output_of(&waited, 0), "137\n");
    let listed = output_of(&did(&bundle, &["ps", "--all"]), 0);
    assert!(listed.contains("ended (137): the utility VM died"), "{listed}");
    output_of(&did(&bundle, &["rm", ID]), 0);
}
