//! With real namespaces: a process in a mount namespace and a root of its own, as a container's first process has
//! them. They need root.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use cofferdam_mounting::mountinfo;

use super::{Injected, Table, add, namespace::Namespace, remove, tree, tree::Tree};
use crate::error::{AgentError, Result};

/// Gives the process a root with the host's programs in it, and ends with standard input.
const INIT: &str = r#"
    set -e
    mount -t tmpfs tmpfs "$0"
    for name in bin sbin lib lib64 usr; do
        if [ -L "/$name" ]; then cp -P "/$name" "$0/$name"
        elif [ -d "/$name" ]; then mkdir "$0/$name"; mount --rbind "/$name" "$0/$name"
        fi
    done
    mkdir "$0/proc" "$0/dev" "$0/sys" "$0/tmp"
    mount -t proc proc "$0/proc"
    exec chroot "$0" /bin/sh -c 'echo ready; while read -r line; do eval "$line" 2>&1; printf "\\n= %s\\n" $?; done'
"#;

/// A container, so far as mounts are concerned.
struct Container {
    init: Child,
    answers: BufReader<std::process::ChildStdout>,
    namespace: Namespace,
    table: Table,
    dir: tempfile::TempDir,
}

impl Container {
    fn start() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "mount namespaces need root: run the tests as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut init = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", INIT])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is of util-linux");
        let mut answers = BufReader::new(init.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let namespace = Namespace::open(init.id()).unwrap();
        Self {
            init,
            answers,
            namespace,
            table: Table::default(),
            dir,
        }
    }

    /// What a shell inside prints for a line.
    fn says(&mut self, line: &str) -> String {
        use std::io::Write as _;

        writeln!(self.init.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut text = String::new();
        loop {
            let mut answer = String::new();
            self.answers.read_line(&mut answer).unwrap();
            if answer.starts_with("= ") || answer.is_empty() {
                return text.trim_end().to_owned();
            }
            text.push_str(&answer);
        }
    }

    /// A directory outside the container, with a file `f`.
    fn outside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("f"), name).unwrap();
        path
    }

    fn add(&mut self, source: &Path, destination: &str, read_only: bool) -> Result<()> {
        let opened = tree::open_source(source)?;
        let tree = Tree::of(&opened, &source.display().to_string(), read_only)?;
        add(&mut self.table, &self.namespace, Path::new(destination), tree)
    }

    fn remove(&mut self, destination: &str) -> Result<()> {
        // There is no cgroup to ask for the container's processes.
        let cgroup = self.dir.path();
        fs::write(cgroup.join("cgroup.procs"), format!("{}\n", self.init.id())).unwrap();
        remove(&mut self.table, &self.namespace, Path::new(destination), cgroup)
    }

    fn mounts(&self) -> usize {
        self.namespace.mounts().unwrap().len()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

#[test]
fn a_directory_and_a_file_are_seen_inside_under_their_rights_and_leave_nothing() {
    let mut container = Container::start();
    let (dir, mounts) = (container.outside("dir"), container.mounts());
    container.add(&dir, "/a/b", false).unwrap();
    container.add(&dir, "/locked", true).unwrap();
    container.add(&dir.join("f"), "/file", true).unwrap();
    assert_eq!(
        container.says("cat /a/b/f; cat /locked/f; cat /file"),
        "dirdirdir"
    );
    container.says("echo new > /a/b/new");
    assert_eq!(fs::read_to_string(dir.join("new")).unwrap(), "new\n");
    for file in ["/locked/no", "/file"] {
        let answer = container.says(&format!("echo no > {file}"));
        assert!(answer.contains("Read-only file system"), "{answer}");
    }
    for destination in ["/a/b", "/locked", "/file", "/a/b"] {
        container.remove(destination).unwrap();
    }
    assert_eq!(container.says("ls -d /a /locked /file 2>/dev/null"), "");
    assert_eq!((container.mounts(), container.table.len()), (mounts, 0));
}

#[test]
fn nothing_is_mounted_for_the_rest_of_the_machine() {
    let mut container = Container::start();
    let dir = container.outside("dir");
    let before = mountinfo::read().unwrap();
    let working_directory = std::env::current_dir().unwrap();
    container.add(&dir, "/a", false).unwrap();
    let own = |mount: &mountinfo::Mount| !mount.path.starts_with(container.dir.path());
    let after = mountinfo::read().unwrap();
    let count = |mounts: &[mountinfo::Mount]| mounts.iter().filter(|mount| own(mount)).count();
    assert_eq!(count(&after), count(&before));
    assert_eq!(std::env::current_dir().unwrap(), working_directory);
    container.remove("/a").unwrap();
}

#[test]
fn links_end_at_the_containers_root_and_a_removal_does_not_follow_them_anew() {
    let mut container = Container::start();
    let (dir, mounts) = (container.outside("dir"), container.mounts());
    let outside = dir.display().to_string();
    container.says(&format!(
        "mkdir -p /real; ln -s /../.. /up; ln -s /real /abs; mkdir -p {outside}"
    ));
    container.add(&dir, "/up/x", false).unwrap();
    container.add(&dir, "/abs/y", false).unwrap();
    container.add(&dir, &format!("/up{outside}/z"), false).unwrap();
    assert_eq!(
        container.says(&format!("cat /x/f /real/y/f {outside}/z/f")),
        "dirdirdir"
    );
    assert!(
        !dir.join("z").exists(),
        "the path is the container's, not the machine's"
    );
    container.says("rm /up /abs; mkdir /abs");
    let up = format!("/up{outside}/z");
    for destination in ["/up/x", "/abs/y", up.as_str()] {
        container.remove(destination).unwrap();
    }
    assert_eq!(container.says("ls -d /x /real/y 2>/dev/null"), "");
    assert_eq!(container.mounts(), mounts);
}

#[test]
fn what_belongs_to_the_runtime_is_out_of_reach_through_links_too() {
    let mut container = Container::start();
    let (dir, mounts) = (container.outside("dir"), container.mounts());
    container
        .says("ln -s /proc /p; ln -s /dev /d; ln -s / /r; mkdir /elsewhere; mount --bind /proc /elsewhere");
    for (destination, why) in [
        ("/p", "which belongs to the container's runtime"),
        ("/p/sys/kernel", "which belongs to the container's runtime"),
        ("/d/new", "which belongs to the container's runtime"),
        ("/elsewhere/sys", "on proc, which is the kernel's"),
        ("/r", "it leads to the container's root"),
    ] {
        let error = container.add(&dir, destination, false).unwrap_err();
        assert!(error.to_string().contains(why), "{destination}: {error}");
        assert_eq!(error.code(), 0x8007_0057);
    }
    assert_eq!(container.says("ls /dev"), "", "nothing was made there");
    assert_eq!(container.mounts(), mounts + 1);
}

#[test]
fn a_failed_addition_removes_what_it_made() {
    let mut container = Container::start();
    let (dir, mounts) = (container.outside("dir"), container.mounts());
    container.says("echo x > /plain; mkdir /full; ln -s /missing/end /dangling");
    container.add(&dir, "/taken", false).unwrap();
    for (source, destination, why) in [
        (dir.clone(), "/plain", "is no directory"),
        (dir.join("f"), "/full", "is a directory"),
        (dir.clone(), "/plain/below", "Not a directory"),
        (dir.clone(), "/dangling", "No such file or directory"),
        (dir.clone(), "/new/deep/../..", ""),
        (dir.clone(), "/taken", "something was mounted there"),
    ] {
        match container.add(&source, destination, false) {
            Err(error) => assert!(error.to_string().contains(why), "{destination}: {error}"),
            // `..` is refused before it comes here; below the root it is walked as what it is.
            Ok(()) => container.remove(destination).unwrap(),
        }
    }
    // The same place under another name would hide the first from its removal.
    container.says("ln -s /taken /alias");
    let error = container.add(&dir, "/alias", false).unwrap_err();
    assert!(matches!(error, AgentError::Busy { .. }), "{error}");
    container.remove("/taken").unwrap();
    assert_eq!(container.says("ls -d /new /missing 2>/dev/null"), "");
    assert_eq!(container.mounts(), mounts);
}

#[test]
fn a_link_at_the_source_is_not_followed() {
    let mut container = Container::start();
    let dir = container.outside("dir");
    symlink("/etc", dir.join("link")).unwrap();
    for source in [dir.join("link"), dir.join("link/hostname")] {
        let error = container.add(&source, "/a", false).unwrap_err();
        assert!(
            error.to_string().contains("a symbolic link leads there"),
            "{error}"
        );
    }
}

#[test]
fn a_busy_mount_stays_whole_and_names_its_holder() {
    let mut container = Container::start();
    let (dir, mounts) = (container.outside("dir"), container.mounts());
    container.add(&dir, "/a", false).unwrap();
    let pid = container.init.id();
    for (take, leave, holder) in [
        (
            "exec 7< /a/f",
            "exec 7<&-",
            format!("process {pid} (sh) has /a/f open"),
        ),
        (
            "cd /a",
            "cd /",
            format!("process {pid} (sh) has its working directory in it"),
        ),
        (
            "mkdir /a/inner; mount -t tmpfs tmpfs /a/inner",
            "umount /a/inner; rmdir /a/inner",
            "/a/inner is mounted below it".to_owned(),
        ),
        (
            "mount -t tmpfs tmpfs /a",
            "umount /a",
            "something else is mounted over it".to_owned(),
        ),
    ] {
        container.says(take);
        let error = container.remove("/a").unwrap_err();
        assert!(matches!(error, AgentError::Busy { .. }), "{error}");
        // The path of an open file is told from the machine's root.
        let told = error
            .to_string()
            .replace(&container.dir.path().join("root").display().to_string(), "");
        assert!(told.contains(&holder), "{holder}: {told}");
        container.says(leave);
        assert_eq!(container.says("cat /a/f"), "dir");
    }
    container.remove("/a").unwrap();
    assert_eq!(container.mounts(), mounts);
}

#[test]
fn what_the_container_made_of_a_mount_point_stays() {
    let mut container = Container::start();
    let dir = container.outside("dir");
    container.add(&dir, "/a/b", false).unwrap();
    container.says("echo mine > /a/own");
    container.remove("/a/b").unwrap();
    assert_eq!(container.says("ls /a"), "own");
    container.add(&dir.join("f"), "/file", false).unwrap();
    container.says("umount /file; echo mine > /file");
    container.remove("/file").unwrap();
    assert_eq!(
        container.says("cat /file"),
        "mine",
        "a file with content is the container's"
    );
}

#[test]
fn a_mount_the_container_has_taken_off_itself_counts_as_removed() {
    let mut container = Container::start();
    let (dir, other) = (container.outside("dir"), container.outside("other"));
    container.add(&dir, "/a", false).unwrap();
    container.says("umount /a");
    container.remove("/a").unwrap();
    assert_eq!(container.says("ls -d /a 2>/dev/null"), "");
    container.add(&other, "/a", false).unwrap();
    assert_eq!(container.says("cat /a/f"), "other");
    container.remove("/a").unwrap();
}

#[test]
fn a_tree_with_mounts_in_it_comes_and_goes_whole() {
    let mut container = Container::start();
    let mounts = container.mounts();
    let dir = container.outside("dir");
    fs::create_dir(dir.join("inner")).unwrap();
    rustix::mount::mount(
        "tmpfs",
        dir.join("inner"),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"",
    )
    .unwrap();
    let added = container.add(&dir, "/a", true);
    rustix::mount::unmount(dir.join("inner"), rustix::mount::UnmountFlags::empty()).unwrap();
    added.unwrap();
    assert_eq!(container.mounts(), mounts + 2);
    let injected: &Injected = &container.table[Path::new("/a")];
    assert_eq!(injected.mounts.len(), 2);
    let answer = container.says("echo no > /a/inner/no");
    assert!(answer.contains("Read-only file system"), "{answer}");
    container.remove("/a").unwrap();
    assert_eq!(container.mounts(), mounts);
}

#[test]
fn a_process_that_has_ended_has_no_namespace() {
    let mut container = Container::start();
    container.init.kill().unwrap();
    // The reaper's own test may have waited for it: a process has one reaper.
    let _ = container.init.wait();
    let error = (0..500).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(4));
        Namespace::open(container.init.id()).err()
    });
    assert_eq!(error.unwrap().kind(), std::io::ErrorKind::NotFound);
}
