//! Plan 9 shares of host directories (GCS bridge protocol §7.5).

use std::{os::fd::AsRawFd, path::Path};

use cofferdam_mounting::{filesystem::mount_fs, mount_point};
use cofferdam_protocol::{ports, settings::MappedDirectory};
use rustix::mount::MountFlags;

use super::path::guest_path;
use crate::{
    error::{AgentError, During, Result},
    transport::Dialer,
};

/// Largest message of the connection. The kernel's client keeps whole messages in contiguous memory: with 1 MiB a
/// read can fail in a small VM whose memory is fragmented, and 128 KiB already carries more than the stream
/// beneath. Kernels with a smaller limit take theirs.
const MESSAGE_BYTES: u32 = 128 * 1024;

/// Mounts a share over a stream of its own.
pub(crate) fn add(request: &MappedDirectory, dialer: &Dialer) -> Result<()> {
    let target = guest_path(&request.mount_path)?;
    // The name goes into a comma-separated option string.
    if !request
        .share_name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    {
        return Err(AgentError::Invalid(format!(
            "share name {:?} holds more than letters and digits",
            request.share_name
        )));
    }
    mount_point::make_free(&target)?;
    let port = if request.port == 0 {
        ports::PLAN9
    } else {
        request.port
    };
    let mounted = dialer
        .dial(port)
        .during(|| {
            format!(
                "dialling port {port} of the host for share {}",
                request.share_name
            )
        })
        .and_then(|stream| {
            let flags = if request.read_only {
                MountFlags::RDONLY
            } else {
                MountFlags::empty()
            };
            // The kernel takes its own reference to the stream; ours ends here.
            let mounted = mount_fs(
                Path::new(&request.share_name),
                &target,
                "9p",
                flags,
                &options(stream.as_raw_fd(), request),
            );
            Ok(mounted?)
        });
    if mounted.is_err() {
        let _ = mount_point::clear(&target);
    }
    mounted
}

/// Unmounts a share. What is absent counts as done.
pub(crate) fn remove(request: &MappedDirectory) -> Result<()> {
    Ok(mount_point::clear(&guest_path(&request.mount_path)?)?)
}

/// `access=client`: the guest checks permissions by the modes the host shows, ACLs included, for any user of the
/// container. `cache=mmap,directio`: reads and writes go to the host each time, so changes on either side are seen
/// at once; pages are kept only for mappings, which makes executables and shared writable mappings work.
fn options(stream: i32, request: &MappedDirectory) -> String {
    let mut options = format!(
        "trans=fd,rfdno={stream},wfdno={stream},version=9p2000.L,msize={MESSAGE_BYTES},access=client,cache=mmap,directio"
    );
    if !request.share_name.is_empty() {
        options.push_str(",aname=");
        options.push_str(&request.share_name);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_the_stream_and_the_share() {
        let request = MappedDirectory {
            share_name: "12".into(),
            ..MappedDirectory::default()
        };
        let options = options(7, &request);
        assert!(
            options.starts_with("trans=fd,rfdno=7,wfdno=7,version=9p2000.L,"),
            "{options}"
        );
        assert!(options.ends_with(",aname=12"), "{options}");
    }

    #[test]
    fn a_share_name_cannot_smuggle_options() {
        let request = MappedDirectory {
            mount_path: "/run/cofferdam-test-share".into(),
            share_name: "1,access=any".into(),
            ..MappedDirectory::default()
        };
        let error = add(&request, &Dialer::Directory("/nonexistent".into())).unwrap_err();
        assert_eq!(error.code(), 0x8007_0057);
    }
}
