//! A device whose blocks are checked when a hash tree follows its file system, and never unchecked then.

use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use crate::{
    error::{MountError, Result},
    filesystem::Filesystem,
    mapper,
    verity::{Digest, Tree},
};

/// What is mounted for a device: the device itself, or one that checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    device: PathBuf,
    filesystem: Filesystem,
    checked: Option<(mapper::Mapped, Digest)>,
}

/// What is on a device, and whether its blocks can be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    device: PathBuf,
    filesystem: Filesystem,
    tree: Option<Tree>,
}

impl Found {
    /// Looks at `device`.
    ///
    /// # Errors
    /// [`MountError::Verity`] where its hash tree cannot be used; [`MountError::Invalid`] where it holds no file system;
    /// the system's.
    pub fn look(device: &Path) -> Result<Self> {
        let filesystem = Filesystem::detect(device)?;
        Ok(Self {
            device: device.to_owned(),
            filesystem,
            tree: Tree::find(device, &filesystem)?,
        })
    }

    /// Its file system.
    #[must_use]
    pub fn filesystem(&self) -> Filesystem {
        self.filesystem
    }

    /// Whether a hash tree follows the file system.
    #[must_use]
    pub fn has_tree(&self) -> bool {
        self.tree.is_some()
    }
}

impl Source {
    /// Has the kernel check what was found, where a hash tree follows its file system: then there is a device of the device
    /// mapper called `name`, for [`close`] to take away. `pin` is the root digest it must have.
    ///
    /// # Errors
    /// [`MountError::Verity`] where the tree is not the pinned one, or the kernel cannot check it; [`MountError::Invalid`]
    /// where it is to be written to, which no tree allows; the system's. Nothing is left after an error.
    pub fn open(found: Found, name: &str, read_only: bool, pin: Option<&Digest>) -> Result<Self> {
        let Found {
            device,
            filesystem,
            tree,
        } = found;
        let refused = |problem: String| MountError::Verity {
            device: device.display().to_string(),
            problem,
        };
        match (&tree, pin) {
            (None, Some(pin)) => {
                return Err(refused(format!(
                    "its root digest must be {pin}, and it has no hash tree"
                )));
            }
            (Some(tree), Some(pin)) if tree.root != *pin => {
                return Err(refused(format!(
                    "its root digest must be {pin}, and is {}",
                    tree.root
                )));
            }
            (Some(_), _) if !read_only => {
                return Err(MountError::Invalid(format!(
                    "{} has a hash tree (dm-verity), so it can only be mounted read-only",
                    device.display()
                )));
            }
            _ => {}
        }
        let checked = match tree {
            Some(tree) => Some((mapper::open(name, &device, &tree)?, tree.root)),
            None => None,
        };
        Ok(Self {
            device,
            filesystem,
            checked,
        })
    }

    /// Its file system.
    #[must_use]
    pub fn filesystem(&self) -> Filesystem {
        self.filesystem
    }

    /// Whether its blocks are checked.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.checked.is_some()
    }

    /// The root digest of the tree its blocks are checked against.
    #[must_use]
    pub fn root(&self) -> Option<Digest> {
        self.checked.as_ref().map(|(_, root)| *root)
    }

    /// Mounts it on `target`.
    ///
    /// # Errors
    /// [`MountError::Verity`] where the kernel found blocks that are not what the tree says; the system's.
    pub fn mount(&self, target: &Path, flags: MountFlags, options: &str) -> Result<()> {
        let Some((checked, _)) = &self.checked else {
            return self.filesystem.mount(&self.device, target, flags, options);
        };
        let outcome = self.filesystem.mount(&checked.node, target, flags, options);
        outcome.map_err(|error| match mapper::is_corrupt(&checked.name) {
            Ok(true) => MountError::Verity {
                device: self.device.display().to_string(),
                problem: format!("its blocks have been changed since its hash tree was made ({error})"),
            },
            _ => error,
        })
    }
}

/// Takes away what [`Source::open`] made under this name. What is absent counts as done, so it can be repeated.
///
/// # Errors
/// [`MountError::Busy`] where it is mounted still; the system's.
pub fn close(name: &str) -> Result<()> {
    mapper::remove(name)
}
