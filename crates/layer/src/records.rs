//! Numbered records of one size, in a spool.

use std::{io, marker::PhantomData};

use crate::spool::{PAGE, Spool};

/// A record as bytes.
pub(crate) trait Record<const SIZE: usize>: Sized {
    /// Its bytes.
    fn to_bytes(&self) -> [u8; SIZE];
    /// The record that `bytes` are of.
    fn from_bytes(bytes: &[u8; SIZE]) -> Self;
}

/// Records by number, from 0.
#[derive(Debug)]
pub(crate) struct Records<T, const SIZE: usize> {
    spool: Spool,
    kind: PhantomData<T>,
}

impl<T: Record<SIZE>, const SIZE: usize> Records<T, SIZE> {
    /// None yet; at most `memory_bytes` of them are kept in memory.
    pub(crate) fn new(memory_bytes: usize) -> Self {
        const { assert!(PAGE.is_multiple_of(SIZE), "records do not straddle pages") };
        Self {
            spool: Spool::new(memory_bytes),
            kind: PhantomData,
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        // `push` keeps the number below 2³².
        (self.spool.length() / SIZE as u64) as u32
    }

    /// The record of that number.
    pub(crate) fn get(&mut self, number: u32) -> io::Result<T> {
        let bytes = self.spool.read_array(u64::from(number) * SIZE as u64)?;
        Ok(T::from_bytes(&bytes))
    }

    /// Replaces one.
    pub(crate) fn set(&mut self, number: u32, record: &T) -> io::Result<()> {
        self.spool
            .write(u64::from(number) * SIZE as u64, &record.to_bytes())
    }

    /// Adds one, and gives its number.
    pub(crate) fn push(&mut self, record: &T) -> io::Result<u32> {
        let number = self.count();
        if number == u32::MAX {
            return Err(io::Error::other("more than 2³² - 1 files"));
        }
        self.set(number, record)?;
        Ok(number)
    }
}
