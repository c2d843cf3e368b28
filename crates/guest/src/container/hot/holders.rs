//! Who keeps a mount of a container from going.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::namespace::Namespace;
use cofferdam_mounting::mountinfo::{self, Mount};

use crate::container::stats;

/// In words, who uses the mount at `place`: another mount on it, or a process of the container.
pub(super) fn of(own: &[Mount], all: &[Mount], place: &Path, cgroup: &Path) -> String {
    let is_own = |mount: &Mount| own.iter().any(|own| own.id == mount.id);
    let on_it = all
        .iter()
        .find(|mount| !is_own(mount) && own.iter().any(|own| own.id == mount.parent && own.path == place));
    if let Some(mount) = on_it {
        return format!("{} is mounted below it", mount.path.display());
    }
    for pid in stats::pids(cgroup) {
        if let Some(use_) = used_by(pid, own) {
            return format!("process {pid} ({}) {use_}", name(pid));
        }
    }
    "a process still uses it".into()
}

/// How a process uses one of these mounts.
fn used_by(pid: u32, own: &[Mount]) -> Option<String> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let is_own = |id: u64| own.iter().any(|mount| mount.id == id);
    for (link, what) in [
        ("cwd", "has its working directory in it"),
        ("root", "has its root in it"),
        ("exe", "runs a program from it"),
    ] {
        // Without asking a server, which may be what is stuck.
        let found = statx(
            CWD,
            process.join(link),
            AtFlags::STATX_DONT_SYNC,
            StatxFlags::MNT_ID,
        );
        if found.is_ok_and(|found| is_own(found.stx_mnt_id)) {
            return Some(what.to_owned());
        }
    }
    let files = fs::read_dir(process.join("fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter(|file| {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
            id.and_then(|id| id.trim().parse().ok()).is_some_and(is_own)
        })
        .find_map(|file| fs::read_link(process.join("fd").join(file.file_name())).ok())
        .map(|path| format!("has {} open", path.display()))
}

/// A process of the container in a mount namespace of its own that still has one of these mounts.
pub(super) fn with_a_copy(own: &[Mount], namespace: &Namespace, cgroup: &Path) -> Option<String> {
    let number = namespace.number().ok()?;
    stats::pids(cgroup).into_iter().find_map(|pid| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        if fs::metadata(process.join("ns/mnt")).ok()?.ino() == number {
            return None;
        }
        let table = fs::read(process.join("mountinfo")).ok()?;
        let copied = |mount: &Mount| {
            own.iter()
                .any(|own| own.path == mount.path && own.is_of_same_source(mount))
        };
        let mount = mountinfo::parse(&table).into_iter().find(copied)?;
        Some(format!(
            "process {pid} ({}) has it in a mount namespace of its own, on {}",
            name(pid),
            mount.path.display()
        ))
    })
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}
