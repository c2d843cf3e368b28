//! A root filesystem, seen from outside of it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2},
    io::Errno,
};

use crate::error::{During, RootfsError};

/// A directory in which paths are looked up as if it were `/`: symbolic links, absolute ones and those that climb too,
/// end in it.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// The root filesystem mounted at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> Result<Self, RootfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).during(|| format!("opening {}", path.display()))?;
        Ok(Self {
            directory,
            path: path.to_owned(),
        })
    }

    /// What a file holds, or nothing where there is none.
    ///
    /// # Errors
    /// It is no regular file, or holds more than `limit` bytes; the system's.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, RootfsError> {
        let action = || format!("reading {path} of {}", self.path.display());
        // Opened as a place first: opening a device or a pipe itself may do something.
        let found = match self.at(path, OFlags::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            found => found.during(action)?,
        };
        let kind = FileType::from_raw_mode(fstat(&found).during(action)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(io::Error::other("it is no regular file")).during(action);
        }
        let mut content = Vec::new();
        let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).during(action)?;
        file.take(limit + 1).read_to_end(&mut content).during(action)?;
        if content.len() as u64 > limit {
            let problem = format!("it holds more than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem)).during(action);
        }
        Ok(content)
    }

    /// Whether a directory is at `path`.
    ///
    /// # Errors
    /// The system's, those of what is not there aside.
    pub fn has_directory(&self, path: &str) -> Result<bool, RootfsError> {
        match self.at(path, OFlags::DIRECTORY) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error).during(|| format!("looking for {path} in {}", self.path.display())),
        }
    }

    /// Opens `path` as a place, making what is absent of it as directories.
    ///
    /// # Errors
    /// It climbs, or leads through what is no directory; the system's.
    pub fn make(&self, path: &str) -> Result<OwnedFd, RootfsError> {
        let action = || format!("making {path} in {}", self.path.display());
        let mut here = String::from(".");
        let mut opened = self.at(&here, OFlags::empty()).during(action)?;
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it climbs")).during(action);
            }
            let next = format!("{here}/{part}");
            opened = match self.at(&next, OFlags::empty()) {
                Err(Errno::NOENT) => {
                    let parent = self.at(&here, OFlags::DIRECTORY).during(action)?;
                    match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                        // Somebody else made it, or a symbolic link with a missing end is there.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error).during(action),
                    }
                    self.at(&next, OFlags::empty()).during(action)?
                }
                found => found.during(action)?,
            };
            here = next;
        }
        Ok(opened)
    }

    /// Makes an empty file at `path`, and directories to it, unless something is there.
    ///
    /// # Errors
    /// It climbs, or leads through what is no directory; the system's.
    pub fn make_file(&self, path: &str) -> Result<(), RootfsError> {
        let action = || format!("making {path} in {}", self.path.display());
        if self.at(path, OFlags::empty()).is_ok() {
            return Ok(());
        }
        let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no file's path",
            ))
            .during(action);
        }
        let directory = self.make(parent)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match openat(&directory, name, flags, Mode::from_raw_mode(0o644)) {
            // A symbolic link with a missing end is there, or somebody else was faster.
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).during(action),
        }
    }

    /// The same as [`Root::make`], as the path that leads to it from outside, without symbolic links.
    ///
    /// # Errors
    /// It is no directory, or its path is not UTF-8; those of [`Root::make`].
    pub fn make_directory(&self, path: &str) -> Result<String, RootfsError> {
        let action = || format!("making {path} in {}", self.path.display());
        let made = self.make(path)?;
        let kind = FileType::from_raw_mode(fstat(&made).during(action)?.st_mode);
        if kind != FileType::Directory {
            return Err(io::Error::from(io::ErrorKind::NotADirectory)).during(action);
        }
        let path = std::fs::read_link(format!("/proc/self/fd/{}", made.as_raw_fd())).during(action)?;
        path.into_os_string()
            .into_string()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))
            .during(action)
    }

    fn at(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(
            &self.directory,
            path,
            flags | OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "of the host").unwrap();
        let path = dir.path().join("rootfs");
        fs::create_dir_all(path.join("etc")).unwrap();
        fs::write(path.join("etc/passwd"), "inside").unwrap();
        let root = Root::open(&path.canonicalize().unwrap()).unwrap();
        (dir, root)
    }

    #[test]
    fn links_end_at_the_root() {
        let (dir, root) = root();
        let at = |name: &str| dir.path().join("rootfs").join(name);
        symlink("/etc/passwd", at("absolute")).unwrap();
        symlink("../../../../etc/passwd", at("climbing")).unwrap();
        symlink("../secret", at("out")).unwrap();
        symlink("/proc/self/environ", at("magic")).unwrap();
        assert_eq!(root.read("/absolute", 100).unwrap(), b"inside");
        assert_eq!(root.read("climbing", 100).unwrap(), b"inside");
        assert_eq!(root.read("out", 100).unwrap(), b"");
        assert_eq!(root.read("magic", 100).unwrap(), b"");
        symlink("../..", at("up")).unwrap();
        let made = root.make_directory("/up/a/b").unwrap();
        assert_eq!(Path::new(&made), root.path.join("a/b"));
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let (dir, root) = root();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("rootfs/pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for (path, words) in [
            ("pipe", "no regular file"),
            ("etc", "no regular file"),
            ("etc/passwd", "more than 3 bytes"),
        ] {
            let error = root.read(path, 3).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(root.read("etc/passwd/below", 100).unwrap(), b"");
    }

    #[test]
    fn directories_are_made_and_files_are_in_their_way() {
        let (dir, root) = root();
        assert!(!root.has_directory("/a/b").unwrap());
        root.make_directory("/a//b/./c").unwrap();
        assert!(root.has_directory("/a/b").unwrap() && !root.has_directory("/etc/passwd").unwrap());
        assert!(dir.path().join("rootfs/a/b/c").is_dir());
        assert_eq!(Path::new(&root.make_directory("/").unwrap()), root.path);
        for path in ["/a/../../x", "/etc/passwd", "/etc/passwd/x"] {
            assert!(root.make_directory(path).is_err(), "{path}");
        }
    }
}
