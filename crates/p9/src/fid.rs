//! Fids: the client's numbers for files, and what stands behind each.

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::OsString,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::io::{Errno, Result};

use crate::{
    export::{Exported, Hold},
    lock::Locks,
    node::Node,
};

/// What one fid stands for. Requests under way keep it alive, so a clunk never closes a file under another request.
#[derive(Debug)]
pub(crate) struct Fid {
    /// Never the same for two fids, unlike the client's number.
    id: u64,
    uid: u32,
    node: Arc<Node>,
    state: Mutex<State>,
    locks: Arc<Locks>,
    // Last, because it counts what the fields above hold open.
    hold: Hold,
}

/// What a fid was opened as.
#[derive(Debug, Default)]
pub(crate) enum State {
    /// Not opened.
    #[default]
    Closed,
    /// A regular file's data.
    File(Arc<OpenFile>),
    /// A directory's entries.
    Dir(Arc<OpenDir>),
    /// An extended attribute's value, or the list of names, as it was when asked for.
    XattrRead(Arc<Vec<u8>>),
    /// An extended attribute's value under way to the file.
    XattrWrite(XattrWrite),
}

/// A regular file's data.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The open file description.
    pub(crate) fd: OwnedFd,
}

/// A directory's entries.
#[derive(Debug)]
pub(crate) struct OpenDir {
    /// The open file description.
    pub(crate) fd: OwnedFd,
    /// The offset that the description stands at; none if that is unknown. Held while entries are read.
    pub(crate) position: Mutex<Option<u64>>,
}

/// An extended attribute's value under way to the file.
#[derive(Debug)]
pub(crate) struct XattrWrite {
    /// The attribute.
    pub(crate) name: OsString,
    /// The value so far.
    pub(crate) value: Vec<u8>,
    /// The announced size in bytes.
    pub(crate) size: usize,
    /// `XATTR_CREATE` and `XATTR_REPLACE`, as the system numbers them.
    pub(crate) flags: u32,
}

impl Fid {
    /// A fid for `node`, acting for user `uid`.
    pub(crate) fn new(
        exported: Arc<Exported>,
        node: Arc<Node>,
        uid: u32,
        state: State,
        locks: &Arc<Locks>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            uid,
            node,
            state: Mutex::new(state),
            locks: Arc::clone(locks),
            hold: Hold::new(exported),
        }
    }

    /// Another fid of the same user and export.
    pub(crate) fn derive(&self, node: Arc<Node>, state: State) -> Self {
        Self::new(Arc::clone(self.exported()), node, self.uid, state, &self.locks)
    }

    /// The number of this fid that never repeats.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The user it was attached for.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// The file.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The export it belongs to.
    pub(crate) fn exported(&self) -> &Arc<Exported> {
        self.hold.exported()
    }

    /// The connection's record locks.
    pub(crate) fn locks(&self) -> &Locks {
        &self.locks
    }

    /// What it was opened as.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open data of a regular file.
    ///
    /// # Errors
    /// `EBADF`: it was not opened, `EISDIR`: it is a directory.
    pub(crate) fn file(&self) -> Result<Arc<OpenFile>> {
        match &*self.state() {
            State::File(file) => Ok(Arc::clone(file)),
            State::Dir(_) => Err(Errno::ISDIR),
            _ => Err(Errno::BADF),
        }
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        self.locks.release(self.id);
    }
}

/// A connection's fids by the client's numbers.
#[derive(Debug)]
pub(crate) struct Fids {
    most: usize,
    table: Mutex<HashMap<u32, Arc<Fid>>>,
}

impl Fids {
    /// None, and never more than `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            table: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Fid>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fid of this number.
    ///
    /// # Errors
    /// `EBADF`: there is none; `ESTALE`: its export was withdrawn.
    pub(crate) fn get(&self, number: u32) -> Result<Arc<Fid>> {
        let fid = self.lock().get(&number).cloned().ok_or(Errno::BADF)?;
        fid.exported().require_live()?;
        Ok(fid)
    }

    /// Gives a fid a new number.
    ///
    /// # Errors
    /// `EBADF`: the number is in use; `EMFILE`: too many; `ESTALE`: its export was withdrawn.
    pub(crate) fn insert(&self, number: u32, fid: Fid) -> Result<()> {
        let mut table = self.lock();
        // Checked under the lock, so that either this sees the withdrawal or the withdrawal sees the fid.
        fid.exported().require_live()?;
        let count = table.len();
        match table.entry(number) {
            Entry::Occupied(_) => Err(Errno::BADF),
            Entry::Vacant(_) if count >= self.most => Err(Errno::MFILE),
            Entry::Vacant(free) => {
                free.insert(Arc::new(fid));
                Ok(())
            }
        }
    }

    /// Puts a fid in the place of the one that a request got before.
    ///
    /// # Errors
    /// `EBADF`: another request clunked or replaced it meanwhile; `ESTALE`: its export was withdrawn.
    pub(crate) fn replace(&self, number: u32, before: &Arc<Fid>, fid: Fid) -> Result<()> {
        let mut table = self.lock();
        fid.exported().require_live()?;
        match table.get_mut(&number) {
            Some(place) if Arc::ptr_eq(place, before) => {
                let old = std::mem::replace(place, Arc::new(fid));
                drop(table);
                drop(old);
                Ok(())
            }
            _ => Err(Errno::BADF),
        }
    }

    /// Takes a number away.
    ///
    /// # Errors
    /// `EBADF`: it is not in use; `ESTALE`: its export was withdrawn.
    pub(crate) fn remove(&self, number: u32) -> Result<Arc<Fid>> {
        let fid = self.lock().remove(&number).ok_or(Errno::BADF)?;
        fid.exported().require_live()?;
        Ok(fid)
    }

    /// Takes every number away.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }

    /// Takes the numbers of one export's fids away.
    pub(crate) fn remove_export(&self, exported: &Exported) {
        let of_export: Vec<_> = {
            let mut table = self.lock();
            table
                .extract_if(|_, fid| std::ptr::eq(Arc::as_ptr(fid.exported()), exported))
                .collect()
        };
        drop(of_export);
    }
}
