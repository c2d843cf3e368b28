//! `cofferdam run` with real containers in real VMs: streams, statuses, signals, terminals and deaths.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;

use std::{
    fs,
    io::{Read, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bundle::{Bundle, output_of};

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn the_exit_status_and_both_outputs_come_back() {
    let run = Bundle::with_layers("echo out; echo err >&2; exit 42").run();
    assert_eq!(output_of(&run, 42), "out\n");
    assert_eq!(String::from_utf8_lossy(&run.stderr), "err\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn the_same_bundle_shows_the_same_files_with_a_vm_and_without() {
    let bundle = Bundle::with_layers("cd /etc && echo * && cat issue; test -e /w || exit 8; echo w > /w");
    let run = bundle.run();
    let inside = output_of(&run, 8);
    let outside = bundle.command_without_vm().output().unwrap();
    assert_eq!(output_of(&outside, 8), inside);
    assert!(inside.contains("passwd"), "{inside}");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn standard_input_reaches_the_container_and_comes_back_byte_for_byte() {
    let bundle = Bundle::with_layers("cat");
    let sent: Vec<u8> = (0..16_u32 << 20).map(|n| (n ^ (n >> 9)) as u8).collect();
    let mut child = bundle
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn({
        let sent = sent.clone();
        move || stdin.write_all(&sent)
    });
    let mut received = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut received).unwrap();
    feeder.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn output_written_just_before_the_exit_is_not_cut_off() {
    let run = Bundle::with_layers("exec busybox seq 1 400000").run();
    let output = output_of(&run, 0);
    assert_eq!(output.lines().count(), 400_000);
    assert_eq!(output.lines().last(), Some("400000"));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_reader_that_goes_away_breaks_the_containers_pipe() {
    let bundle = Bundle::with_layers("trap '' PIPE; while echo y; do :; done 2>/dev/null; exit 9");
    let mut child = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 1024];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(ended(&mut child, 60).code(), Some(9));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_program_that_is_missing_or_no_program_has_the_statuses_of_a_shell() {
    let missing = Bundle::with_layers("").args(&["/no/such/program"]).run();
    output_of(&missing, 127);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/program"));
    let not_executable = Bundle::with_layers("").args(&["/etc/issue"]).run();
    output_of(&not_executable, 126);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_process_without_named_capabilities_has_none() {
    let bundle = Bundle::with_layers("grep ^Cap /proc/self/status | grep -vc 0000000000000000");
    assert_eq!(output_of(&bundle.without_capabilities().run(), 1), "0\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn signals_are_passed_on_and_the_third_request_to_end_kills() {
    let polite =
        Bundle::with_layers("trap 'echo bye; exit 33' TERM; echo ready; while :; do sleep 0.1; done");
    let mut child = started(&polite);
    signal(&child, "TERM");
    assert_eq!(ended(&mut child, 60).code(), Some(33));

    let stubborn = Bundle::with_layers("trap '' TERM INT; echo ready; while :; do sleep 0.1; done");
    let mut child = started(&stubborn);
    for name in ["INT", "TERM", "INT"] {
        signal(&child, name);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(ended(&mut child, 60).code(), Some(128 + 9));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_terminal_is_a_terminal_of_the_callers_size() {
    let bundle = Bundle::with_layers("test -t 0 && test -t 1 && test -t 2 && busybox stty size; exit 5");
    let mut run = bundle.command();
    run.arg("--tty");
    // `script` gives the command a terminal of its own.
    let words: Vec<_> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
    let line: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    let shell = format!("stty rows 31 cols 97; exec {}", line.join(" "));
    let output = Command::new("script")
        .args(["-qefc", &shell, "/dev/null"])
        .output()
        .unwrap();
    assert_eq!(output_of(&output, 5).trim(), "31 97");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_vm_that_dies_is_noticed_at_once_and_said_so() {
    let bundle = Bundle::with_layers("echo ready; sleep 600");
    let mut child = bundle
        .command()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    await_ready(&mut child);
    let hypervisor = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()))
        .into_iter()
        .chain(threads_children(child.id()))
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .next()
        .expect("the hypervisor is a child of the command");
    let killed = Instant::now();
    bundle::succeed(Command::new("kill").args(["-9", &hypervisor]));
    let status = ended(&mut child, 60);
    assert!(
        killed.elapsed() < Duration::from_secs(5),
        "{:?}",
        killed.elapsed()
    );
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!(status.code(), Some(125), "{message}");
    assert!(
        message.contains("signal 9") || message.contains("signal: 9"),
        "{message}"
    );
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_kernel_that_is_none_fails_with_the_hypervisors_own_words() {
    let bundle = Bundle::with_layers("true");
    let boot = bundle.directory("boot", &[("kernel", "not a kernel"), ("initramfs.cpio", "")]);
    let mut command = bundle.command();
    command
        .arg("--kernel")
        .arg(boot.join("kernel"))
        .arg("--initramfs")
        .arg(boot.join("initramfs.cpio"));
    let run = command.output().unwrap();
    output_of(&run, 125);
    let message = String::from_utf8_lossy(&run.stderr);
    assert!(message.to_lowercase().contains("kernel"), "{message}");
}

fn started(bundle: &Bundle) -> Child {
    let mut child = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    await_ready(&mut child);
    child
}

/// Reads the line `ready`; the stream stays open for what follows.
fn await_ready(child: &mut Child) {
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
}

fn signal(child: &Child, name: &str) {
    bundle::succeed(
        Command::new("kill")
            .arg(format!("-{name}"))
            .arg(child.id().to_string()),
    );
}

fn ended(child: &mut Child, limit_s: u64) -> std::process::ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > Duration::from_secs(limit_s) {
            child.kill().unwrap();
            panic!("not ended within {limit_s} s");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Children of each thread of a process.
fn threads_children(pid: u32) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("children")).ok())
        .collect()
}
