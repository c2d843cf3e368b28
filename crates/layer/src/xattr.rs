//! Extended attributes, kept once for all files that have the same.

use std::{collections::HashMap, io};

use cofferdam_archive::{Entry, Xattr};

use crate::tree::{Flags, Inode, Tree};

/// Sets that are recognised when they come again. Images have a handful; more cost only room.
const REMEMBERED: usize = 512;

/// What makes a directory hide those of lower layers (overlayfs.rst).
const OPAQUE: (Namespace, &[u8], &[u8]) = (Namespace::Trusted, b"overlay.opaque", b"y");

/// Where an attribute belongs, by the number that ext4 and EROFS both keep on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Namespace {
    /// `user.`
    User = 1,
    /// `system.posix_acl_access`, the whole name.
    AclAccess = 2,
    /// `system.posix_acl_default`, the whole name.
    AclDefault = 3,
    /// `trusted.`
    Trusted = 4,
    /// `security.`
    Security = 6,
}

impl Namespace {
    const ALL: [(Self, &'static [u8]); 5] = [
        (Self::User, b"user."),
        (Self::AclAccess, b"system.posix_acl_access"),
        (Self::AclDefault, b"system.posix_acl_default"),
        (Self::Trusted, b"trusted."),
        (Self::Security, b"security."),
    ];

    /// The namespace of a whole name, and the rest of the name.
    fn of(name: &[u8]) -> Option<(Self, &[u8])> {
        Self::ALL.into_iter().find_map(|(space, prefix)| {
            let rest = name.strip_prefix(prefix)?;
            (rest.is_empty() == prefix.starts_with(b"system.")).then_some((space, rest))
        })
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .map(|(space, _)| space)
            .find(|space| *space as u8 == number)
    }
}

/// An attribute as file systems keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    /// Its namespace.
    pub(crate) space: Namespace,
    /// The name after that.
    pub(crate) name: Vec<u8>,
    /// The value.
    pub(crate) value: Vec<u8>,
}

/// Sets that were kept.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    known: HashMap<Vec<u8>, u64>,
    /// Attributes of other namespaces, which Linux has no place for (macOS writes such).
    pub(crate) ignored: u64,
}

impl Sets {
    /// Keeps an entry's attributes; gives what [`Inode::xattrs`] is.
    pub(crate) fn keep(&mut self, tree: &mut Tree, entry: &Entry) -> io::Result<u64> {
        let mut bytes = Vec::new();
        for Xattr { name, value } in &entry.xattrs {
            match Namespace::of(name) {
                Some((space, rest)) if rest.len() <= 255 => {
                    bytes.push(space as u8);
                    bytes.push(rest.len() as u8);
                    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(rest);
                    bytes.extend_from_slice(value);
                }
                _ => self.ignored += 1,
            }
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        if let Some(known) = self.known.get(&bytes) {
            return Ok(*known);
        }
        let kept = tree.append_counted(&bytes)? + 1;
        if self.known.len() < REMEMBERED && bytes.len() <= 4096 {
            self.known.insert(bytes, kept);
        }
        Ok(kept)
    }
}

/// A file's attributes in the order of ext4's blocks (namespace, length of the name, name), with what an opaque
/// directory has.
pub(crate) fn list(tree: &mut Tree, inode: &Inode) -> io::Result<Vec<Attribute>> {
    let mut attributes = Vec::new();
    if let Some(at) = inode.xattrs.checked_sub(1) {
        let bytes = tree.read_counted(at)?;
        let mut rest = &bytes[..];
        while let [number, name_length, a, b, c, d, after @ ..] = rest
            && let Some(space) = Namespace::from_number(*number)
            && let Some((name, after)) = after.split_at_checked(usize::from(*name_length))
            && let Some((value, after)) =
                after.split_at_checked(u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        {
            attributes.push(Attribute {
                space,
                name: name.to_vec(),
                value: value.to_vec(),
            });
            rest = after;
        }
    }
    if inode.flags.has(Flags::OPAQUE) {
        let (space, name, value) = OPAQUE;
        attributes.retain(|attribute| attribute.space != space || attribute.name != name);
        attributes.push(Attribute {
            space,
            name: name.to_vec(),
            value: value.to_vec(),
        });
    }
    attributes.sort_by(|a, b| {
        let key = |attribute: &Attribute| (attribute.space, attribute.name.len());
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_the_namespaces_that_linux_has() {
        assert_eq!(
            Namespace::of(b"security.capability"),
            Some((Namespace::Security, &b"capability"[..]))
        );
        assert_eq!(
            Namespace::of(b"system.posix_acl_access"),
            Some((Namespace::AclAccess, &b""[..]))
        );
        for unknown in [
            "com.apple.provenance",
            "user.",
            "system.posix_acl_access2",
            "system.nfs4_acl",
        ] {
            assert_eq!(Namespace::of(unknown.as_bytes()), None, "{unknown}");
        }
    }
}
