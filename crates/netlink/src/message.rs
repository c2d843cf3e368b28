//! How a message is put together and taken apart (`netlink(7)`): a header, the fixed part of its kind, attributes.

use std::net::IpAddr;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct nlattr` or `struct rtattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// What tells nested and byte-ordered attributes, beside the kind.
const KIND_MASK: u16 = 0x3fff;

/// This is a request.
pub(crate) const REQUEST: u16 = 1;
/// An answer is wanted, also if it succeeds.
pub(crate) const ACKNOWLEDGE: u16 = 4;
/// Everything there is.
pub(crate) const DUMP: u16 = 0x300;
/// Replace what is there.
pub(crate) const REPLACE: u16 = 0x100;
/// Make what is not there.
pub(crate) const CREATE: u16 = 0x400;
/// Fail if it is there.
pub(crate) const EXCLUSIVE: u16 = 0x200;

/// `NLMSG_ERROR`: an error, or with number 0 the acknowledgement.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub(crate) const DONE: u16 = 3;

/// A message in the making.
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A request of `kind` with its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        let mut message = Self(bytes);
        message.pad();
        message
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.add(kind, value);
        self
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub(crate) fn address(self, kind: u16, value: IpAddr) -> Self {
        match value {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// A text with the NUL that ends it.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Attributes inside of an attribute.
    pub(crate) fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.add(kind, &[]);
        let mut whole = inner(self);
        let length = u16::try_from(whole.0.len() - start).unwrap_or(u16::MAX);
        whole.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        whole
    }

    /// The bytes, with their length and this number.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }

    fn add(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// One message of the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of one datagram; `None` at the first that is not whole.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Option<Received<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let first = first_message(bytes);
        bytes = match &first {
            Some((_, rest)) => rest,
            None => &[],
        };
        Some(first.map(|(message, _)| message))
    })
}

fn first_message(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let message = Received {
        kind: u16_at(bytes, 4)?,
        sequence: u32_at(bytes, 8)?,
        body: bytes.get(HEADER..length)?,
    };
    Some((message, rest(bytes, length)))
}

/// The attributes in `bytes`, so far as they are whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = rest(bytes, length);
        Some((kind, value))
    })
}

fn rest(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An address of four or sixteen bytes.
pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_is_taken_apart() {
        let bytes = Message::new(16, ACKNOWLEDGE, &[1, 2, 3])
            .text(3, "eth0")
            .nested(5, |inner| inner.number(1, 7).attribute(2, &[9]))
            .address(6, "10.0.0.1".parse().unwrap())
            .finish(42);
        assert_eq!(bytes.len() % 4, 0);
        let received: Vec<_> = messages(&bytes).collect();
        let [Some(message)] = received.as_slice() else {
            panic!("{received:?}")
        };
        assert_eq!((message.kind, message.sequence), (16, 42));
        let all: Vec<_> = attributes(&message.body[4..]).collect();
        assert_eq!(all[0], (3, b"eth0\0".as_slice()));
        assert_eq!(all[1].0, 5);
        let inner: Vec<_> = attributes(all[1].1).collect();
        assert_eq!(inner, [(1, 7_u32.to_ne_bytes().as_slice()), (2, [9].as_slice())]);
        assert_eq!(ip(all[2].1), "10.0.0.1".parse().ok());
    }

    #[test]
    fn bytes_that_end_early_are_no_message_and_never_a_panic() {
        let whole = Message::new(24, 0, &[0; 12]).number(4, 1).finish(1);
        for length in 0..whole.len() {
            assert!(messages(&whole[..length]).flatten().next().is_none(), "{length}");
            assert!(attributes(&whole[..length]).count() <= whole.len());
        }
        // A length that would never get on.
        assert_eq!(messages(&[0; 64]).count(), 1);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
