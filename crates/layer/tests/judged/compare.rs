//! Two trees, name by name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{lgetxattr, llistxattr};

/// All that a name is.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    size: u64,
    links: u64,
    /// The first name, in order, of the same inode.
    first_name: PathBuf,
    device: u64,
    target: Option<PathBuf>,
    content: Option<Vec<u8>>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Asserts that both have the same names and everything about them is the same. Gives how many there are.
pub(crate) fn assert_same(expected: &Path, found: &Path) -> usize {
    let expected = tree(expected);
    let mut found = tree(found);
    for (name, facts) in &expected {
        let other = found
            .remove(name)
            .unwrap_or_else(|| panic!("{name:?} is missing"));
        // A content may be large: it is not for a message.
        assert!(facts.content == other.content, "{name:?} has another content");
        let without = |facts: &Facts| {
            format!(
                "{:#?}",
                Facts {
                    content: None,
                    target: facts.target.clone(),
                    first_name: facts.first_name.clone(),
                    xattrs: facts.xattrs.clone(),
                    ..*facts
                }
            )
        };
        assert_eq!(without(facts), without(&other), "{name:?}");
    }
    assert!(found.is_empty(), "more than expected: {:?}", found.keys());
    expected.len()
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut names = Vec::new();
    collect(root, root, &mut names);
    names.sort();
    let mut first_names = BTreeMap::new();
    let mut all = BTreeMap::new();
    for name in names {
        let path = root.join(&name);
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let first_name = first_names.entry(metadata.ino()).or_insert_with(|| name.clone());
        let is_device = kind.is_char_device() || kind.is_block_device();
        let facts = Facts {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // A directory's is the file system's own affair.
            size: if kind.is_dir() { 0 } else { metadata.size() },
            links: metadata.nlink(),
            first_name: first_name.clone(),
            device: if is_device { metadata.rdev() } else { 0 },
            target: kind.is_symlink().then(|| fs::read_link(&path).unwrap()),
            content: (kind.is_file() && metadata.size() < 1 << 30).then(|| fs::read(&path).unwrap()),
            xattrs: xattrs(&path),
        };
        all.insert(name, facts);
    }
    all
}

fn collect(root: &Path, dir: &Path, names: &mut Vec<PathBuf>) {
    names.push(dir.strip_prefix(root).unwrap().to_owned());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            collect(root, &path, names);
        } else {
            names.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
}

/// The attributes of a name itself, not of what it points to.
pub(crate) fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    let mut list = vec![0; 64 * 1024];
    let length = match llistxattr(path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("{}: {}", path.display(), io::Error::from(error)),
    };
    list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let mut value = vec![0; 64 * 1024];
            let length = lgetxattr(path, &name, &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}
