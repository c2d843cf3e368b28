//! A tar stream becomes files.

use std::io::{BufRead, Seek as _, SeekFrom, Write as _};

use cofferdam_archive::{Archive, Entry, Kind, Limits, Segment};
use rustix::fs::{FileType, makedev};

use crate::{
    CopyError, Notes, Policy, Root, Target,
    error::{During as _, shown},
    tree::Tree,
};

/// A copy may be of any size, and is never held; what one entry may make us hold stays bounded.
const LIMITS: Limits = Limits {
    entries: u64::MAX,
    path_bytes: 4096,
    extended_bytes: 1 << 20,
    segments: 65_536,
    archive_bytes: u64::MAX,
    file_bytes: i64::MAX as u64,
};

/// Makes files of the archive `input` at `target`. What Linux keeps of an incomplete file is taken away; what was
/// complete before an error stays.
///
/// # Errors
/// The archive's; what [`Target`] and [`Policy`] do not allow; the system's.
pub fn unpack(
    input: impl BufRead,
    root: &Root,
    target: &Target,
    policy: &Policy,
    notes: Notes<'_>,
) -> Result<(), CopyError> {
    let mut archive = Archive::new(input, LIMITS);
    let mut next = archive.next_entry()?;
    if next.is_none() && !target.is_archive() {
        return Err(CopyError::Nothing);
    }
    let mut tree = Tree::new(target.find(root, next.as_ref())?, policy);
    while let Some(entry) = next {
        make(&mut archive, &mut tree, policy, entry, notes)?;
        next = archive.next_entry()?;
    }
    // Whoever writes it must not find nobody who reads its end.
    archive.finish()?;
    tree.complete(notes)
}

fn make(
    archive: &mut Archive<impl BufRead>,
    tree: &mut Tree<'_>,
    policy: &Policy,
    entry: Entry,
    notes: Notes<'_>,
) -> Result<(), CopyError> {
    let path = tree.enter(&entry, notes)?;
    let device = match &entry.kind {
        Kind::Directory => return tree.directory(&path, entry),
        Kind::File { size, segments } => {
            let new = tree.file(&path, &entry)?;
            let written = write(archive, &new.file, *size, segments.as_deref(), &entry)
                .and_then(|()| policy.apply(&new.file, &entry, notes));
            if written.is_err() && !new.in_place {
                tree.discard(&path);
            }
            return written;
        }
        Kind::HardLink { target } => return tree.hard_link(&path, &entry, target),
        Kind::Symlink { target } => return tree.symlink(&path, &entry, target),
        Kind::Fifo => return tree.node(&path, &entry, FileType::Fifo, 0),
        Kind::CharacterDevice { major, minor } => (FileType::CharacterDevice, makedev(*major, *minor)),
        Kind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(*major, *minor)),
    };
    if policy.devices() {
        return tree.node(&path, &entry, device.0, device.1);
    }
    notes(format!("{}: it is a device, and left out", shown(&entry.path)));
    Ok(())
}

fn write(
    archive: &mut Archive<impl BufRead>,
    mut file: &std::fs::File,
    size: u64,
    segments: Option<&[Segment]>,
    entry: &Entry,
) -> Result<(), CopyError> {
    let Some(segments) = segments else {
        return write_piece(archive, file, u64::MAX, entry);
    };
    file.set_len(size).during("sizing", &entry.path)?;
    for segment in segments {
        file.seek(SeekFrom::Start(segment.offset))
            .during("writing", &entry.path)?;
        write_piece(archive, file, segment.length, entry)?;
    }
    Ok(())
}

/// Writes the next bytes of the entry's data, so many or all.
fn write_piece(
    archive: &mut Archive<impl BufRead>,
    mut file: &std::fs::File,
    mut length: u64,
    entry: &Entry,
) -> Result<(), CopyError> {
    while length > 0 {
        let data = archive.data()?;
        if data.is_empty() {
            break;
        }
        let taken = data.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        file.write_all(&data[..taken]).during("writing", &entry.path)?;
        archive.consume(taken);
        length -= taken as u64;
    }
    Ok(())
}
