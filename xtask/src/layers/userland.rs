//! The content of the two layers: a small Debian userland, and a few changes above it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::tool::Tool;

/// Debian packages of the base layer: a shell, the core programs, and the libraries they load.
pub(super) const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "grep",
    "libacl1",
    "libattr1",
    "libblkid1",
    "libc6",
    "libcap2",
    "libgmp10",
    "libmount1",
    "libpcre2-8-0",
    "libselinux1",
    "libsmartcols1",
    "libtinfo6",
    "libudev1",
    "libuuid1",
    "mount",
    "util-linux",
];

/// A file the upper layer adds.
pub(crate) const ADDED: (&str, &str) = ("etc/motd", "This line comes from the upper layer.\n");
/// A file of the base layer the upper layer replaces.
pub(crate) const REPLACED: (&str, &str) = ("etc/issue", "Replaced by the upper layer.\n");
/// A file of the base layer the upper layer deletes.
pub(crate) const DELETED: &str = "etc/debian_version";

/// A program that sees the files as root would: with the owners and device nodes kept in `state`.
pub(super) fn like_root(program: &str, state: &Path) -> Tool {
    fakeroot(program, state, false)
}

/// The same for a program that makes files. Keeping what it made takes fakeroot two seconds: one call for many files.
fn like_root_keeping(program: &str, state: &Path) -> Tool {
    fakeroot(program, state, true)
}

fn fakeroot(program: &str, state: &Path, keep: bool) -> Tool {
    if rustix::process::geteuid().is_root() {
        return Tool::new(program);
    }
    let mut tool = Tool::new("fakeroot").log(program);
    if state.exists() {
        tool = tool.arg("-i").arg(state);
    }
    if keep {
        tool = tool.arg("-s").arg(state);
    }
    tool.arg("--").arg(program)
}

/// Unpacks the packages and adds what installing them would have made.
pub(super) fn base(debs: &[PathBuf], dir: &Path, state: &Path) -> Result<()> {
    like_root_keeping("sh", state)
        .args([
            "-ec",
            "for package in \"$@\"; do dpkg-deb -x \"$package\" \"$0\"; done",
        ])
        .arg(dir)
        .args(debs)
        .log("layers-unpack")
        .run()?;
    write(
        &dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    write(&dir.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    for (path, _) in [REPLACED, (DELETED, "")] {
        fs::metadata(dir.join(path)).with_context(|| format!("the base layer has no /{path} to change"))?;
    }
    Ok(())
}

/// Makes the upper layer: one file added, one replaced, one deleted by a whiteout (a character device 0:0, as overlayfs
/// reads it).
pub(super) fn upper(dir: &Path, state: &Path) -> Result<()> {
    for (path, content) in [ADDED, REPLACED] {
        write(&dir.join(path), content)?;
    }
    like_root_keeping("mknod", state)
        .arg(dir.join(DELETED))
        .args(["c", "0", "0"])
        .run()
}

fn write(path: &Path, content: &str) -> Result<()> {
    let parent = path
        .parent()
        .context("invariant: a file of a layer lies in a directory")?;
    fs::create_dir_all(parent)?;
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
    // A package's file may be read-only, or a link out of the layer: never write through it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not replace {}", path.display()));
        }
        _ => {}
    }
    fs::write(path, content).with_context(|| format!("could not write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(())
}
