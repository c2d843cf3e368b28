//! Streams, statuses, signals, terminals, layers and refusals.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;

use crate::{
    bundle::output_of,
    scene::{ID, Running, Scene, refusal_of},
};

#[test]
fn streams_and_the_exit_status_are_the_containers() {
    let scene = Scene::new("cat; cat /upper; echo err >&2; exit 42");
    let mut child = scene
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"sent\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output_of(&output, 42), "sent\nfrom the upper layer\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    scene.assert_nothing_left();
}

#[test]
fn what_a_container_writes_is_in_its_scratch_the_next_time_and_in_no_layer() {
    let scene = Scene::new("test -e /w && exit 3; echo written > /w; echo changed > /upper");
    let layer = fs::read(scene.path("upper/layer.vhd")).unwrap();
    output_of(&scene.run(), 0);
    output_of(&scene.run(), 3);
    assert!(fs::read(scene.path("upper/layer.vhd")).unwrap() == layer);
}

#[test]
fn directories_and_files_of_the_host_are_bound_also_relative_to_the_bundle() {
    let mut scene = Scene::new("cat /data/f; echo w > /data/g; echo x > /file || exit 9");
    fs::create_dir(scene.path("data")).unwrap();
    fs::write(scene.path("data/f"), "of the host\n").unwrap();
    fs::write(scene.path("file"), "kept").unwrap();
    scene.mount(json!({ "type": "bind", "source": "data", "destination": "/data", "options": ["rbind"] }));
    let file = scene.path("file");
    scene.mount(json!({ "type": "bind", "source": file, "destination": "/file", "options": ["bind", "ro"] }));
    assert_eq!(output_of(&scene.run(), 9), "of the host\n");
    assert_eq!(fs::read_to_string(scene.path("data/g")).unwrap(), "w\n");
    assert_eq!(fs::read_to_string(scene.path("file")).unwrap(), "kept");
}

#[test]
fn signals_are_passed_on_and_the_third_request_to_end_kills() {
    let polite = Scene::new("trap 'echo bye; exit 33' TERM; echo ready; while :; do sleep 0.1; done");
    let mut child = polite.started();
    child.signal("TERM");
    assert_eq!(child.ended(), Some(33));
    polite.assert_nothing_left();

    let stubborn = Scene::new("trap '' TERM INT; echo ready; while :; do sleep 0.1; done");
    let mut child = stubborn.started();
    for name in ["INT", "TERM", "INT"] {
        child.signal(name);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(child.ended(), Some(128 + 9));
    stubborn.assert_nothing_left();
}

/// Runs a shell line in a terminal of its own, with this typed into it after a while.
fn in_a_terminal(line: &str, typed: &[u8]) -> std::process::Output {
    // The shell makes room for the line's last command: a shell that stays in the terminal's foreground dies of what is
    // typed there, and its status is what is told. Not every shell does so unasked, and `script` takes the user's.
    let mut terminal = Command::new("script")
        .env("SHELL", "/bin/sh")
        .args(["-qefc", line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("script: {error}; install bsdutils"));
    let mut input = terminal.stdin.take().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    // Whoever is to read it may have ended, which the output tells.
    let _ = input.write_all(typed);
    let output = terminal.wait_with_output().unwrap();
    drop(input);
    output
}

fn line_of(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    words.join(" ")
}

#[test]
fn a_terminal_is_a_terminal_of_the_callers_size() {
    let scene = Scene::new("test -t 0 && test -t 1 && test -t 2 && stty size; exit 5");
    let mut run = scene.command();
    run.arg("--tty");
    let line = format!("stty rows 31 cols 97; exec {}", line_of(&run));
    let output = in_a_terminal(&line, b"");
    assert_eq!(output_of(&output, 5).trim(), "31 97");
    scene.assert_nothing_left();
}

#[test]
fn ctrl_c_reaches_the_container_once() {
    // Only `wait` is cut short by the signal: a program in the foreground would die of it too, and its status could
    // become the shell's.
    let script = "trap 'echo interrupted' INT; sleep 4 & echo ready; wait $!; wait $!; exit 0";
    let scene = Scene::new(script);
    let output = in_a_terminal(&format!("exec {}", line_of(&scene.command())), b"\x03");
    let text = output_of(&output, 0);
    assert_eq!(text.matches("interrupted").count(), 1, "{text}");
    scene.assert_nothing_left();
}

#[test]
fn a_program_that_is_missing_is_the_runtimes_to_refuse_and_leaves_nothing() {
    let mut scene = Scene::new("");
    scene.spec["process"]["args"] = json!(["/no/such/program"]);
    let run = scene.run();
    assert!(!run.status.success());
    let message = String::from_utf8_lossy(&run.stderr);
    assert!(message.contains("/no/such/program"), "{message}");
}

#[test]
fn a_runtime_that_is_not_there_is_refused_before_anything_is_touched() {
    let scene = Scene::new("");
    let run = scene
        .command()
        .args(["--runtime", "/no/such/runc"])
        .output()
        .unwrap();
    let message = refusal_of(&run);
    assert!(
        message.contains("the OCI runtime /no/such/runc was not found"),
        "{message}"
    );
    scene.assert_nothing_left();
}

#[test]
fn a_runtime_that_fails_is_told_and_leaves_nothing() {
    let scene = Scene::new("");
    let run = scene
        .command()
        .args(["--runtime", "/bin/false"])
        .output()
        .unwrap();
    output_of(&run, 1);
    scene.assert_nothing_left();
}

#[test]
fn refusals_of_the_contract_come_before_anything_is_touched() {
    let mut scene = Scene::new("");
    scene.spec["windows"]["layerFolders"] = json!(["scratch"]);
    let message = refusal_of(&scene.run());
    assert!(
        message.contains("failed to mount container storage: need at least two layers - base and scratch"),
        "{message}"
    );
    scene.spec.as_object_mut().unwrap().remove("windows");
    let message = refusal_of(&scene.run());
    assert!(
        message.contains("must provide either Windows.LayerFolders or Root.Path"),
        "{message}"
    );
    scene.spec["root"] = json!({ "path": "/srv" });
    let message = refusal_of(&scene.run());
    assert!(message.contains("without layers"), "{message}");
    scene.spec["windows"] = json!({ "layerFolders": ["upper", "base", "scratch"] });
    scene.mount(json!({ "type": "virtual-disk", "source": "", "destination": "/d" }));
    let message = refusal_of(&scene.run());
    assert!(
        message.contains("mount 3: invalid OCI spec - a mount must have both source and a destination"),
        "{message}"
    );
}

#[test]
fn a_disk_of_a_mount_is_left_for_the_runtime_with_a_word_about_it() {
    let mut scene = Scene::new("");
    let disk = scene.path("disk.vhdx");
    fs::copy(scene.path("scratch/sandbox.vhdx"), &disk).unwrap();
    scene.mount(json!({ "type": "automanage-virtual-disk", "source": disk, "destination": "/d" }));
    let run = scene.run();
    assert!(!run.status.success());
    let message = String::from_utf8_lossy(&run.stderr);
    assert!(
        message.contains("mount 3: automanage-virtual-disk is left for the OCI runtime"),
        "{message}"
    );
    assert!(disk.exists(), "it was never taken, so it is not deleted");
}

/// A container that says it is ready and ends with status 6 once the file `go/on` is in its bundle.
fn waiting() -> Scene {
    let mut scene = Scene::new("echo ready; while test ! -e /go/on; do sleep 0.1; done; exit 6");
    fs::create_dir(scene.path("go")).unwrap();
    scene.mount(json!({ "type": "bind", "source": "go", "destination": "/go", "options": ["bind"] }));
    scene
}

fn let_go(scene: &Scene, child: &mut Running) {
    fs::write(scene.path("go/on"), "").unwrap();
    assert_eq!(child.ended(), Some(6));
    scene.assert_nothing_left();
}

#[test]
fn a_name_in_use_is_refused_and_its_holder_goes_on() {
    let scene = waiting();
    let other = Scene::new("exit 7");
    let mut child = scene.started();
    let mut second = other.command_at(scene.state().parent().unwrap());
    let message = refusal_of(&second.output().unwrap());
    assert!(message.contains(&format!("{ID} exists")), "{message}");
    let_go(&scene, &mut child);
    output_of(&other.run(), 7);
}

#[test]
fn a_bundle_in_use_is_refused_and_its_holder_goes_on() {
    let scene = waiting();
    let mut child = scene.started();
    let message = refusal_of(&scene.command().output().unwrap());
    assert!(
        message.contains("the bundle") && message.contains("rootfs"),
        "{message}"
    );
    let_go(&scene, &mut child);
}

#[test]
fn a_scratch_in_use_is_refused_and_its_holder_goes_on() {
    let scene = waiting();
    let mut other = Scene::new("exit 7");
    // The folder itself is covered while the first one runs; the image has another name as well.
    fs::hard_link(scene.path("scratch/sandbox.vhdx"), scene.path("sandbox.vhdx")).unwrap();
    other.spec["windows"]["layerFolders"] = json!(["base", scene.path("")]);
    let mut child = scene.started();
    let message = refusal_of(&other.run());
    assert!(message.contains("lock"), "{message}");
    let_go(&scene, &mut child);
    output_of(&other.run(), 7);
}

#[test]
fn a_bundle_reached_through_a_symbolic_link_is_the_same() {
    let scene = Scene::new("exit 8");
    output_of(&scene.run(), 8);
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("b");
    std::os::unix::fs::symlink(scene.path(""), &link).unwrap();
    let mut through_the_link = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    through_the_link
        .args(["run", "--no-vm", "--root"])
        .arg(scene.state().parent().unwrap())
        .arg("--bundle")
        .arg(&link);
    output_of(&through_the_link.output().unwrap(), 8);
    scene.assert_nothing_left();
}
