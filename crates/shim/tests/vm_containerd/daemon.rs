//! A containerd of the test's own, with this repository's shim, and what must be left when it is done: nothing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// For what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The image that containers run.
pub(crate) const IMAGE: &str = "localhost/busybox:1";

pub(crate) struct Containerd {
    pub(crate) dir: tempfile::TempDir,
    programs: PathBuf,
    daemon: Child,
}

impl Containerd {
    /// Starts it. What `configure` makes of its directory comes at the top of its configuration.
    pub(crate) fn start(configure: impl FnOnce(&Path) -> String) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "containerd mounts file systems: run the VM ring as root"
        );
        let programs = env::var_os("COFFERDAM_TEST_CONTAINERD")
            .map(PathBuf::from)
            .expect("cargo xtask test vm");
        let dir = tempfile::tempdir().unwrap();
        let plugins = configure(dir.path());
        let at = |name: &str| dir.path().join(name).display().to_string();
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{plugins}\n[grpc]\naddress = {:?}\n[debug]\nlevel = \"debug\"\n",
            at("root"),
            at("state"),
            at("sock"),
        );
        fs::write(dir.path().join("config.toml"), configuration).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-cofferdam-v1"));
        let shims = shim.parent().unwrap().to_owned();
        let inherited = env::var_os("PATH").unwrap_or_default();
        let search = [shims, programs.clone()]
            .into_iter()
            .chain(env::split_paths(&inherited));
        let daemon = Command::new(programs.join("containerd"))
            .arg("-c")
            .arg(dir.path().join("config.toml"))
            .env("PATH", env::join_paths(search).unwrap())
            .env("COFFERDAM_ROOT", dir.path().join("owners"))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let containerd = Self {
            dir,
            programs,
            daemon,
        };
        let answers = || containerd.ctr(&["version"]).output().unwrap().status.success();
        eventually("containerd answers", answers);
        containerd
    }

    /// A command of containerd's own client.
    pub(crate) fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("-a").arg(self.path("sock")).args(args);
        command
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Brings an image in.
    pub(crate) fn import(&self, namespace: &str, name: &str, command: &[&str]) {
        let archive = crate::image::archive(self.dir.path(), name, command);
        let imported = self
            .ctr(&["-n", namespace, "image", "import", archive.to_str().unwrap()])
            .output()
            .unwrap();
        self.succeeded(&imported);
    }

    /// Standard output of what must have succeeded.
    #[track_caller]
    pub(crate) fn succeeded(&self, output: &Output) -> String {
        self.ended_with(output, 0)
    }

    /// Standard output of what must have ended with this status.
    #[track_caller]
    pub(crate) fn ended_with(&self, output: &Output, status: i32) -> String {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            output.status.code(),
            Some(status),
            "stdout:\n{stdout}\nstderr:\n{}\ncontainerd's log:\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.last_words(),
        );
        stdout
    }

    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The processes of this containerd, by program: a shim names its socket, and a hypervisor is where its shim is, in a
    /// bundle.
    pub(crate) fn processes(&self, program: &str) -> Vec<i32> {
        let mark = self.dir.path().to_str().unwrap().to_owned();
        let of_ours = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let place = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            line.split('\0').next().is_some_and(|name| name.contains(program))
                && (line.contains(&mark) || place.starts_with(&mark))
        };
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(of_ours).collect()
    }

    /// Kills the one process of this program.
    #[track_caller]
    pub(crate) fn kill(&self, program: &str) {
        let found = self.processes(program);
        assert_eq!(found.len(), 1, "{program}: {found:?}");
        let pid = rustix::process::Pid::from_raw(found[0]).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mounts").unwrap();
        let state = self.path("state").display().to_string();
        let below = table.lines().filter(|line| line.contains(&state));
        // The CRI plugin's own for a pod's shared memory.
        below
            .filter(|line| !line.contains("/shm "))
            .map(str::to_owned)
            .collect()
    }

    /// No shim, no hypervisor, no record, no mount.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        let owners = || {
            let list = fs::read_dir(self.path("owners")).into_iter().flatten().flatten();
            list.map(|entry| entry.file_name()).collect::<Vec<_>>()
        };
        eventually("nothing is left", || {
            let left = (
                self.processes("containerd-shim"),
                self.processes("qemu"),
                owners(),
                self.mounts(),
            );
            let nothing = left.0.is_empty() && left.1.is_empty() && left.2.is_empty() && left.3.is_empty();
            if !nothing {
                eprintln!("left: {left:?}");
            }
            nothing
        });
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for program in ["containerd-shim", "qemu"] {
            for pid in self.processes(program) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mark = self.dir.path().to_str().unwrap().to_owned();
        let places = table.lines().rev().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| place.starts_with(&mark)) {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Waits until something is the case.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(100));
    }
}
