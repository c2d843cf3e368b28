//! The directories on offer.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, Result},
};
use tokio::sync::Notify;

use crate::{P9Error, node::Node, qid::QidPaths, resolve::is_entry_name, session::Session};

/// A directory to offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The directory on the host. It is opened once: renaming it afterwards changes nothing.
    pub path: PathBuf,
    /// Whether every change is refused, with `EROFS`.
    pub read_only: bool,
    /// The only names that the directory itself shows; `None` shows everything. With a list, nothing in the
    /// directory itself can be created, removed, renamed or linked, with `EPERM`; a listed file's content and
    /// attributes can change, and so can everything below a listed directory.
    pub allowed_names: Option<Vec<OsString>>,
}

/// The exports on offer, by name. Share it with [`Arc`]; every method may be called from any thread.
#[derive(Debug, Default)]
pub struct Exports {
    live: Mutex<HashMap<String, Arc<Exported>>>,
}

impl Exports {
    /// No exports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a directory as `name`, the client's `aname`.
    ///
    /// # Errors
    /// The name is taken, an allowed name is impossible, or the directory cannot be opened.
    pub fn add(&self, name: String, export: Export) -> std::result::Result<(), P9Error> {
        let exported = Arc::new(Exported::open(export)?);
        match self.lock().entry(name) {
            std::collections::hash_map::Entry::Occupied(taken) => {
                Err(P9Error::DuplicateExport(taken.key().clone()))
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(exported);
                Ok(())
            }
        }
    }

    /// Withdraws an export: connections that use it lose their fids and are closed. Returns whether it was there.
    ///
    /// Requests being carried out at this moment still end; [`Exports::remove_and_wait`] waits for them.
    pub fn remove(&self, name: &str) -> bool {
        self.withdraw(name).is_some()
    }

    /// As [`Exports::remove`], and returns once nothing of the export is held open any more.
    pub async fn remove_and_wait(&self, name: &str) -> bool {
        let Some(exported) = self.withdraw(name) else {
            return false;
        };
        exported.holders.none().await;
        true
    }

    /// The names on offer, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.lock().keys().cloned().collect();
        names.sort();
        names
    }

    /// How many fids and lock files of all connections stand for files of this export; 0 if there is no such
    /// export.
    pub fn open_fids(&self, name: &str) -> usize {
        self.lock()
            .get(name)
            .map_or(0, |exported| exported.holders.count.load(Ordering::SeqCst))
    }

    /// The export of this name.
    pub(crate) fn get(&self, name: &OsStr) -> Option<Arc<Exported>> {
        self.lock().get(name.to_str()?).cloned()
    }

    fn withdraw(&self, name: &str) -> Option<Arc<Exported>> {
        // The lock is given back before any file is closed.
        let exported = self.lock().remove(name)?;
        exported.withdraw();
        Some(exported)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Exported>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An export while it is on offer, and as long as a fid still holds it.
#[derive(Debug)]
pub(crate) struct Exported {
    root: Arc<Node>,
    read_only: bool,
    allowed: Option<Vec<OsString>>,
    qids: QidPaths,
    holders: Holders,
    withdrawn: AtomicBool,
    sessions: Mutex<Vec<Weak<Session>>>,
}

impl Exported {
    fn open(export: Export) -> std::result::Result<Self, P9Error> {
        let mut allowed = export.allowed_names;
        if let Some(names) = &mut allowed {
            if let Some(bad) = names.iter().find(|name| !is_entry_name(name.as_bytes())) {
                return Err(P9Error::BadAllowedName(bad.clone()));
            }
            names.sort();
            names.dedup();
        }
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Node::new(rustix::fs::open(&export.path, flags, Mode::empty())?)
        };
        let root = open().map_err(|errno| P9Error::OpenExport {
            path: export.path.clone(),
            source: errno.into(),
        })?;
        Ok(Self {
            qids: QidPaths::new(root.id().dev),
            root: Arc::new(root),
            read_only: export.read_only,
            allowed,
            holders: Holders::default(),
            withdrawn: AtomicBool::new(false),
            sessions: Mutex::default(),
        })
    }

    /// The exported directory.
    pub(crate) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// Its qids.
    pub(crate) fn qids(&self) -> &QidPaths {
        &self.qids
    }

    /// Whether a node is the exported directory, by whatever way it was reached.
    pub(crate) fn is_root(&self, node: &Node) -> bool {
        node.id() == self.root.id()
    }

    /// The only names of `dir`, where there are such.
    pub(crate) fn only_names(&self, dir: &Node) -> Option<&[OsString]> {
        self.allowed.as_deref().filter(|_| self.is_root(dir))
    }

    /// Whether `dir` may show the entry `name`.
    pub(crate) fn shows(&self, dir: &Node, name: &OsStr) -> bool {
        self.only_names(dir)
            .is_none_or(|names| names.iter().any(|allowed| allowed == name))
    }

    /// Whether files below may be opened for writing.
    pub(crate) fn is_writable(&self) -> bool {
        !self.read_only
    }

    /// Refuses to change a file, or to change which entries a directory has.
    ///
    /// # Errors
    /// `EROFS` in a read-only export, `EPERM` for the directory of an export with allowed names.
    pub(crate) fn require_change(&self, node: &Node) -> Result<()> {
        if self.read_only {
            return Err(Errno::ROFS);
        }
        if self.only_names(node).is_some() {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }

    /// Refuses an export that was withdrawn.
    pub(crate) fn require_live(&self) -> Result<()> {
        if self.withdrawn.load(Ordering::SeqCst) {
            Err(Errno::STALE)
        } else {
            Ok(())
        }
    }

    /// Notes that a connection uses it, and must hear of its end.
    pub(crate) fn used_by(&self, session: &Arc<Session>) -> Result<()> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        self.require_live()?;
        sessions.retain(|known| known.strong_count() > 0);
        if !sessions
            .iter()
            .any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(session)))
        {
            sessions.push(Arc::downgrade(session));
        }
        Ok(())
    }

    fn withdraw(&self) {
        let sessions = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            self.withdrawn.store(true, Ordering::SeqCst);
            std::mem::take(&mut *sessions)
        };
        for session in sessions.iter().filter_map(Weak::upgrade) {
            session.withdraw(self);
        }
    }
}

/// Counts what holds files of an export open.
#[derive(Debug, Default)]
struct Holders {
    count: AtomicUsize,
    changed: Notify,
}

impl Holders {
    async fn none(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// One holder of files of an export. Its owner drops it after those files.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Exported>);

impl Hold {
    /// Counts one more holder.
    pub(crate) fn new(exported: Arc<Exported>) -> Self {
        exported.holders.count.fetch_add(1, Ordering::SeqCst);
        Self(exported)
    }

    /// What is held.
    pub(crate) fn exported(&self) -> &Arc<Exported> {
        &self.0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.holders.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.holders.changed.notify_waiters();
        }
    }
}
