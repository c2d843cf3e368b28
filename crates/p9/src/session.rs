//! What a connection has agreed on and holds.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use tokio::sync::Notify;

use crate::{
    export::{Exported, Exports},
    fid::Fids,
    lock::Locks,
    server::ServerOptions,
};

/// The state that the requests of one connection share.
#[derive(Debug)]
pub(crate) struct Session {
    exports: Arc<Exports>,
    options: ServerOptions,
    /// The agreed size of a message in bytes; 0 before a version is agreed on.
    msize: AtomicU32,
    fids: Fids,
    locks: Arc<Locks>,
    withdrawn: AtomicBool,
    withdrawn_now: Notify,
}

impl Session {
    /// A connection that has agreed on nothing yet.
    pub(crate) fn new(exports: Arc<Exports>, options: ServerOptions) -> Arc<Self> {
        Arc::new(Self {
            exports,
            msize: AtomicU32::new(0),
            fids: Fids::new(options.max_fids),
            options,
            locks: Arc::default(),
            withdrawn: AtomicBool::new(false),
            withdrawn_now: Notify::new(),
        })
    }

    /// What may be attached.
    pub(crate) fn exports(&self) -> &Exports {
        &self.exports
    }

    /// The server's options.
    pub(crate) fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// Its fids.
    pub(crate) fn fids(&self) -> &Fids {
        &self.fids
    }

    /// Its record locks.
    pub(crate) fn locks(&self) -> &Arc<Locks> {
        &self.locks
    }

    /// The agreed size of a message in bytes; 0 before a version is agreed on.
    pub(crate) fn msize(&self) -> u32 {
        self.msize.load(Ordering::SeqCst)
    }

    /// Agrees on a size of messages (0: on none), and forgets every fid.
    pub(crate) fn restart(&self, msize: u32) {
        self.fids.clear();
        self.msize.store(msize, Ordering::SeqCst);
    }

    /// An export it uses is gone: nothing of it stays open, and the connection ends.
    pub(crate) fn withdraw(&self, exported: &Exported) {
        self.fids.remove_export(exported);
        self.withdrawn.store(true, Ordering::SeqCst);
        self.withdrawn_now.notify_one();
    }

    /// Resolves when an export it uses is withdrawn.
    pub(crate) async fn withdrawn(&self) {
        while !self.withdrawn.load(Ordering::SeqCst) {
            self.withdrawn_now.notified().await;
        }
    }
}
