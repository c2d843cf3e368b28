//! The VM's private directory: sockets, and what is kept after a failure.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The longest path of a socket, in bytes (unix(7): `sun_path` with its closing zero has 108).
const MAX_SOCKET_PATH: usize = 107;

/// A new directory that only this user can enter. It is removed on drop. In a directory of the caller's choice it has a short
/// name: that may be the directory of an owner with a long one (`cofferdam_owner::Owned::place_for_sockets`), and elsewhere
/// one that says whose it is.
pub(crate) fn create(base: Option<&Path>) -> io::Result<tempfile::TempDir> {
    let (prefix, digits) = match base {
        Some(_) => ("vm", 4),
        None => ("cofferdam-", 8),
    };
    let base = base.map_or_else(default_base, Path::to_path_buf);
    // QEMU is told paths; they must mean the same to it.
    let base = std::path::absolute(base)?;
    let dir = tempfile::Builder::new()
        .prefix(prefix)
        .rand_bytes(digits)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(base)?;
    let socket = socket(dir.path(), "vsock");
    if socket.as_os_str().len() > MAX_SOCKET_PATH {
        let problem = format!(
            "{} is too long for a socket: choose a shorter runtime directory",
            socket.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    Ok(dir)
}

/// The path of one of the VM's sockets.
pub(crate) fn socket(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}

fn default_base() -> PathBuf {
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_dir())
    {
        return dir;
    }
    if rustix::process::geteuid().is_root() {
        "/run".into()
    } else {
        "/tmp".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_enter_it() {
        let base = tempfile::tempdir().expect("temporary directory");
        let dir = create(Some(base.path())).expect("created");
        let mode = std::fs::metadata(dir.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn the_longest_directory_that_owners_have_sockets_in_is_not_too_long() {
        let base = tempfile::tempdir().expect("temporary directory");
        let deep = base
            .path()
            .join("x".repeat(94 - base.path().as_os_str().len() - 1));
        assert_eq!(deep.as_os_str().len(), 94);
        std::fs::create_dir(&deep).expect("created");
        let dir = create(Some(&deep)).expect("not too long");
        std::os::unix::net::UnixListener::bind(socket(dir.path(), "vsock")).expect("bound");
    }

    #[test]
    fn path_that_no_socket_can_have_is_refused_and_leaves_nothing() {
        let base = tempfile::tempdir().expect("temporary directory");
        let deep = base.path().join("x".repeat(100));
        std::fs::create_dir(&deep).expect("created");
        let error = create(Some(&deep)).expect_err("too long").to_string();
        assert!(error.contains("too long"), "{error}");
        assert_eq!(std::fs::read_dir(&deep).expect("there").count(), 0);
    }
}
