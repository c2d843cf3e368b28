//! This process as somebody's owner, from before anything is taken until nothing is left.

use std::path::{Path, PathBuf};

use cofferdam_journal::{Journal, Replay};
use cofferdam_network::{Adapters, Tap};

use crate::{Claim, Ended, Entry, Isolation, OwnerError, ProcessId, Record, Redirected, Root};

/// The longest path of an owner's directory below which the VM's socket `/vmXXXX/vsock` fits (unix(7): 107 bytes).
const MAX_OWNER_PATH: usize = 94;

/// A name that is this process's own, with what it has noted under it.
#[derive(Debug)]
#[must_use = "a record is closed, or it stays"]
pub struct Owned {
    claim: Claim,
    record: Record,
}

impl Owned {
    /// Takes a name.
    ///
    /// # Errors
    /// As for [`Root::claim`].
    pub fn claim(root: &Root, id: &str, bundle: &Path, isolation: Isolation) -> Result<Self, OwnerError> {
        let record = Record {
            id: id.to_owned(),
            owner: ProcessId::own().map_err(OwnerError::io("looking this process up in", "/proc"))?,
            isolation,
            bundle: bundle.to_owned(),
            hypervisor: None,
            directories: Vec::new(),
            redirected: Vec::new(),
        };
        let claim = root.claim(&record)?;
        Ok(Self { claim, record })
    }

    /// For whoever performs steps.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.claim.journal()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.claim.dir()
    }

    /// The same, as others see it.
    #[must_use]
    pub fn entry(&self) -> Entry {
        self.claim.entry()
    }

    /// Where the VM's own directory is to be made: in its owner's, so that it is found there from the moment it is made.
    /// `None` where a name is too long for a socket; then it is noted once it is made.
    #[must_use]
    pub fn place_for_sockets(&self) -> Option<PathBuf> {
        let dir = self.dir();
        (dir.as_os_str().len() <= MAX_OWNER_PATH).then(|| dir.to_owned())
    }

    /// Notes a directory of the VM.
    ///
    /// # Errors
    /// As for [`Claim::note`].
    pub fn note_directory(&mut self, dir: PathBuf) -> Result<(), OwnerError> {
        self.record.directories.push(dir);
        self.claim.note(&self.record)
    }

    /// Notes interfaces of a network namespace that are about to lead to the VM.
    ///
    /// # Errors
    /// As for [`Claim::note`].
    pub fn note_redirected(&mut self, namespace: &Path, interfaces: &[String]) -> Result<(), OwnerError> {
        // Whoever repairs is in another directory.
        let namespace =
            std::path::absolute(namespace).map_err(OwnerError::io("resolving the path", namespace))?;
        let redirected = interfaces.iter().map(|interface| Redirected {
            namespace: namespace.clone(),
            interface: interface.clone(),
            device: None,
        });
        self.record.redirected.extend(redirected);
        self.claim.note(&self.record)
    }

    /// Notes by which devices that was done.
    ///
    /// # Errors
    /// As for [`Claim::note`].
    pub fn note_devices(&mut self, adapters: &Adapters) -> Result<(), OwnerError> {
        for redirected in &mut self.record.redirected {
            let tap = adapters
                .taps()
                .find(|tap| tap.interface() == redirected.interface);
            redirected.device = tap.map(Tap::index);
        }
        self.claim.note(&self.record)
    }

    /// Notes the hypervisor's process.
    ///
    /// # Errors
    /// As for [`Claim::note`].
    pub fn note_hypervisor(&mut self, pid: Option<u32>) -> Result<(), OwnerError> {
        self.record.hypervisor = pid.and_then(|pid| ProcessId::of(pid).ok());
        self.claim.note(&self.record)
    }

    /// Ends the record. It stays where something was left that only a later repair can free.
    ///
    /// # Errors
    /// [`OwnerError::FilesLeft`] names what was left; the journal's and the system's.
    pub fn close(self) -> Result<(), OwnerError> {
        self.nothing_left()?;
        self.claim.close()
    }

    /// Ends the record, but keeps what is in its directory until somebody removes it, with how the container ended.
    ///
    /// # Errors
    /// As for [`Owned::close`].
    pub fn keep(self, ended: &Ended) -> Result<(), OwnerError> {
        self.nothing_left()?;
        self.claim.keep(ended)
    }

    fn nothing_left(&self) -> Result<(), OwnerError> {
        let path = self.claim.journal().path().to_owned();
        let replay = Replay::read(&path).map_err(|source| OwnerError::Journal { path, source })?;
        let managed = replay.managed.into_iter().map(|file| file.path);
        let files: Vec<_> = managed.filter(|path| path.exists()).collect();
        if files.is_empty() {
            return Ok(());
        }
        let id = self.record.id.clone();
        Err(OwnerError::FilesLeft { id, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vms_sockets_are_below_its_owner_unless_that_is_too_long_for_a_socket() {
        let base = tempfile::Builder::new().rand_bytes(3).tempdir_in("/tmp").unwrap();
        // A pod's, as containerd numbers them; in /run/cofferdam its record's path is a little longer than here.
        let pod = format!("k8s.io-{}", "0".repeat(64));
        for (id, below) in [("web".to_owned(), true), (pod, true), ("x".repeat(90), false)] {
            let root = Root::new(base.path());
            let owned = Owned::claim(&root, &id, Path::new("/"), Isolation::Vm).unwrap();
            assert_eq!(owned.place_for_sockets().is_some(), below, "{id}");
            owned.close().unwrap();
        }
    }

    #[test]
    fn what_ended_is_kept_until_it_is_removed_and_its_name_is_taken() {
        let base = tempfile::tempdir().unwrap();
        let root = Root::new(base.path());
        let owned = Owned::claim(&root, "web", Path::new("/"), Isolation::Vm).unwrap();
        let ended = Ended {
            status: 7,
            at_s: 1,
            reason: None,
        };
        assert_eq!(root.entry("web").unwrap().ended(), None);
        owned.keep(&ended).unwrap();
        let entry = root.entry("web").unwrap();
        assert!(crate::root::tests::dies(&entry));
        assert_eq!(entry.ended(), Some(ended));
        let taken = Owned::claim(&root, "web", Path::new("/"), Isolation::Vm).unwrap_err();
        assert_eq!(
            taken.to_string(),
            "web exists: it has ended; `cofferdam rm web` removes it"
        );
        entry.adopt().unwrap().unwrap().close().unwrap();
        assert!(root.entry("web").is_err());
    }
}
