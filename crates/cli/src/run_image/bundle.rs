//! The directory of an image's container: the bundle and the scratch disk, below the store, where there is room.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cofferdam_plan::{FileFacts, FileId, FileKind};
use cofferdam_runspec::{Specified, defaults};
use cofferdam_store::Lease;

use cofferdam_owner::Owned;

/// The scratch disk's file in the bundle itself, whose folder is the last of `windows.layerFolders`.
const SCRATCH: &str = "sandbox.vhdx";

/// A bundle for one container, and what keeps its layers in the store.
pub(super) struct ImageBundle {
    pub(super) dir: PathBuf,
    pub(super) specified: Specified,
    pub(super) scratch_bytes: u64,
    pub(super) _lease: Lease,
}

/// Where the bundle of container `id` is to be: what a killed owner has left there, which `fsck` removes, is not in the
/// way.
pub(super) fn dir(containers: &Path, id: &str) -> PathBuf {
    // `fsck` removes only what is named so.
    let name = match id.starts_with("cofferdam-") {
        true => id.to_owned(),
        false => format!("cofferdam-{id}"),
    };
    let mut dir = containers.join(&name);
    let mut number = 2;
    while fs::symlink_metadata(&dir).is_ok() {
        dir = containers.join(format!("{name}-{number}"));
        number += 1;
    }
    dir
}

impl ImageBundle {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What will be at a path once it was made, for a path where there is nothing. No two have one identity, and no file
    /// that is there has one of them: devices have numbers other than 0.
    pub(super) fn expected(&self, path: &Path, number: u64) -> Option<FileFacts> {
        let kind = if self.specified.directories.iter().any(|made| made == path) {
            FileKind::Directory
        } else if path.starts_with(&self.dir) {
            let bytes = self.scratch_bytes;
            FileKind::File { bytes }
        } else {
            return None;
        };
        let identity = FileId {
            device: 0,
            inode: number,
        };
        Some(FileFacts {
            kind,
            identity,
            image_problem: None,
        })
    }

    pub(super) fn make(&self, owned: &mut Owned) -> Result<()> {
        // Noted first: whoever clears up after us looks there.
        owned.note_directory(self.dir.clone())?;
        let making = || format!("making the container's directory {}", self.dir.display());
        if let Some(containers) = self.dir.parent() {
            fs::create_dir_all(containers).with_context(making)?;
        }
        DirBuilder::new()
            .mode(0o700)
            .create(&self.dir)
            .with_context(making)?;
        for (name, text) in [
            ("config.json", serde_json::to_string_pretty(&self.specified.spec)?),
            ("hostname", format!("{}\n", self.specified.hostname)),
            ("hosts", defaults::hosts(&self.specified.hostname)),
        ] {
            fs::write(self.dir.join(name), text).with_context(making)?;
        }
        cofferdam_layer::scratch(&self.dir.join(SCRATCH), self.scratch_bytes)
            .context("making the container's scratch disk")?;
        for directory in &self.specified.directories {
            if !directory.exists() {
                fs::create_dir_all(directory)
                    .with_context(|| format!("making the directory {} of a volume", directory.display()))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_another_container_of_that_name_is_not_in_the_way() {
        let containers = tempfile::tempdir().unwrap();
        let at = |id| {
            dir(containers.path(), id)
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(at("web"), "cofferdam-web");
        assert_eq!(at("cofferdam-17"), "cofferdam-17");
        fs::create_dir(containers.path().join("cofferdam-web")).unwrap();
        assert_eq!(at("web"), "cofferdam-web-2");
    }
}
