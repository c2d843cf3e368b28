//! The VM's own mounts.

use std::{ffi::CStr, fs, os::unix::fs::symlink, path::Path};

use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    process::umask,
};

use crate::error::{During, Result};

/// Root of the cgroup hierarchy, and the group all containers are in.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/cofferdam"];

/// Type, place, flags and options, in order.
fn table() -> [(&'static str, &'static str, MountFlags, &'static CStr); 8] {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let private = MountFlags::NOSUID | MountFlags::NODEV;
    [
        ("proc", "/proc", quiet, c""),
        ("sysfs", "/sys", quiet, c""),
        (
            "devtmpfs",
            "/dev",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            c"mode=0755",
        ),
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            c"gid=5,mode=0620,ptmxmode=0666",
        ),
        ("tmpfs", "/dev/shm", private, c"mode=1777"),
        // A container with a cgroup namespace may arrange what is below its own cgroup, but not lift its limits. What
        // is kept for all containers together is kept for those that need it.
        ("cgroup2", CGROUPS[0], quiet, c"nsdelegate,memory_recursiveprot"),
        ("tmpfs", "/run", private, c"mode=0755"),
        ("tmpfs", "/tmp", private, c"mode=1777"),
    ]
}

/// Mounts everything. Returns what did not work and can be lived without.
pub(crate) fn mount_all() -> Result<Vec<String>> {
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    let mut failures = Vec::new();
    for (kind, place, flags, options) in table() {
        fs::create_dir_all(place).during(|| format!("making {place}"))?;
        match mount(kind, place, kind, flags, options) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) if kind == "cgroup2" => failures.push(format!("mounting cgroup2 on {place}: {error}")),
            Err(error) => return Err(error).during(|| format!("mounting {kind} on {place}")),
        }
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        // devtmpfs may have them.
        let _ = symlink(target, link);
    }
    for group in CGROUPS {
        failures.extend(delegate(Path::new(group)).err());
    }
    Ok(failures)
}

/// Lets the groups below `group` use every controller it has.
fn delegate(group: &Path) -> std::result::Result<(), String> {
    let failed = |error: std::io::Error| format!("preparing cgroup {}: {error}", group.display());
    fs::create_dir_all(group).map_err(failed)?;
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).map_err(failed)?;
    for controller in controllers.split_whitespace() {
        // One by one: a controller that cannot be delegated must not keep the others.
        if let Err(error) = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")) {
            return Err(format!(
                "controller {controller} of cgroup {}: {error}",
                group.display()
            ));
        }
    }
    Ok(())
}
