//! Copies between a container's files and a stream: this program once more, as a process of the VM that the host starts
//! (GCS bridge protocol §6, ExecuteProcess). Nothing in the container is needed for it.
//!
//! ```text
//! cofferdam-agent archive CONTAINER PID ORDER
//! cofferdam-agent archive --root DIR ORDER
//! ```
//!
//! `ORDER` is a [`cofferdam_copy::Order`] as JSON. The archive is on standard output or input; what was left out, and then
//! why it failed, are lines on standard error. Paths are looked up in the root that the container's first process `PID`
//! sees, with the container's mounts, and nothing leads out of it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufReader, BufWriter, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use cofferdam_copy::{Order, Policy, Root, pack, unpack};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::container::spec::cgroup_path;

/// The argument that makes this program copy.
pub(crate) const ARCHIVE: &str = "archive";
/// Bytes that the stream is read and written in.
const BUFFER_BYTES: usize = 128 << 10;
/// Most that is read of a process's cgroup, in bytes.
const MAX_CGROUP_BYTES: u64 = 64 << 10;

/// The whole life of the process.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let copied = match words.as_slice() {
        [flag, root, order] if flag == "--root" => Root::inside(Path::new(root))
            .map_err(|error| error.to_string())
            .and_then(|root| copy(&root, order)),
        [container, pid, order] => root_of(container, pid).and_then(|root| copy(&root, order)),
        _ => Err("archive CONTAINER PID ORDER".to_owned()),
    };
    match copied {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn copy(root: &Root, order: &str) -> Result<(), String> {
    let order: Order = serde_json::from_str(order).map_err(|error| format!("the order to copy: {error}"))?;
    let told = &mut |note| eprintln!("{note}");
    let copied = match (&order, order.target()) {
        (Order::Out { path, follow }, _) => {
            let output = stream(rustix::stdio::stdout())?;
            let output = BufWriter::with_capacity(BUFFER_BYTES, output);
            pack(root, path.as_bytes(), *follow, output, told)
        }
        (Order::In { keep, .. }, Some(target)) => {
            let input = BufReader::with_capacity(BUFFER_BYTES, stream(rustix::stdio::stdin())?);
            let policy = if *keep { Policy::keep() } else { Policy::root() };
            unpack(input, root, &target, &policy, told)
        }
        (Order::In { .. }, None) => return Err("the order to copy has no destination".to_owned()),
    };
    copied.map_err(|error| error.to_string())
}

/// A standard stream without the library's buffer.
fn stream(stream: impl AsFd) -> Result<File, String> {
    let copied = rustix::io::fcntl_dupfd_cloexec(stream, 3);
    copied
        .map(File::from)
        .map_err(|error| format!("the stream: {error}"))
}

/// The root of a process of the container. What `PID` is by now, if the container has ended, is told from its cgroup; the
/// directory stays that process's even if the number becomes another's.
fn root_of(container: &str, pid: &str) -> Result<Root, String> {
    let gone = |error: io::Error| format!("container {container} does not run any more: {error}");
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{pid:?} is no process number"));
    }
    let as_place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |directory: BorrowedFd<'_>, path: &str, flags| {
        openat(directory, path, flags, Mode::empty()).map_err(io::Error::from)
    };
    let process: OwnedFd = open(CWD, &format!("/proc/{pid}"), as_place).map_err(gone)?;
    let process = process.as_fd();
    let cgroup = open(process, "cgroup", OFlags::RDONLY | OFlags::CLOEXEC).map_err(gone)?;
    let mut text = String::new();
    File::from(cgroup)
        .take(MAX_CGROUP_BYTES)
        .read_to_string(&mut text)
        .map_err(gone)?;
    if !is_in_cgroup(&text, &cgroup_path(container)) {
        return Err(format!("process {pid} is not one of container {container}"));
    }
    let root = open(process, "root", as_place).map_err(gone)?;
    let mounts = open(process, "ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC).map_err(gone)?;
    // From outside of it a file that is a mount in it could be taken away, and the mount with it.
    move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|error| format!("entering the mounts of container {container}: {error}"))?;
    Ok(Root::at(root))
}

/// Whether `text`, a process's file `cgroup`, names `path` or what is below it.
fn is_in_cgroup(text: &str, path: &str) -> bool {
    text.lines()
        .filter_map(|line| line.strip_prefix("0::"))
        .filter_map(|line| line.strip_prefix(path))
        .any(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_containers_or_not() {
        let path = cgroup_path("web");
        assert!(is_in_cgroup("0::/cofferdam/web\n", &path));
        assert!(is_in_cgroup("1:cpu:/\n0::/cofferdam/web/inner\n", &path));
        for other in ["", "0::/\n", "0::/cofferdam/web2\n", "1:cpu:/cofferdam/web\n"] {
            assert!(!is_in_cgroup(other, &path), "{other}");
        }
        let own = std::process::id().to_string();
        let refused = root_of("web", &own).unwrap_err();
        assert!(refused.ends_with("is not one of container web"), "{refused}");
        assert!(root_of("web", "self").is_err() && root_of("web", "1/root").is_err());
    }
}
