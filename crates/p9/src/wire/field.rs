//! Fields: the pieces that messages are made of.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt};

use super::WireError;

/// Takes fields off the front of a frame.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// The next byte.
    ///
    /// # Errors
    /// Nothing is left.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next two bytes as a number.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes as a number.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Something is left.
    pub fn finish(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(WireError::Trailing(left)),
        }
    }
}

/// One field of a message.
pub(super) trait Field<'a>: Sized {
    /// Takes the field off the reader.
    fn get(reader: &mut Reader<'a>) -> Result<Self, WireError>;
    /// Puts the field at the end of `out`.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError>;
}

macro_rules! number {
    ($($type:ident),*) => {$(
        impl<'a> Field<'a> for $type {
            fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
                reader.$type()
            }
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                out.extend_from_slice(&self.to_le_bytes());
                Ok(())
            }
        }
    )*};
}
number!(u8, u16, u32, u64);

/// Bytes with a two-byte length: a name, a path or a version. Nothing says that they are UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Text<'a> {
    /// The bytes as a name of the system.
    pub fn as_os_str(&self) -> &'a OsStr {
        OsStr::from_bytes(self.0)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> Field<'a> for Text<'a> {
    fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let len = reader.u16()?;
        Ok(Self(reader.take(usize::from(len))?))
    }
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let len = u16::try_from(self.0.len()).map_err(|_| WireError::FieldTooLong(self.0.len()))?;
        len.put(out)?;
        out.extend_from_slice(self.0);
        Ok(())
    }
}

/// Data with a four-byte length: what Twrite, Rread and Rreaddir carry.
impl<'a> Field<'a> for &'a [u8] {
    fn get(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let len = usize::try_from(reader.u32()?).map_err(|_| WireError::Truncated)?;
        reader.take(len)
    }
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let len = u32::try_from(self.len()).map_err(|_| WireError::FieldTooLong(self.len()))?;
        len.put(out)?;
        out.extend_from_slice(self);
        Ok(())
    }
}
