//! The backend against the real `qemu-system-x86_64`, without a guest: the machine waits at its first instruction.
//!
//! These tests fail if QEMU is missing: `cargo xtask setup` installs it.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use cofferdam_backend::{Backend, BackendError};
use cofferdam_image::{ImageFormat, probe};
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{DiskKind, HostRequest, ShareId},
};
use cofferdam_qemu::{Accelerator, QemuBackend, QemuConfig, VsockDevice};
use tempfile::TempDir;

/// Devices alone: nothing runs in the machine.
fn machine() -> QemuConfig {
    QemuConfig {
        memory_bytes: 64 << 20,
        accelerator: Accelerator::Tcg,
        vsock: VsockDevice::None,
        ..QemuConfig::default()
    }
}

async fn started(config: QemuConfig) -> QemuBackend {
    let vm = QemuBackend::new(config).expect("prepared");
    vm.start()
        .await
        .expect("QEMU starts; is qemu-system-x86_64 installed?");
    vm
}

fn scratch() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn raw_image(dir: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = dir.join(name);
    File::create(&path)
        .expect("created")
        .set_len(bytes)
        .expect("sized");
    path
}

/// An image made by `qemu-img`.
fn image(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new("qemu-img")
        .arg("create")
        .arg("-q")
        .args(options)
        .arg(&path)
        .arg("8M")
        .status();
    assert!(
        made.expect("qemu-img is installed").success(),
        "qemu-img makes {name}"
    );
    path
}

fn attach(controller: u8, lun: u8, path: &Path, read_only: bool) -> HostRequest {
    HostRequest::AttachScsi {
        address: ScsiAddress { controller, lun },
        path: path.to_owned(),
        kind: DiskKind::Virtual,
        read_only,
    }
}

fn detach(controller: u8, lun: u8) -> HostRequest {
    HostRequest::DetachScsi {
        address: ScsiAddress { controller, lun },
    }
}

async fn assert_empty(vm: &QemuBackend) {
    let devices = vm.devices().await.expect("listed");
    assert!(devices.is_empty(), "{devices:?}");
}

#[tokio::test]
async fn every_image_format_goes_in_and_out() {
    let dir = scratch();
    let vm = started(machine()).await;
    let images = [
        (raw_image(dir.path(), "a.raw", 8 << 20), ImageFormat::Raw),
        (image(dir.path(), "b.qcow2", &["-f", "qcow2"]), ImageFormat::Qcow2),
        (image(dir.path(), "c.vhdx", &["-f", "vhdx"]), ImageFormat::Vhdx),
        (
            image(dir.path(), "d.vhd", &["-f", "vpc"]),
            ImageFormat::VhdDynamic,
        ),
        (
            image(
                dir.path(),
                "e.vhd",
                &["-f", "vpc", "-o", "subformat=fixed,force_size"],
            ),
            ImageFormat::VhdFixed,
        ),
    ];
    for (path, format) in &images {
        let facts = probe(path).expect("read");
        assert_eq!(
            (facts.format, &facts.problem),
            (*format, &None),
            "{}",
            path.display()
        );
        for read_only in [true, false] {
            let begun = Instant::now();
            vm.perform(&attach(0, 7, path, read_only))
                .await
                .expect("attached");
            let attached = begun.elapsed();
            let devices = vm.devices().await.expect("listed");
            assert_eq!(
                devices.scsi,
                BTreeSet::from([ScsiAddress {
                    controller: 0,
                    lun: 7
                }])
            );
            assert!(devices.leftovers.is_empty(), "{devices:?}");
            let begun = Instant::now();
            vm.perform(&detach(0, 7)).await.expect("detached");
            println!(
                "{format}, read-only {read_only}: in {attached:?}, out {:?}",
                begun.elapsed()
            );
            assert_empty(&vm).await;
        }
    }
    vm.stop().await.expect("stopped");
}

#[tokio::test]
async fn sizes_agree_with_what_qemu_itself_reads() {
    let dir = scratch();
    for (name, options) in [
        ("a.qcow2", &["-f", "qcow2"][..]),
        ("b.vhdx", &["-f", "vhdx"]),
        ("c.vhd", &["-f", "vpc", "-o", "force_size"]),
        ("d.vhd", &["-f", "vpc", "-o", "subformat=fixed,force_size"]),
    ] {
        let facts = probe(&image(dir.path(), name, options)).expect("read");
        assert_eq!(facts.virtual_size_bytes, 8 << 20, "{name}: {facts:?}");
    }
}

#[tokio::test]
async fn removal_of_what_is_not_there_is_no_error() {
    let vm = started(machine()).await;
    vm.perform(&detach(3, 63)).await.expect("harmless");
    vm.perform(&HostRequest::RemoveShare { share: ShareId(4) })
        .await
        .expect("harmless");
    vm.perform(&HostRequest::DetachVpmem { index: 0 })
        .await
        .expect("harmless");
    vm.perform(&HostRequest::DeleteFile {
        path: "/nonexistent/file".into(),
    })
    .await
    .expect("harmless");
    vm.stop().await.expect("stopped");
}

#[tokio::test]
async fn all_256_places_fill_side_by_side_and_empty_again() {
    let dir = scratch();
    let path = raw_image(dir.path(), "layer.raw", 1 << 20);
    let vm = std::sync::Arc::new(started(machine()).await);
    let places = || (0..4).flat_map(|controller| (0..64).map(move |lun| (controller, lun)));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (controller, lun) in places() {
        let (vm, request) = (std::sync::Arc::clone(&vm), attach(controller, lun, &path, true));
        tasks.spawn(async move { vm.perform(&request).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic").expect("attached");
    }
    println!("256 disks in: {:?}", begun.elapsed());
    let devices = vm.devices().await.expect("listed");
    assert_eq!((devices.scsi.len(), devices.leftovers.len()), (256, 0));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (controller, lun) in places() {
        let vm = std::sync::Arc::clone(&vm);
        tasks.spawn(async move { vm.perform(&detach(controller, lun)).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic").expect("detached");
    }
    println!("256 disks out: {:?}", begun.elapsed());
    assert_empty(&vm).await;
    vm.stop().await.expect("stopped");
}

#[tokio::test]
async fn taken_place_is_refused_and_its_holder_stays() {
    let dir = scratch();
    let (one, two) = (
        raw_image(dir.path(), "1.raw", 1 << 20),
        raw_image(dir.path(), "2.raw", 1 << 20),
    );
    let vm = started(machine()).await;
    vm.perform(&attach(1, 1, &one, false)).await.expect("attached");
    let error = vm.perform(&attach(1, 1, &two, false)).await.expect_err("taken");
    assert!(matches!(error, BackendError::Refused { .. }), "{error}");
    assert_eq!(vm.devices().await.expect("listed").scsi.len(), 1);
    vm.perform(&detach(1, 1)).await.expect("detached");
    assert_empty(&vm).await;
}

#[tokio::test]
async fn refused_attach_leaves_nothing() {
    let dir = scratch();
    let path = raw_image(dir.path(), "writer.raw", 1 << 20);
    let vm = started(machine()).await;
    vm.perform(&attach(0, 0, &path, false)).await.expect("attached");
    // The device, not the block node, is refused: two writers on one file.
    let error = vm
        .perform(&attach(0, 1, &path, false))
        .await
        .expect_err("one writer only")
        .to_string();
    assert!(error.contains("lock"), "{error}");
    let devices = vm.devices().await.expect("listed");
    assert_eq!(
        (devices.scsi.len(), devices.leftovers.len()),
        (1, 0),
        "{devices:?}"
    );
    // The file is gone meanwhile: QEMU is not even asked.
    let error = vm
        .perform(&attach(0, 2, &dir.path().join("none.raw"), false))
        .await
        .expect_err("no file");
    assert!(matches!(error, BackendError::Io { .. }), "{error}");
}

#[tokio::test]
async fn damaged_or_foreign_image_is_refused_in_plain_words() {
    let dir = scratch();
    let vm = started(machine()).await;
    let damaged = image(dir.path(), "damaged.vhdx", &["-f", "vhdx"]);
    let file = File::options().write(true).open(&damaged).expect("opened");
    for header in [64 << 10, 128 << 10] {
        file.write_all_at(b"junk", header + 100).expect("written");
    }
    let base = image(dir.path(), "base.qcow2", &["-f", "qcow2"]);
    let backed = image(
        dir.path(),
        "backed.qcow2",
        &["-f", "qcow2", "-F", "qcow2", "-b", base.to_str().expect("UTF-8")],
    );
    let pipe = dir.path().join("pipe.raw");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("mkfifo runs")
            .success()
    );
    for (path, words) in [
        (damaged, "headers are damaged"),
        (backed, "backing file"),
        (raw_image(dir.path(), "not.vhd", 4096), "holds none of them"),
        (raw_image(dir.path(), "empty.raw", 0), "empty"),
        (pipe, "neither a regular file"),
    ] {
        let error = vm
            .perform(&attach(0, 0, &path, true))
            .await
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains(words) && error.contains(path.to_str().expect("UTF-8")),
            "{error}"
        );
    }
    assert_empty(&vm).await;
}

#[tokio::test]
async fn image_file_is_no_physical_disk() {
    let dir = scratch();
    let vm = started(machine()).await;
    let path = raw_image(dir.path(), "a.raw", 4096);
    let address = ScsiAddress {
        controller: 0,
        lun: 0,
    };
    let request = HostRequest::AttachScsi {
        address,
        path,
        kind: DiskKind::Physical,
        read_only: false,
    };
    let error = vm.perform(&request).await.expect_err("refused").to_string();
    assert!(error.contains("no block device"), "{error}");
}

#[tokio::test]
async fn shares_come_and_go() {
    let dir = scratch();
    let vm = started(machine()).await;
    let add = |share| HostRequest::AddShare {
        share: ShareId(share),
        path: dir.path().to_owned(),
        read_only: true,
        allowed_names: None,
    };
    vm.perform(&add(1)).await.expect("shared");
    vm.perform(&add(2)).await.expect("shared");
    assert!(vm.perform(&add(2)).await.is_err(), "the name is taken");
    assert_eq!(
        vm.devices().await.expect("listed").shares,
        BTreeSet::from([ShareId(1), ShareId(2)])
    );
    for share in [1, 2, 2] {
        vm.perform(&HostRequest::RemoveShare {
            share: ShareId(share),
        })
        .await
        .expect("withdrawn");
    }
    assert_empty(&vm).await;
}

#[tokio::test]
async fn death_is_noticed_at_once_by_all_who_wait_and_all_who_come_later() {
    let vm = std::sync::Arc::new(started(machine()).await);
    let waiting = tokio::spawn({
        let vm = std::sync::Arc::clone(&vm);
        async move { vm.exited().await }
    });
    let pid = vm.process_id().expect("started").to_string();
    let begun = Instant::now();
    assert!(
        Command::new("kill")
            .args(["-9", &pid])
            .status()
            .expect("kill runs")
            .success()
    );
    let exit = waiting.await.expect("no panic");
    println!("death noticed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(
        (exit.expected, exit.status.as_str()),
        (false, "killed by signal 9")
    );
    assert!(matches!(vm.devices().await, Err(BackendError::Gone(_))));
    assert!(matches!(
        vm.perform(&detach(0, 0)).await,
        Err(BackendError::Gone(_))
    ));
    assert_eq!(vm.stop().await.expect("stopped"), exit);
    assert!(!vm.runtime_dir().exists());
}

#[tokio::test]
async fn qemus_own_words_tell_why_it_did_not_start() {
    let mut config = machine();
    config.kernel = Some("/nonexistent/vmlinux".into());
    let vm = QemuBackend::new(config).expect("prepared");
    let Err(BackendError::Gone(exit)) = vm.start().await else {
        panic!("no such kernel")
    };
    assert!(exit.message.contains("/nonexistent/vmlinux"), "{exit}");
    assert_eq!(exit.status, "exited with status 1");
    assert!(!vm.stop().await.expect("stopped").expected);
}

#[tokio::test]
async fn missing_program_is_named_and_nothing_waits_for_ever() {
    let vm = QemuBackend::new(QemuConfig {
        program: "/nonexistent/qemu".into(),
        ..machine()
    })
    .expect("prepared");
    let error = vm.start().await.expect_err("no such program").to_string();
    assert!(error.contains("/nonexistent/qemu"), "{error}");
    assert!(vm.exited().await.status.contains("could not be started"));
    vm.stop().await.expect("harmless");
    assert!(!vm.runtime_dir().exists());
}

#[tokio::test]
async fn stopping_frees_everything_and_can_be_repeated() {
    let vm = started(machine()).await;
    let (pid, dir) = (vm.process_id().expect("started"), vm.runtime_dir().to_owned());
    let begun = Instant::now();
    let exit = vm.stop().await.expect("stopped");
    println!("stopped after {:?}", begun.elapsed());
    assert!(
        exit.expected && exit.status.starts_with("exited with status 0"),
        "{exit}"
    );
    assert_eq!(vm.stop().await.expect("harmless"), exit);
    assert!(!Path::new(&format!("/proc/{pid}")).exists() && !dir.exists());
    let never = QemuBackend::new(machine()).expect("prepared");
    assert!(never.stop().await.expect("harmless").expected);
    assert!(never.start().await.is_err());
}

#[tokio::test]
async fn dropping_it_leaves_no_process_and_no_directory() {
    let vm = started(machine()).await;
    let (pid, dir) = (vm.process_id().expect("started"), vm.runtime_dir().to_owned());
    drop(vm);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "QEMU still lives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!dir.exists());
}

#[tokio::test]
async fn failed_vm_leaves_its_logs_where_asked() {
    let base = scratch();
    let mut config = machine();
    config.kernel = Some("/nonexistent/vmlinux".into());
    config.runtime_dir = Some(base.path().to_owned());
    config.keep_on_failure = true;
    let vm = QemuBackend::new(config).expect("prepared");
    vm.start().await.expect_err("no such kernel");
    vm.stop().await.expect("stopped");
    let log = std::fs::read_to_string(vm.runtime_dir().join("qemu.log")).expect("kept");
    assert!(log.contains("/nonexistent/vmlinux"), "{log}");
    let line = std::fs::read_to_string(vm.runtime_dir().join("command-line")).expect("kept");
    assert!(line.contains("-nodefaults"), "{line}");
}

#[tokio::test]
async fn persistent_memory_goes_in_and_says_honestly_that_it_stays() {
    let dir = scratch();
    let mut config = machine();
    config.limits.vpmem_devices = 4;
    let vm = started(config).await;
    let path = image(
        dir.path(),
        "layer.vhd",
        &["-f", "vpc", "-o", "subformat=fixed,force_size"],
    );
    vm.perform(&HostRequest::AttachVpmem {
        index: 2,
        path: path.clone(),
    })
    .await
    .expect("attached");
    assert_eq!(vm.devices().await.expect("listed").vpmem, BTreeSet::from([2]));
    let error = vm
        .perform(&HostRequest::DetachVpmem { index: 2 })
        .await
        .expect_err("QEMU cannot");
    println!("{error}");
    assert!(matches!(error, BackendError::Unsupported(_)), "{error}");
    assert_eq!(
        vm.devices().await.expect("listed").vpmem,
        BTreeSet::from([2]),
        "told as it is"
    );
    let error = vm
        .perform(&HostRequest::AttachVpmem { index: 4, path })
        .await
        .expect_err("only four");
    assert!(
        error.to_string().contains("4 persistent-memory devices"),
        "{error}"
    );
    vm.stop().await.expect("stopped");
}
