//! What a killed owner left on the host, found from its journal and from the system, and freed.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use cofferdam_journal::{Held, Replay};
use cofferdam_ledger::{
    Request,
    address::ScsiAddress,
    request::{DiskKind, GuestRequest, HostRequest},
};
use cofferdam_mounting::{
    layer, mapper,
    mountinfo::{self, Mount},
};

use crate::{
    Owner,
    disks::device_number,
    error::{HostError, Result},
    export,
    files::remove_mount_point,
    loops, mounts,
    runtime::LocalContainer,
};

/// One thing of an owner that is still on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// A container, or its runtime's records of it.
    Container(String),
    /// A mount.
    Mount(PathBuf),
    /// An empty directory on which something was, or was to be, mounted.
    MountPoint(PathBuf),
    /// A device of the device mapper that checks a disk's blocks (dm-verity).
    Checked {
        /// Its name.
        name: String,
        /// Its device node.
        node: PathBuf,
    },
    /// A loop device.
    Loop {
        /// Its device node.
        node: PathBuf,
        /// The file behind it.
        image: String,
        /// As what it was attached.
        address: ScsiAddress,
    },
    /// An image shown as a file, or what was prepared for that.
    Export {
        /// The file.
        path: PathBuf,
        /// As what it was attached.
        address: ScsiAddress,
    },
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::Mount(path) => write!(f, "mount {}", path.display()),
            Self::MountPoint(path) => write!(f, "mount point {}", path.display()),
            Self::Checked { name, node } => write!(f, "dm-verity device {name} ({})", node.display()),
            Self::Loop { node, image, .. } => write!(f, "{} ({image})", node.display()),
            Self::Export { path, .. } => write!(f, "export {}", path.display()),
        }
    }
}

/// What became of one of them.
#[derive(Debug)]
pub struct Outcome {
    /// What was to be freed.
    pub leftover: Leftover,
    /// Whether it was.
    pub result: Result<()>,
}

/// Lists what an owner's journal and marks lead to and is still there, in the order in which it can be freed. Changes
/// nothing. The owner must be gone: of one that lives, this is what it uses.
///
/// # Errors
/// The system's, where it cannot be asked.
pub fn find(replay: &Replay, owner: &Owner) -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let container = LocalContainer::left_by(owner)?;
    found.extend(container.map(|container| Leftover::Container(container.id().to_owned())));
    found.extend(mounts_of(replay, owner)?);
    let checked = mapper::starting_with(&owner.checked_prefix())?.into_iter();
    found.extend(checked.map(|mapped| Leftover::Checked {
        name: mapped.name,
        node: mapped.node,
    }));
    found.extend(loops::of_owner(owner)?.into_iter().map(|device| Leftover::Loop {
        node: device.node,
        image: device.backing,
        address: device.address,
    }));
    let mut addresses: BTreeSet<_> = export::addresses(owner)?.into_iter().collect();
    addresses.extend(replay.held.keys().filter_map(|held| match held {
        Held::Scsi(address) => Some(*address),
        _ => None,
    }));
    for address in addresses {
        let path = owner.export(address);
        if export::is_there(owner, address)? {
            found.push(Leftover::Export { path, address });
        }
    }
    Ok(found)
}

/// Frees everything that [`find()`] lists: ends the container, unmounts, detaches, ends exports, in this order. Goes on
/// past failures, but takes nothing from below what could not be freed. It can be repeated until nothing is left. The
/// owner must be gone.
///
/// A directory that was there, empty, before something was mounted on it is removed too: the journal cannot tell.
///
/// # Errors
/// As for [`find()`]; then nothing was freed. Failures to free one thing are in its [`Outcome`].
pub fn clear(replay: &Replay, owner: &Owner) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for leftover in find(replay, owner)? {
        let failed = outcomes
            .iter()
            .find(|earlier| earlier.result.is_err() && uses_everything(&earlier.leftover, replay));
        let result = match failed {
            // What is taken from below something that stays would lose what is not written yet.
            Some(stays) => Err(HostError::Busy {
                what: leftover.to_string(),
                holder: format!("{} has to go first", stays.leftover),
            }),
            None => free(&leftover, owner),
        };
        outcomes.push(Outcome { leftover, result });
    }
    if outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        owner.tidy()?;
    }
    Ok(outcomes)
}

/// Whether it stands on everything else: a container, or the overlay of its layers.
fn uses_everything(leftover: &Leftover, replay: &Replay) -> bool {
    let is_root = |path: &Path, request: &Request| match request {
        Request::Guest(GuestRequest::CombineLayers { root, .. }) => {
            mounts::existing(root.as_ref()).is_ok_and(|place| place.as_deref() == Some(path))
        }
        _ => false,
    };
    match leftover {
        Leftover::Container(_) => true,
        Leftover::Mount(path) => replay.held.values().any(|(request, _)| is_root(path, request)),
        _ => false,
    }
}

fn free(leftover: &Leftover, owner: &Owner) -> Result<()> {
    match leftover {
        Leftover::Container(_) => match LocalContainer::left_by(owner)? {
            Some(container) => container.end(),
            None => Ok(()),
        },
        Leftover::Mount(path) => {
            mounts::unmount(path)?;
            remove_if_empty(path)
        }
        Leftover::MountPoint(path) => remove_if_empty(path),
        Leftover::Checked { name, .. } => Ok(layer::close(name)?),
        Leftover::Loop { address, .. } => loops::detach(owner, *address),
        Leftover::Export { path, address } => {
            let mut devices = loops::of_owner(owner)?.into_iter();
            if let Some(device) = devices.find(|device| device.address == *address) {
                return Err(HostError::Busy {
                    what: format!("export {}", path.display()),
                    holder: format!("{} is attached to it", device.node.display()),
                });
            }
            export::clear(owner, *address)
        }
    }
}

/// Mounts of the journal that are there, overlays before what they are made of.
fn mounts_of(replay: &Replay, owner: &Owner) -> Result<Vec<Leftover>> {
    let table = mountinfo::read()?;
    let ours = Ours::of(replay, owner)?;
    let mut found = Vec::new();
    for (held, (request, _)) in &replay.held {
        let Held::Mount(path) = held else { continue };
        let Some(path) = mounts::existing(path.as_ref())? else {
            continue;
        };
        let is_overlay = matches!(request, Request::Guest(GuestRequest::CombineLayers { .. }));
        let mut here = table.iter().filter(|mount| mount.path == path).peekable();
        let leftover = if here.peek().is_some() {
            // What somebody else has mounted there since is theirs.
            if !here.any(|mount| ours.has(mount, is_overlay)) {
                continue;
            }
            Leftover::Mount(path)
        } else if is_empty_directory(&path) {
            Leftover::MountPoint(path)
        } else {
            continue;
        };
        found.push((!is_overlay, leftover));
    }
    found.sort_by_key(|(after_overlays, _)| *after_overlays);
    Ok(found.into_iter().map(|(_, leftover)| leftover).collect())
}

/// The block devices of an owner, as the mount table numbers them.
struct Ours {
    devices: BTreeSet<String>,
}

impl Ours {
    fn of(replay: &Replay, owner: &Owner) -> Result<Self> {
        let mut devices: BTreeSet<_> = loops::of_owner(owner)?
            .into_iter()
            .map(|device| device.number)
            .collect();
        let checked = mapper::starting_with(&owner.checked_prefix())?.into_iter();
        devices.extend(checked.map(|mapped| mapped.number));
        devices.extend(replay.held.values().filter_map(|(request, _)| match request {
            Request::Host(HostRequest::AttachScsi {
                path,
                kind: DiskKind::Physical,
                ..
            }) => device_number(path).ok(),
            _ => None,
        }));
        Ok(Self { devices })
    }

    fn has(&self, mount: &Mount, is_overlay: bool) -> bool {
        if is_overlay {
            mount.fs_type == "overlay"
        } else {
            self.devices.contains(&mount.device)
        }
    }
}

fn is_empty_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
        && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// A directory that is not empty was there before.
fn remove_if_empty(path: &Path) -> Result<()> {
    match remove_mount_point(path) {
        Err(HostError::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        outcome => outcome,
    }
}
