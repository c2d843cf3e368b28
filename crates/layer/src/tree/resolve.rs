//! From an archive's path to a directory of the tree and a name in it.
//!
//! As container runtimes do when they unpack: `.` and empty parts mean nothing, directories that are missing are made,
//! and symbolic links on the way are followed, with the layer's root as the root. A path that leaves the root is refused;
//! a link that does stops at it.

use super::{ROOT, Tree, node::S_IFLNK};
use crate::{LayerError, error::Show};

/// Symbolic links of one path (Linux: MAXSYMLINKS).
const LINKS: u32 = 40;
/// Bytes of a name (Linux: NAME_MAX; ext4 and EROFS have one byte for it).
const NAME_BYTES: usize = 255;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// The root directory itself.
    Root,
    /// A name in a directory, which need not exist.
    Name {
        /// The directory.
        directory: u32,
        /// The name.
        name: &'a [u8],
    },
}

/// What a missing directory on the way means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is made.
    Make,
    /// There is nothing at the path.
    Nothing,
}

impl Tree {
    /// Follows all of `path` but its last part. `None` where a directory is missing and is not made.
    pub(crate) fn resolve<'a>(
        &mut self,
        path: &'a [u8],
        missing: Missing,
    ) -> Result<Option<Target<'a>>, LayerError> {
        let parts = lexical_parts(path)?;
        let Some((name, parents)) = parts.split_last() else {
            return Ok(Some(Target::Root));
        };
        let mut directory = ROOT;
        let mut links = 0;
        for part in parents {
            match self.step(directory, part, missing, &mut links, path)? {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Target::Name { directory, name }))
    }

    /// The directory that `name` in `directory` is or points to.
    fn step(
        &mut self,
        directory: u32,
        name: &[u8],
        missing: Missing,
        links: &mut u32,
        path: &[u8],
    ) -> Result<Option<u32>, LayerError> {
        // Each link's target is walked part by part; what is left of the path comes after it.
        let mut directory = directory;
        let mut left = vec![name.to_vec()];
        while let Some(part) = left.pop() {
            if part == b".." {
                directory = self.inodes.get(directory)?.parent();
                continue;
            }
            let found = match self.lookup(directory, &part)? {
                Some((_, number)) => Some((number, self.inodes.get(number)?)),
                None => None,
            };
            match found {
                Some((number, inode)) if inode.is_dir() => directory = number,
                Some((_, inode)) if inode.kind() == S_IFLNK => {
                    *links += 1;
                    if *links > LINKS {
                        return Err(LayerError::LinkLoop {
                            path: Show::new(path),
                        });
                    }
                    let target = self.target(&inode)?;
                    if target.starts_with(b"/") {
                        directory = ROOT;
                    }
                    let parts = target
                        .split(|byte| *byte == b'/')
                        .filter(|part| !part.is_empty() && *part != b".");
                    left.extend(parts.rev().map(<[u8]>::to_vec));
                }
                // A whiteout hides what lower layers have; a directory in its place has nothing of theirs.
                Some((_, inode)) if inode.flags.has(super::Flags::WHITEOUT) && missing == Missing::Make => {
                    let made = self.add_implicit_directory(directory, &part)?;
                    let mut inode = self.inodes.get(made)?;
                    inode.flags.set(super::Flags::OPAQUE);
                    self.inodes.set(made, &inode)?;
                    directory = made;
                }
                Some(_) if missing == Missing::Nothing => return Ok(None),
                Some(_) => {
                    return Err(LayerError::NotADirectory {
                        path: Show::new(path),
                        name: Show::new(&part),
                    });
                }
                None if missing == Missing::Nothing => return Ok(None),
                None => {
                    check_name(&part, path)?;
                    directory = self.add_implicit_directory(directory, &part)?;
                }
            }
        }
        Ok(Some(directory))
    }
}

/// The parts of a path, without `.` and with `..` taken back.
fn lexical_parts(path: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(LayerError::OutsideRoot {
                        path: Show::new(path),
                    });
                }
            }
            part => {
                check_name(part, path)?;
                parts.push(part);
            }
        }
    }
    Ok(parts)
}

fn check_name(name: &[u8], path: &[u8]) -> Result<(), LayerError> {
    if name.len() > NAME_BYTES {
        return Err(LayerError::LongName {
            path: Show::new(path),
            length: name.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Option<Vec<String>> {
        let parts = lexical_parts(path.as_bytes()).ok()?;
        let text = |part: &&[u8]| String::from_utf8_lossy(part).into_owned();
        Some(parts.iter().map(text).collect())
    }

    #[test]
    fn paths_are_taken_as_written_and_stay_below_the_root() {
        assert_eq!(parts("./a//b/."), Some(vec!["a".into(), "b".into()]));
        assert_eq!(parts("/a/../b"), Some(vec!["b".into()]));
        assert_eq!(parts("./"), Some(vec![]));
        assert_eq!(parts("../a"), None);
        assert_eq!(parts("a/../../b"), None);
        assert_eq!(parts(&"n".repeat(256)), None);
    }
}
