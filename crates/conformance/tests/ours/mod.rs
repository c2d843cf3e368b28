//! This repository's agent as a plain process.
//!
//! It runs in a mount namespace with a cgroup version 2 hierarchy, which is what it has in its VM, whatever this machine
//! has, and with records of its own, which go with it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::PathBuf, process::Command, sync::OnceLock, thread, time::Duration};

use cofferdam_conformance::setup::{ContainerSetup, Setup, find_busybox};

/// The agent, built once: it is another crate's program.
pub(crate) fn agent() -> &'static PathBuf {
    static AGENT: OnceLock<PathBuf> = OnceLock::new();
    AGENT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args([
            "build",
            "--locked",
            "--message-format",
            "json",
            "-p",
            "cofferdam-guest",
        ]);
        let built = cargo.output().unwrap();
        assert!(
            built.status.success(),
            "building the agent: {}",
            String::from_utf8_lossy(&built.stderr)
        );
        String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "cofferdam-agent")
            .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
            .expect("cargo says where it put the agent")
    })
}

/// The agent with a cgroup version 2 hierarchy where its VM has it, and its records in memory.
pub(crate) fn command() -> Vec<String> {
    let script = "umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup \
                  && mount -t tmpfs tmpfs /run && exec \"$@\"";
    let agent = agent().display().to_string();
    [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        &agent,
        "-v4",
        "-loglevel",
        "error",
        "--use-inouterr",
        "--stdio-dir",
        "{}",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Everything a case may need.
pub(crate) fn setup() -> Setup {
    Setup {
        shell: Ok(vec!["/bin/sh".into(), "-c".into()]),
        container: Ok(ContainerSetup::with_busybox(&find_busybox().unwrap()).unwrap()),
        // As a plain process this agent only ends.
        may_power_off: true,
    }
}

/// Ends, at the test's end, what containers of this process are left: an agent that was bent or killed cannot.
pub(crate) struct Leftovers;

impl Drop for Leftovers {
    fn drop(&mut self) {
        let prefix = format!("conformance-{}-", std::process::id());
        // Where this machine has version 2: alone, or beside version 1.
        for hierarchy in ["/sys/fs/cgroup/cofferdam", "/sys/fs/cgroup/unified/cofferdam"] {
            let groups = fs::read_dir(hierarchy).into_iter().flatten().flatten();
            for group in groups.filter(|group| group.file_name().to_string_lossy().starts_with(&prefix)) {
                let _ = fs::write(group.path().join("cgroup.kill"), "1");
                // Killed processes leave it in their own time.
                for _ in 0..100 {
                    if fs::remove_dir(group.path()).is_ok() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}
