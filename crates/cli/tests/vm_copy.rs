//! Files between this host and a container in a VM.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod owned;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use bundle::{Bundle, output_of};
use owned::{ID, cofferdam, running, said};

/// A container that runs until it is killed, with a share, a single file and a tmpfs among its mounts.
struct Running {
    bundle: Bundle,
    child: Child,
}

impl Running {
    fn new() -> Self {
        let bundle = Bundle::with_layers("echo ready; exec sleep 600");
        let share = bundle.directory("share", &[("shared", "of the host\n"), ("hosts", "before\n")]);
        let hosts = share.join("hosts");
        let bundle =
            bundle
                .mount("bind", &share, "/srv", &["rbind"])
                .mount("bind", &hosts, "/etc/hosts", &["rbind"]);
        let child = running(&bundle);
        Self { bundle, child }
    }

    fn cofferdam(&self, args: &[&str]) -> Command {
        let mut command = cofferdam(&self.bundle, args);
        command.current_dir(self.bundle.path(""));
        command
    }

    fn did(&self, args: &[&str]) -> Output {
        self.cofferdam(args).output().unwrap()
    }

    fn copied(&self, args: &[&str]) {
        output_of(&self.did(&[&["cp"], args].concat()), 0);
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.did(&[&["cp"], args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        said(&output)
    }

    /// What a shell in the container prints.
    fn inside(&self, script: &str) -> String {
        output_of(&self.did(&["exec", ID, "sh", "-c", script]), 0)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bundle.path(name)
    }

    /// It ends as one that was killed, and its owner has given everything back.
    fn end(mut self) {
        output_of(&self.did(&["kill", ID]), 0);
        assert_eq!(self.child.wait().unwrap().code(), Some(128 + 9));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failure; the VM goes with its owner.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tree(at: &Path) {
    fs::create_dir_all(at.join("sub/empty")).unwrap();
    fs::write(at.join("run"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::hard_link(at.join("run"), at.join("sub/again")).unwrap();
    symlink("/etc/passwd", at.join("link")).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(at.join("sub/large"), bytes).unwrap();
    std::os::unix::fs::chown(at.join("run"), Some(1234), Some(2345)).unwrap();
}

/// What a tree is, owners and directories' sizes aside: for a shell with the programs of busybox, and for any other.
const LISTED: &str = r#"find . | while read -r f; do
    if test -d "$f"; then stat -c '%n %F %a %Y' "$f"; else stat -c '%n %F %a %h %s %Y' "$f"; fi
done; readlink link"#;

fn listed(at: &Path) -> Vec<String> {
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", LISTED]).current_dir(at).output().unwrap();
    lines(&output_of(&output, 0))
}

fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    assert!(!lines.is_empty());
    lines
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_tree_goes_into_a_container_and_comes_back_the_same() {
    let running = Running::new();
    let tree_path = running.path("tree");
    tree(&tree_path);
    running.inside("mkdir /opt");
    let from = tree_path.to_str().unwrap();
    for (to, place) in [
        ("web:/opt", "/opt/tree"),
        // A tmpfs of the container, and a directory of this host's.
        ("web:/tmp/new", "/tmp/new"),
        ("web:srv/", "/srv/tree"),
    ] {
        running.copied(&[from, to]);
        let script = format!("cd {place} && {LISTED}");
        let shell = ["exec", ID, "busybox", "sh", "-c", &script];
        assert_eq!(
            lines(&output_of(&running.did(&shell), 0)),
            listed(&tree_path),
            "{to}"
        );
        assert_eq!(
            running.inside(&format!("stat -c %u:%g {place}/run; {place}/run")),
            "0:0\nran\n"
        );
        assert_eq!(running.inside(&format!("stat -c %h {place}/sub/again")), "2\n");
    }
    assert!(running.path("share/tree/sub/large").is_file());
    running.copied(&["-a", from, "web:/opt/kept"]);
    assert_eq!(running.inside("stat -c %u:%g /opt/kept/run"), "1234:2345\n");

    running.copied(&["web:/opt/kept", "back"]);
    assert_eq!(listed(&running.path("back")), listed(&tree_path));
    let uid = |name: &str| fs::metadata(running.path(name)).unwrap().uid();
    assert_eq!(uid("back/run"), rustix::process::geteuid().as_raw());
    running.copied(&["--archive", "web:/opt/kept/.", "kept"]);
    assert_eq!(uid("kept/run"), 1234);
    assert!(
        fs::read(running.path("back/sub/large")).unwrap() == fs::read(tree_path.join("sub/large")).unwrap()
    );
    // What is mounted is what the container sees, and a file that is a mount keeps being one.
    running.copied(&["web:/srv/shared", "."]);
    assert_eq!(
        fs::read_to_string(running.path("shared")).unwrap(),
        "of the host\n"
    );
    fs::write(running.path("hosts"), "after\n").unwrap();
    running.copied(&["hosts", "web:/etc/hosts"]);
    assert_eq!(running.inside("cat /etc/hosts"), "after\n");
    assert_eq!(
        fs::read_to_string(running.path("share/hosts")).unwrap(),
        "after\n"
    );
    running.end();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn archives_go_through_standard_streams_compressed_ones_too() {
    let running = Running::new();
    tree(&running.path("tree"));
    running.inside("mkdir /opt");
    let shell = |script: &str| {
        let mut command = Command::new("bash");
        command
            .args(["-o", "pipefail", "-c", script])
            .env("COFFERDAM_ROOT", running.path("owners"))
            .env("C", env!("CARGO_BIN_EXE_cofferdam"))
            .current_dir(running.path(""));
        command.output().unwrap()
    };
    output_of(&shell("tar cz -C tree . | $C cp - web:/opt"), 0);
    assert_eq!(
        running.inside("/opt/run; readlink /opt/link"),
        "ran\n/etc/passwd\n"
    );
    let names = output_of(&shell("$C cp web:/opt/. - | tar t"), 0);
    let expected = [
        "./",
        "./link",
        "./run",
        "./sub/",
        "./sub/again",
        "./sub/empty/",
        "./sub/large",
    ];
    assert_eq!(lines(&names), expected);
    // As where /bin is a link, and the archive does not name the directory.
    running.inside("ln -s /opt /lnk");
    output_of(
        &shell("mkdir lnk && cp tree/run lnk/it && tar c lnk/it | $C cp - web:/"),
        0,
    );
    assert_eq!(running.inside("/opt/it; readlink /lnk"), "ran\n/opt\n");
    // The kernel's own files are left out; devices are in the archive, and not made here.
    let names = output_of(&shell("$C cp web:/dev - | tar t"), 0);
    assert!(
        names.contains("dev/null\n") && names.contains("dev/pts/\n"),
        "{names}"
    );
    assert!(!names.contains("dev/pts/ptmx"), "{names}");
    let devices = running.did(&["cp", "web:/dev", "dev"]);
    output_of(&devices, 0);
    assert!(
        said(&devices).contains("dev/null: it is a device, and left out"),
        "{}",
        said(&devices)
    );
    assert!(!running.path("dev/null").exists());

    let broken = shell("tar c tree | head -c 100000 | $C cp - web:/tmp");
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        said(&broken).contains("cut off") && said(&broken).contains("tree/"),
        "{}",
        said(&broken)
    );
    let nowhere = shell("tar c tree | $C cp - web:/none");
    assert!(
        said(&nowhere).contains("/none: an archive is unpacked in a directory"),
        "{}",
        said(&nowhere)
    );
    running.end();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn what_cannot_be_copied_is_said_and_nothing_leaves_the_containers_root() {
    let running = Running::new();
    fs::write(running.path("file"), "file").unwrap();
    tree(&running.path("tree"));
    for (args, words) in [
        (["web:/none", "."], "copying /none: No such file or directory"),
        (["web:/etc/passwd/x", "."], "Not a directory"),
        (
            ["tree", "web:/etc/passwd"],
            "/etc/passwd: a directory cannot take the place of what is none",
        ),
        (
            ["file", "web:/none/x"],
            "the directory that holds /none/x: No such file",
        ),
        (["file", "web:/none/"], "/none: there is no such directory"),
        (["none", "web:/"], "looking at none: No such file"),
        (
            ["web:/etc/passwd", "none/x"],
            "the directory that holds none/x: No such file",
        ),
        (
            ["web:/etc", "file"],
            "file: a directory cannot take the place of what is none",
        ),
        (["file", "nobody:/"], "nobody does not exist"),
    ] {
        let told = running.refused(&args);
        assert!(told.contains(words), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    assert_eq!(running.did(&["cp", "file", "tree"]).status.code(), Some(2));

    // The VM has /init and /run/gcs at its root, and the container has not.
    running.inside(
        "ln -s ../../../../.. /up; ln -s /proc/1/root /magic; ln -s /run/gcs /gcs; ln -s /made /dangles",
    );
    for path in ["web:/up/init", "web:/../../init", "web:/magic/init", "web:/gcs/c"] {
        running.refused(&[path, "."]);
    }
    running.copied(&["file", "web:/up/tmp/in"]);
    running.copied(&["file", "web:/dangles"]);
    assert_eq!(running.inside("cat /tmp/in /made"), "filefile");

    output_of(&running.did(&["pause", ID]), 0);
    running.copied(&["file", "web:/tmp/paused"]);
    running.copied(&["web:/tmp/paused", "paused"]);
    output_of(&running.did(&["resume", ID]), 0);
    assert_eq!(fs::read_to_string(running.path("paused")).unwrap(), "file");
    running.end();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_that_ends_during_a_copy_ends_the_copy() {
    let mut running = Running::new();
    running.inside("dd if=/dev/zero of=/tmp/first bs=1M count=1 2>/dev/null; dd if=/dev/zero of=/tmp/zlarge bs=1M count=96 2>/dev/null");
    let mut copying = running
        .cofferdam(&["cp", "web:/tmp", "out"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let half = running.path("out/zlarge");
    while !half.exists() {
        assert_eq!(copying.try_wait().unwrap(), None, "it was over too soon");
        std::thread::sleep(Duration::from_millis(5));
    }
    output_of(&running.did(&["kill", ID]), 0);
    let output = copying.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("tmp/zlarge"), "{}", said(&output));
    assert!(!half.exists() && running.path("out/first").exists());
    assert_eq!(running.child.wait().unwrap().code(), Some(128 + 9));
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_copy_that_is_interrupted_or_refused_here_leaves_nothing_behind() {
    let running = Running::new();
    // Input that never comes.
    let mut waiting = running
        .cofferdam(&["cp", "-", "web:/tmp"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = waiting.stdin.take().unwrap();
    input.write_all(&[0; 100]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let number = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(number, rustix::process::Signal::INT).unwrap();
    let output = waiting.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("interrupted by signal 2"),
        "{}",
        said(&output)
    );

    // A disk that is full: the agent must not wait for ever for a reader.
    running.inside("dd if=/dev/zero of=/tmp/large bs=1M count=4 2>/dev/null");
    let full = running
        .cofferdam(&["cp", "web:/tmp/large", "-"])
        .stdout(fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(
        said(&full).contains("writing the archive: No space left"),
        "{}",
        said(&full)
    );
    let left: Vec<_> = fs::read_dir(running.path("owners/web"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("exec-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    running.end();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn files_are_there_before_a_container_starts_and_gone_when_it_has_ended() {
    let bundle = Bundle::with_layers("cat /tmp/given; echo made >/tmp/made; exit 3");
    fs::write(bundle.path("given"), "given\n").unwrap();
    let cofferdam = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .env("COFFERDAM_ROOT", bundle.path("owners"))
            .current_dir(bundle.path(""))
            .args(args);
        command.output().unwrap()
    };
    let mut command = bundle.command_of("create");
    command.env("COFFERDAM_ROOT", bundle.path("owners")).arg(ID);
    output_of(&command.output().unwrap(), 0);
    // A tmpfs of the container: it is the root that its process will see.
    output_of(&cofferdam(&["cp", "given", "web:/tmp/given"]), 0);
    output_of(&cofferdam(&["cp", "web:/tmp/given", "back"]), 0);
    assert_eq!(fs::read_to_string(bundle.path("back")).unwrap(), "given\n");
    output_of(&cofferdam(&["start", ID]), 0);
    while !output_of(&cofferdam(&["ps", "--all"]), 0).contains("ended (3)") {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(output_of(&cofferdam(&["logs", ID]), 0), "given\n");
    let ended = cofferdam(&["cp", "web:/tmp/made", "."]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        said(&ended).contains("web has ended (3): its files went with its VM"),
        "{}",
        said(&ended)
    );
    output_of(&cofferdam(&["rm", ID]), 0);
}
