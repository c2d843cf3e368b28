//! Archives made by hand.

use cofferdam_layer::LayerError;
use tar::{Builder, EntryType, Header};

/// A tar stream in memory.
pub(crate) struct Tar(Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, size: u64, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header
    }

    pub(crate) fn file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, content.len() as u64, 0o644);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    pub(crate) fn dir(mut self, path: &str, mode: u32) -> Self {
        let mut header = Self::header(EntryType::Directory, 0, mode);
        self.0.append_data(&mut header, path, &[][..]).unwrap();
        self
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    fn link(mut self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0, 0o777);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    /// An entry whose path is taken as it is, `..` included.
    pub(crate) fn raw_file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, content.len() as u64, 0o644);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// What an archive is refused with.
pub(crate) fn refusal(archive: &[u8]) -> LayerError {
    let dir = tempfile::tempdir().unwrap();
    crate::mounts::make(
        archive,
        &dir.path().join("l"),
        crate::mounts::raw(Default::default()),
    )
    .unwrap_err()
}
