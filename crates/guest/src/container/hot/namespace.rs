//! A container's mount namespace, entered by a thread of its own.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    thread,
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    fs::{Mode, OFlags, open},
    process::{chroot, fchdir},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::point::Root;
use cofferdam_mounting::mountinfo::{self, Mount};

use crate::{
    error::{AgentError, During, Result},
    process::{STACK_BYTES, reaper::Reaper},
};

/// The mount namespace and the root of one process, held open: they stay what they are when it ends.
#[derive(Debug)]
pub(super) struct Namespace {
    file: OwnedFd,
    root: OwnedFd,
    mountinfo: File,
    /// This process's open files, by number. Inside there may be no /proc to name them by.
    own_files: OwnedFd,
}

impl Namespace {
    /// That of process `pid`; `None` if it has ended.
    pub(super) fn of(reaper: &Reaper, pid: u32) -> Result<Option<Self>> {
        let action = || format!("opening the mount namespace of process {pid}");
        match reaper.while_unreaped(pid, || Self::open(pid)) {
            None => Ok(None),
            // It has ended and nobody has waited for it yet: it has no namespaces any more.
            Some(Err(error))
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                Ok(None)
            }
            Some(opened) => opened.during(action).and_then(Self::checked).map(Some),
        }
    }

    /// The process must not end unnoticed meanwhile, lest the pid be another's.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let file = |path: &Path, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty());
        Ok(Self {
            file: file(&process.join("ns/mnt"), OFlags::RDONLY)?,
            root: file(&process.join("root"), OFlags::PATH | OFlags::DIRECTORY)?,
            mountinfo: File::open(process.join("mountinfo"))?,
            own_files: file(Path::new("/proc/self/fd"), OFlags::PATH | OFlags::DIRECTORY)?,
        })
    }

    /// A container that shares the VM's namespace has no mounts of its own.
    fn checked(self) -> Result<Self> {
        let own =
            fs::metadata("/proc/self/ns/mnt").during(|| "looking at the VM's mount namespace".into())?;
        if self.number()? == own.ino() {
            return Err(AgentError::NotSupported(
                "the container has no mount namespace of its own".into(),
            ));
        }
        Ok(self)
    }

    /// What tells it from another.
    pub(super) fn number(&self) -> Result<u64> {
        let found = rustix::fs::fstat(&self.file).during(|| "looking at a mount namespace".into())?;
        Ok(found.st_ino)
    }

    /// Its mounts as they are now, with paths from the process's root.
    pub(super) fn mounts(&self) -> Result<Vec<Mount>> {
        let mut table = Vec::new();
        let mut file = &self.mountinfo;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut table))
            .during(|| "reading the container's mount table".into())?;
        Ok(mountinfo::parse(&table))
    }

    /// Does something inside, in a thread that has nothing but this process's memory and open files in common with
    /// the rest of the agent, and ends with it.
    pub(super) fn enter<T, E>(&self, work: impl FnOnce(&Root<'_>) -> Result<T, E> + Send) -> Result<T, E>
    where
        T: Send,
        E: From<AgentError> + Send,
    {
        let inside = || {
            self.go()?;
            work(&Root::new(self.root.as_fd(), self.own_files.as_fd()))
        };
        let started = || "starting a thread for the container's mount namespace".to_owned();
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("mount".into())
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, inside)
                .during(started)?;
            thread.join().unwrap_or_else(|_panic| {
                Err(
                    AgentError::InvalidState("a thread in the container's mount namespace failed".into())
                        .into(),
                )
            })
        })
    }

    fn go(&self) -> Result<()> {
        let action = || "entering the container's mount namespace".to_owned();
        // Root and working directory are the whole process's until they are made this thread's own.
        unshare(CloneFlags::CLONE_FS).during(action)?;
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Mount)).during(action)?;
        fchdir(&self.root).during(action)?;
        // The namespace's root may lie above the container's.
        chroot(".").during(action)
    }
}
