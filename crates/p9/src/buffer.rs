//! Memory for messages. Large ones come from a small stock, so that a stream of 1 MiB requests does not allocate and
//! clear 1 MiB each.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

/// Messages up to this many bytes are allocated singly.
const SMALL: usize = 8 * 1024;
/// How many large buffers a connection keeps for later.
const KEPT: usize = 8;

/// Large buffers to be used again.
#[derive(Debug)]
pub(crate) struct Buffers {
    large: usize,
    stock: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// For messages of up to `large` bytes.
    pub(crate) fn new(large: usize) -> Arc<Self> {
        Arc::new(Self {
            large,
            stock: Mutex::default(),
        })
    }

    /// A buffer of `len` bytes, whose content means nothing.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let kept = (len > SMALL && len <= self.large)
            .then(|| self.stock.lock().unwrap_or_else(PoisonError::into_inner).pop())
            .flatten();
        let bytes = match kept {
            Some(bytes) => bytes,
            None if len > SMALL && len <= self.large => vec![0; self.large],
            None => vec![0; len],
        };
        Buffer {
            bytes,
            len,
            stock: Arc::clone(self),
        }
    }
}

/// One message's bytes.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    stock: Arc<Buffers>,
}

impl Buffer {
    /// Shortens it to `len` bytes; does nothing if it is shorter.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == self.stock.large && self.bytes.len() > SMALL {
            let mut stock = self.stock.stock.lock().unwrap_or_else(PoisonError::into_inner);
            if stock.len() < KEPT {
                stock.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}
