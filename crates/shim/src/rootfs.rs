//! The root filesystem that containerd's snapshotter describes, mounted in the bundle and served to the VM from there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use cofferdam_plan::Spec;
use cofferdam_rootfs::{Root, make_mount_points};
use containerd_shim::{mount, protos::api::Mount};

/// Where a bundle's root filesystem is mounted.
fn place(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// Mounts them, one over the other, and makes in them what the spec's mounts need: a root that is shared read-only gets
/// nothing more in the VM. After a failure nothing is mounted.
pub(crate) fn mount_all(mounts: &[Mount], bundle: &Path, spec: &Spec) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let target = place(bundle);
    std::fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
    for entry in mounts {
        let what = || {
            format!(
                "mounting {} ({}) as the root filesystem",
                entry.source, entry.type_
            )
        };
        let mounted = mount_one(entry.clone(), target.clone()).with_context(what);
        undone_on_failure(mounted, bundle)?;
    }
    let made = || -> Result<()> {
        let root = Root::open(&target)?;
        Ok(make_mount_points(&root, spec.document())?)
    };
    undone_on_failure(made(), bundle)
}

fn undone_on_failure(outcome: Result<()>, bundle: &Path) -> Result<()> {
    outcome.map_err(|error| match unmount(bundle) {
        Ok(()) => error,
        Err(also) => anyhow!("{error:#}\nwhile undoing it: {also:#}"),
    })
}

/// In a thread of its own: many lower layers are named from a directory that becomes the thread's working directory.
fn mount_one(entry: Mount, target: PathBuf) -> Result<()> {
    let mounting = std::thread::spawn(move || {
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let (kind, source) = (given(entry.type_), given(entry.source));
        mount::mount_rootfs(kind.as_deref(), source.as_deref(), &entry.options, &target)
    });
    match mounting.join() {
        Ok(mounted) => Ok(mounted?),
        Err(_) => Err(anyhow!("it panicked")),
    }
}

/// Unmounts everything there. Harmless when repeated.
pub(crate) fn unmount(bundle: &Path) -> Result<()> {
    let Ok(target) = place(bundle).canonicalize() else {
        // Nothing is mounted where there is nothing.
        return Ok(());
    };
    let text = target.to_str().context("the bundle's path is not UTF-8")?;
    mount::umount_recursive(Some(text), 0).with_context(|| format!("unmounting {text}"))
}
