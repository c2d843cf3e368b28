//! Images the kernel cannot read: qemu-storage-daemon shows each as a plain file over FUSE, and the file becomes a
//! loop device like any other.
//!
//! The daemon is not tied to its owner: were it to die with it, a file system that is still mounted would lose what
//! has not been written yet. It is found again by the file it exports, and ends once its disk is unmounted.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use cofferdam_image::ImageFormat;
use cofferdam_ledger::address::ScsiAddress;
use cofferdam_mounting::mountinfo;
use rustix::{
    io::Errno,
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};

use crate::{
    Owner,
    error::{During, HostError, Result},
    files::remove_file,
    processes::{self, Process},
};

const PROGRAM: &str = "qemu-storage-daemon";
const REMEDY: &str = "install qemu-utils, or use raw images or fixed VHDs, which need no help";
/// How long the daemon may take to show its file.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to write out what it holds and end.
const END_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);
/// What is shown of the daemon's own words, in bytes.
const WORDS: usize = 2000;

/// A running export of ours.
#[derive(Debug)]
pub(crate) struct Export {
    daemon: Child,
}

/// Files of one export.
struct Files {
    export: PathBuf,
    log: PathBuf,
    pid: PathBuf,
}

impl Files {
    fn of(owner: &Owner, address: ScsiAddress) -> Self {
        let export = owner.export(address);
        Self {
            log: export.with_extension("log"),
            pid: export.with_extension("pid"),
            export,
        }
    }

    fn remove(&self) -> Result<()> {
        for file in [&self.export, &self.log, &self.pid] {
            remove_file(file)?;
        }
        Ok(())
    }
}

/// Shows an image as a file, and returns once the file is there.
pub(crate) fn start(
    owner: &Owner,
    address: ScsiAddress,
    image: &Path,
    format: ImageFormat,
    read_only: bool,
) -> Result<(Export, PathBuf)> {
    let files = Files::of(owner, address);
    let arguments = description(image, &files.export, format, read_only)?;
    let started = spawn(owner, &files, &arguments).and_then(|daemon| {
        let mut export = Export { daemon };
        match export.until_ready(&files, image, &arguments) {
            Ok(()) => Ok(export),
            Err(error) => {
                let _ = export.end();
                Err(error)
            }
        }
    });
    match started {
        Ok(export) => Ok((export, files.export)),
        Err(error) => {
            // The first error counts.
            let _ = clear_files(&files);
            Err(error)
        }
    }
}

fn spawn(owner: &Owner, files: &Files, [block, export]: &[String; 2]) -> Result<Child> {
    fs::create_dir_all(owner.exports()).during(|| format!("making {}", owner.exports().display()))?;
    fs::File::create(&files.export).during(|| format!("making {}", files.export.display()))?;
    let log = fs::File::create(&files.log).during(|| format!("making {}", files.log.display()))?;
    let spawned = Command::new(PROGRAM)
        .args(["--blockdev", block, "--export", export, "--pidfile"])
        .arg(&files.pid)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .current_dir("/")
        // Ctrl-C at the terminal is for the container.
        .process_group(0)
        .spawn();
    match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HostError::Missing {
            program: PROGRAM.to_owned(),
            remedy: REMEDY,
        }),
        spawned => spawned.during(|| format!("starting {PROGRAM}")),
    }
}

/// What `--blockdev` and `--export` are told. The format is named, so that nothing is guessed, and no other file is
/// opened whatever the image's header says.
fn description(image: &Path, export: &Path, format: ImageFormat, read_only: bool) -> Result<[String; 2]> {
    let named = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| HostError::Image {
            path: path.to_owned(),
            problem: "its name is not UTF-8".to_owned(),
        })
    };
    let driver = match format {
        ImageFormat::Vhdx => "vhdx",
        ImageFormat::VhdDynamic => "vpc",
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Raw | ImageFormat::VhdFixed | ImageFormat::BlockDevice => "raw",
    };
    let discard = if read_only { "ignore" } else { "unmap" };
    let mut block = json!({
        "driver": driver,
        "node-name": "disk",
        "file": {
            "driver": "file",
            "filename": named(image)?,
            "discard": discard,
            "read-only": read_only,
            "auto-read-only": false,
        },
        "discard": discard,
        "read-only": read_only,
        "auto-read-only": false,
    });
    if format == ImageFormat::Qcow2 {
        block["backing"] = Value::Null;
    }
    let export = json!({
        "type": "fuse",
        "id": "disk",
        "node-name": "disk",
        "mountpoint": named(export)?,
        "writable": !read_only,
        "growable": false,
        // The loop driver reads as root, whoever runs the container.
        "allow-other": "off",
    });
    Ok([block.to_string(), export.to_string()])
}

impl Export {
    fn until_ready(&mut self, files: &Files, image: &Path, arguments: &[String]) -> Result<()> {
        let action = || format!("showing {} as a file with {PROGRAM}", image.display());
        let start = Instant::now();
        loop {
            if let Some(status) = self.daemon.try_wait().during(action)? {
                return Err(HostError::Refused {
                    action: action(),
                    reason: format!("{status}: {}", words(&files.log, arguments)),
                });
            }
            // It is written once everything else has been done.
            if fs::metadata(&files.pid).is_ok_and(|file| file.len() > 0) {
                return Ok(());
            }
            if start.elapsed() >= START_LIMIT {
                return Err(HostError::TimedOut {
                    action: action(),
                    limit_ms: u64::try_from(START_LIMIT.as_millis()).unwrap_or(u64::MAX),
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Ends the daemon, which writes out what it holds.
    fn end(&mut self) -> Result<()> {
        let action = || format!("ending {PROGRAM}");
        let start = Instant::now();
        let mut asked = false;
        while self.daemon.try_wait().during(action)?.is_none() {
            if start.elapsed() >= END_LIMIT {
                self.daemon.kill().during(action)?;
                self.daemon.wait().during(action)?;
                return Ok(());
            }
            // It is a child that has not been waited for, so the number is still its own.
            if !asked && let Some(pid) = i32::try_from(self.daemon.id()).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::TERM).during(action)?;
                asked = true;
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends the export and removes its files. The loop device on it has gone.
    pub(crate) fn stop(mut self, owner: &Owner, address: ScsiAddress) -> Result<()> {
        self.end()?;
        clear_files(&Files::of(owner, address))
    }
}

/// Ends exports at an address that another process started, and removes their files. What is absent counts as done.
pub(crate) fn clear(owner: &Owner, address: ScsiAddress) -> Result<()> {
    let files = Files::of(owner, address);
    // A daemon that its owner had just begun to start is not seen yet; without its file it gets nowhere. While the
    // file is a mount it stays, and its daemon is seen.
    let _ = files.remove();
    for daemon in daemons(&files.export)? {
        daemon.end(END_LIMIT)?;
    }
    clear_files(&files)
}

/// Whether anything of an export is left at an address.
pub(crate) fn is_there(owner: &Owner, address: ScsiAddress) -> Result<bool> {
    let export = owner.export(address);
    let files = Files::of(owner, address);
    let exists = |file: &Path| fs::symlink_metadata(file).is_ok();
    Ok(exists(&export) || exists(&files.log) || exists(&files.pid) || !daemons(&export)?.is_empty())
}

/// The running daemons that export to a file.
fn daemons(export: &Path) -> Result<Vec<Process>> {
    processes::of_program(PROGRAM, |words| {
        words
            .iter()
            .any(|word| mount_point_in(word).as_deref() == Some(export))
    })
}

/// Where an `--export` argument exports to.
fn mount_point_in(word: &OsString) -> Option<PathBuf> {
    let text = word.to_str().filter(|text| text.starts_with('{'))?;
    let export: Value = serde_json::from_str(text).ok()?;
    Some(export.get("mountpoint")?.as_str()?.into())
}

/// The addresses at which an owner has, or had, exports: from the files' names.
pub(crate) fn addresses(owner: &Owner) -> Result<Vec<ScsiAddress>> {
    let entries = match fs::read_dir(owner.exports()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.during(|| format!("reading {}", owner.exports().display()))?,
    };
    let address = |name: &str| {
        let (controller, lun) = name.split_once('-')?;
        Some(ScsiAddress {
            controller: controller.parse().ok()?,
            lun: lun.split('.').next()?.parse().ok()?,
        })
    };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| address(entry.file_name().to_str()?))
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Unmounts what a daemon that was killed left, and removes the files.
fn clear_files(files: &Files) -> Result<()> {
    while mountinfo::is_mounted(&files.export)? {
        match unmount(&files.export, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(error) => return Err(error).during(|| format!("unmounting {}", files.export.display())),
        }
    }
    files.remove()
}

/// The end of what the daemon said, without the arguments it repeats.
fn words(log: &Path, arguments: &[String]) -> String {
    let text = fs::read(log).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(WORDS)..];
    let text = String::from_utf8_lossy(tail).into_owned();
    let shorter = arguments
        .iter()
        .fold(text, |text, argument| text.replace(&format!(" {argument}:"), ""));
    shorter.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_recognised_by_the_file_it_exports() {
        let [block, export] = description(
            Path::new("/i/s.vhdx"),
            Path::new("/run/c/disks/0-1"),
            ImageFormat::Vhdx,
            false,
        )
        .unwrap();
        assert_eq!(
            mount_point_in(&export.into()),
            Some(PathBuf::from("/run/c/disks/0-1"))
        );
        assert_eq!(mount_point_in(&block.into()), None);
        assert_eq!(mount_point_in(&"--export".into()), None);
    }

    #[test]
    fn a_qcow2_image_may_open_no_other_file_and_nothing_writes_to_a_read_only_one() {
        let [block, export] =
            description(Path::new("/d"), Path::new("/e"), ImageFormat::Qcow2, true).unwrap();
        let (block, export): (Value, Value) = (
            serde_json::from_str(&block).unwrap(),
            serde_json::from_str(&export).unwrap(),
        );
        assert!(block.get("backing").is_some_and(Value::is_null), "{block}");
        assert_eq!(
            (&block["read-only"], &block["file"]["read-only"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(export["writable"], json!(false));
    }
}
