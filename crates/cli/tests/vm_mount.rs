//! `cofferdam mount`: mounts of a container that runs, from the command line to its processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;

use std::{
    fs,
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

use bundle::{Bundle, output_of};

/// A container that performs the lines it is sent, and says how each ended.
struct Shell {
    bundle: Bundle,
    root: PathBuf,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    fn start() -> Self {
        let bundle = Bundle::with_layers(
            r#"echo "= 0"; while read -r line; do eval "$line" 2>/dev/null; echo "= $?"; done"#,
        );
        let root = bundle.path("run");
        let mut command = bundle.command();
        command.arg("--root").arg(&root).arg("web");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shell = Self {
            bundle,
            root,
            child,
            input,
            output: BufReader::new(output).lines(),
        };
        assert_eq!(shell.answer(), "= 0");
        shell
    }

    fn answer(&mut self) -> String {
        let mut text = String::new();
        for line in &mut self.output {
            let line = line.unwrap();
            text.push_str(&line);
            if line.starts_with("= ") {
                return text;
            }
            text.push('\n');
        }
        panic!("the container has ended: {text}");
    }

    /// What a line prints, and its status.
    fn run(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        self.answer()
    }

    fn mount(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command.arg("mount").arg("--root").arg(&self.root).args(arguments);
        command.output().unwrap()
    }

    fn add(&self, kind: &str, source: &Path, rest: &str) -> Output {
        let mount = format!("type={kind},source={},{rest}", source.display());
        self.mount(&["add", "web", "--mount", &mount])
    }

    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
        assert!(!self.root.join("web").exists());
    }
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    output_of(output, 1);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(words), "{message}");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn directories_files_and_disks_come_and_go_while_the_container_runs() {
    let mut shell = Shell::start();
    let directory = shell
        .bundle
        .directory("share", &[("f", "hello\n"), ("g", "other\n")]);
    let managed = shell.bundle.disk("managed.vhdx", "vhdx", &[]);

    output_of(&shell.add("bind", &directory, "destination=/d,readonly"), 0);
    assert_eq!(shell.run("cat /d/f; echo x > /d/f"), "hello\n= 1");
    output_of(
        &shell.add("bind", &directory.join("g"), "destination=/new/file"),
        0,
    );
    assert_eq!(shell.run("echo changed > /new/file; ls /new"), "file\n= 0");
    assert_eq!(fs::read_to_string(directory.join("g")).unwrap(), "changed\n");
    output_of(
        &shell.add("automanage-virtual-disk", &managed, "destination=/disk"),
        0,
    );
    assert_eq!(
        shell.run("echo data > /disk/f && stat -f -c %T /disk"),
        "ext2/ext3\n= 0"
    );

    let list = output_of(&shell.mount(&["list", "web"]), 0);
    assert_eq!(list.lines().count(), 4, "{list}");
    refused(&shell.add("bind", &directory, "destination=/d"), "/d");

    assert_eq!(shell.run("cd /d"), "= 0");
    refused(&shell.mount(&["remove", "web", "/d"]), "/d");
    assert_eq!(
        shell.run("cat f; cd /"),
        "hello\n= 0",
        "a mount in use stays whole"
    );
    for destination in ["/d", "/new/file", "/disk"] {
        output_of(&shell.mount(&["remove", "web", destination]), 0);
    }
    assert_eq!(shell.run("cat /d/f /new/file /disk/f"), "= 1");
    assert!(!managed.exists(), "an auto-managed disk goes with its mount");
    refused(&shell.mount(&["remove", "web", "/d"]), "/d");
    let agree = Command::new(env!("CARGO_BIN_EXE_cofferdam"))
        .args(["fsck", "--root"])
        .arg(&shell.root)
        .output()
        .unwrap();
    assert!(output_of(&agree, 0).contains("agree"));
    shell.end();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_refused_mount_takes_nothing_and_one_that_is_left_goes_with_the_container() {
    let mut shell = Shell::start();
    let directory = shell.bundle.directory("share", &[("f", "hello\n")]);
    refused(
        &shell.add("bind", Path::new("/no/such/source"), "destination=/d"),
        "could not open bind mount target",
    );
    refused(
        &shell.add("virtual-disk", &directory, "destination=/d"),
        "a directory",
    );
    refused(&shell.add("tmpfs", &directory, "destination=/d"), "tmpfs");
    refused(&shell.mount(&["list", "nobody"]), "nobody does not exist");
    // A link of the container's own must not lead the mount out of it.
    assert_eq!(shell.run("ln -s /../../../run /out"), "= 0");
    output_of(&shell.add("bind", &directory, "destination=/out/inner"), 0);
    assert_eq!(shell.run("cat /run/inner/f"), "hello\n= 0");
    assert_eq!(output_of(&shell.mount(&["list", "web"]), 0).lines().count(), 2);
    shell.end();
}
