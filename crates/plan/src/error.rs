//! Why a plan is refused. Nothing has been touched then.

use std::{io, path::PathBuf};

/// A refusal with the mount it concerns.
#[derive(Debug, thiserror::Error)]
#[error("{}{refusal}", mount_index.map(|index| format!("mount {index}: ")).unwrap_or_default())]
pub struct PlanError {
    /// The index of the mount at fault, if one is.
    pub mount_index: Option<usize>,
    /// What is wrong.
    #[source]
    pub refusal: Refusal,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Rule R5.
    #[error("must provide either Windows.LayerFolders or Root.Path")]
    NoRoot,
    /// Rules R2 and R3.
    #[error("failed to mount container storage: {0}")]
    Storage(#[source] StorageProblem),
    /// Rule R4.
    #[error("adding plan9 root: {0}")]
    Root(#[source] SourceProblem),
    /// Rule R4 without a utility VM.
    #[error(
        "a root directory without layers cannot be shared without a utility VM; name layers, or run it with one"
    )]
    RootWithoutVm,
    /// Rule M2.
    #[error(
        "invalid OCI spec - a mount must have both source and a destination: source {source_path:?}, destination \
         {destination:?}"
    )]
    IncompleteMount {
        /// The mount's source.
        source_path: String,
        /// The mount's destination.
        destination: String,
    },
    /// Rule M3.
    #[error("adding SCSI physical disk mount {path}: {problem}", path = path.display())]
    PhysicalDisk {
        /// The device.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: SourceProblem,
    },
    /// Rules M4 and M5.
    #[error("adding SCSI virtual disk mount {path}: {problem}", path = path.display())]
    VirtualDisk {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: SourceProblem,
    },
    /// Rule M9.
    #[error("could not open bind mount target: {path}: {source}", path = path.display())]
    BindTarget {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Rule M1, for a mount of a running container.
    #[error(
        "a mount of type {kind:?} is made by the container's runtime when it starts; to a running container only \
         bind, physical-disk, virtual-disk and automanage-virtual-disk can be added"
    )]
    TypeOfRuntime {
        /// The mount's type.
        kind: String,
    },
    /// A mount of a running container, on a destination it cannot have.
    #[error("the destination {destination:?} {problem}")]
    Destination {
        /// The destination.
        destination: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A mount of a running container, with an option that would not be applied.
    #[error(
        "option {option:?} cannot be given to a mount of a running container: only ro, rw, bind and rbind can"
    )]
    Option {
        /// The option.
        option: String,
    },
    /// Rules M7 and M8.
    #[error("adding plan9 mount {path}: {problem}", path = path.display())]
    Share {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: SourceProblem,
    },
}

/// What is wrong with the layers.
#[derive(Debug, thiserror::Error)]
pub enum StorageProblem {
    /// Fewer than two folders.
    #[error("need at least two layers - base and scratch")]
    TooFew,
    /// A layer's image.
    #[error("{path}: {problem}", path = path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: SourceProblem,
    },
}

/// What is wrong with a file of the host.
#[derive(Debug, thiserror::Error)]
pub enum SourceProblem {
    /// The system's own reason.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else than it must be.
    #[error("is {found}, but must be {wanted}")]
    WrongKind {
        /// What it is.
        found: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// Its header is damaged, or its format is none that works.
    #[error("is no usable disk image: {0}")]
    Image(String),
    /// Its name is not text, so the guest cannot be told.
    #[error("its name is not UTF-8")]
    Name,
}
