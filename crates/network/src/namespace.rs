//! Doing something inside of a network namespace.

use std::{fs::File, io, os::fd::AsFd, path::Path, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::NetworkError;

/// Runs `work` on a thread of its own that is in the network namespace at `path`, and waits for it. The calling thread stays
/// where it is; what `work` opens belongs to the namespace for good.
pub(crate) fn inside<T: Send>(
    path: &Path,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    let namespace = File::open(path).map_err(|source| failed(path, source))?;
    inside_of(&namespace, path, work)
}

/// As [`inside`], in a network namespace that is open; `path` is for words only.
pub(crate) fn inside_of<T: Send>(
    namespace: &File,
    path: &Path,
    work: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    let failed = |source: io::Error| failed(path, source);
    thread::scope(|scope| {
        let entered = thread::Builder::new()
            .name("network".to_owned())
            .spawn_scoped(scope, || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| failed(error.into()))?;
                work()
            })
            .map_err(failed)?;
        match entered.join() {
            Ok(outcome) => outcome,
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
    })
}

fn failed(path: &Path, source: io::Error) -> NetworkError {
    NetworkError::Io {
        action: format!("entering the network namespace {}", path.display()),
        source,
    }
}
