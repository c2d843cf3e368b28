//! What a run may leave behind on the host, as the host itself tells it: from /proc, not from anybody's memory.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::processes::{self, Process};

/// The mounts of this mount namespace.
pub(super) fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("could not read the mounts")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Processes that have a file open which `ours` accepts, as `pid name: file`.
pub(super) fn holders(ours: impl Fn(&Path) -> bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for Process { pid, name, .. } in processes::all()? {
        // A process that ends meanwhile, or belongs to another user, shows nothing.
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for target in open
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
        {
            if ours(&target) {
                found.push(format!("{pid} {name}: {}", target.display()));
            }
        }
    }
    Ok(found)
}

/// Live processes whose parent is this one: with [`adopt_orphans`], whatever a run left running.
pub(super) fn children() -> Result<Vec<String>> {
    let own = std::process::id();
    let children = processes::all()?
        .into_iter()
        .filter(|process| process.parent == own);
    Ok(children
        .map(|process| format!("{} {}", process.pid, process.name))
        .collect())
}

/// Makes this process the parent of its descendants' orphans, so that none gets away unseen.
pub(super) fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("could not adopt orphans")
}

/// Everything below a directory; nothing if it is not there.
pub(super) fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.push(path.clone());
        if is_dir {
            found.extend(below(&path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_process_that_holds_a_file_is_found_until_it_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = fs::File::create(&path).unwrap();
        let found = holders(|target| target == path).unwrap();
        assert!(
            found
                .iter()
                .any(|line| line.starts_with(&std::process::id().to_string())),
            "{found:?}"
        );
        drop(file);
        // Another test's child holds a copy between its fork and its exec.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holders(|target| target == path).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "still held");
        }
    }

    #[test]
    fn a_running_child_is_found_and_an_ended_one_is_not() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let is_it = |line: &String| line.starts_with(&format!("{} ", child.id()));
        assert!(children().unwrap().iter().any(is_it));
        let pid = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !children()
                .unwrap()
                .iter()
                .any(|line| line.starts_with(&format!("{pid} ")))
        );
    }

    #[test]
    fn files_in_directories_below_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/socket"), b"").unwrap();
        assert_eq!(below(dir.path()).len(), 2);
        assert!(below(&dir.path().join("absent")).is_empty());
    }
}
