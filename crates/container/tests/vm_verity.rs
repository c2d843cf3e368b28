//! Layers that the guest checks block by block (dm-verity): what they must be, what they must not be, and that nothing of
//! the checking stays.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod real_pod;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use cofferdam_backend::Backend;
use cofferdam_container::Allocation;
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{DiskKind, HostRequest},
};
use cofferdam_protocol::settings::{
    MappedVirtualDisk, ModificationRequest, Resource, ScsiDevice, VerityInfo,
};
use real_pod::{Pod, required, succeed};
use serde_json::Value;

const AT: ScsiAddress = ScsiAddress {
    controller: 1,
    lun: 9,
};

/// A layer's folder, its raw file system, and the root digest of the tree behind that.
struct Checked {
    folder: PathBuf,
    raw: PathBuf,
    root: String,
}

impl Checked {
    /// A test layer with a tree behind its file system, in a fixed VHD as before.
    fn of(pod: &Pod, layer: &str) -> Self {
        let raw = raw_of(pod, layer);
        let size = fs::metadata(&raw).unwrap().len();
        let mut format = Command::new("veritysetup");
        format.args(["format", "--data-block-size=4096", "--hash-block-size=4096"]);
        format.args([
            format!("--data-blocks={}", size / 4096),
            format!("--hash-offset={size}"),
        ]);
        let said = succeed(format.args([&raw, &raw]));
        let root = said.lines().find_map(|line| line.strip_prefix("Root hash:"));
        let checked = Self {
            folder: pod.directory(&format!("checked-{layer}"), &[]),
            root: root.unwrap().trim().to_owned(),
            raw,
        };
        checked.pack();
        checked
    }

    fn image(&self) -> PathBuf {
        self.folder.join("layer.vhd")
    }

    fn pack(&self) {
        fixed_vhd(&self.raw, &self.image());
    }

    /// Changes a byte of the file system.
    fn change(&self, at: u64) {
        let file = File::options().read(true).write(true).open(&self.raw).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
        self.pack();
    }
}

fn fixed_vhd(raw: &Path, image: &Path) {
    let options = ["-o", "subformat=fixed,force_size=on"];
    succeed(
        Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "vpc"])
            .args(options)
            .args([raw, image]),
    );
}

/// The file system of a test layer, without what is around it.
fn raw_of(pod: &Pod, layer: &str) -> PathBuf {
    let raw = pod.path(&format!("{layer}.raw"));
    let image = required("COFFERDAM_TEST_LAYERS").join(layer).join("layer.vhd");
    fs::copy(&image, &raw).unwrap();
    let size = fs::metadata(&raw).unwrap().len() - 512;
    File::options()
        .write(true)
        .open(&raw)
        .unwrap()
        .set_len(size)
        .unwrap();
    raw
}

/// The base layer's content as EROFS.
fn erofs_base(pod: &Pod) -> PathBuf {
    let (raw, tree, image) = (
        raw_of(pod, "base"),
        pod.directory("base.tree", &[]),
        pod.path("base.erofs"),
    );
    let dump = format!("rdump / {}", tree.display());
    succeed(Command::new("debugfs").args(["-R", &dump]).arg(raw));
    succeed(Command::new("mkfs.erofs").args([&image, &tree]));
    let folder = pod.directory("erofs-base", &[]);
    fixed_vhd(&image, &folder.join("layer.vhd"));
    folder
}

/// A container on these layers, the topmost first.
fn on(pod: &Pod, layers: &[&Path], script: &str) -> Value {
    let mut spec = pod.layered("scratch", script, &[]);
    let folders = spec["windows"]["layerFolders"].as_array_mut().unwrap();
    let scratch = folders.pop().unwrap();
    *folders = layers
        .iter()
        .map(|folder| folder.to_str().unwrap().into())
        .collect();
    folders.push(scratch);
    spec
}

/// Where the guest's mounts come from.
async fn sources(pod: &Pod) -> Vec<(String, String)> {
    let mounts = pod.vm.bridge().guest_mounts().await.unwrap();
    let mounts = mounts.listed.into_iter();
    mounts.map(|mount| (mount.source, mount.fs_type)).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_container_runs_on_erofs_below_a_layer_that_is_checked() {
    let pod = Pod::boot().await;
    let (base, upper) = (erofs_base(&pod), Checked::of(&pod, "upper"));
    let plain = pod.layered("scratch", "cat /etc/issue; ls /etc", &[]);
    let expected = pod.run("plain", &plain).await;
    let spec = on(
        &pod,
        &[&upper.folder, &base],
        "cat /etc/issue; ls /etc; echo w > /etc/issue",
    );
    for round in ["first", "second"] {
        assert_eq!(
            pod.run(
                round,
                &on(&pod, &[&upper.folder, &base], "cat /etc/issue; ls /etc")
            )
            .await,
            expected
        );
        pod.assert_empty(round).await;
    }
    let plan = pod.plan(&spec);
    let mut allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
    let found = sources(&pod).await;
    let has = |start: &str, kind: &str| {
        found
            .iter()
            .any(|(source, fs_type)| source.starts_with(start) && fs_type == kind)
    };
    assert!(has("/dev/dm-", "ext4") && has("/dev/sd", "erofs"), "{found:?}");
    allocation.release().await.unwrap();
    pod.assert_empty("released").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_layer_whose_blocks_were_changed_is_not_mounted_and_leaves_nothing() {
    let pod = Pod::boot().await;
    let upper = Checked::of(&pod, "upper");
    let base = required("COFFERDAM_TEST_LAYERS").join("base");
    // The volume's name, in the superblock.
    upper.change(1024 + 0x78);
    let plan = pod.plan(&on(&pod, &[&upper.folder, &base], "true"));
    let outcome = Allocation::allocate(pod.vm.driver(), &plan).await;
    let error = outcome.err().unwrap();
    let mut said = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(next) = cause {
        said = format!("{said}: {next}");
        cause = next.source();
    }
    assert!(
        said.contains("dm-verity of /dev/sd") && said.contains("changed"),
        "{said}"
    );
    pod.assert_empty("refused").await;
    upper.change(1024 + 0x78);
    pod.run("mended", &on(&pod, &[&upper.folder, &base], "cat /etc/issue"))
        .await;
    pod.assert_empty("mended").await;
    pod.shut_down().await;
}

/// A removable disk of the VM, and what the guest says of mounting it.
struct Disk<'a> {
    pod: &'a Pod,
}

impl<'a> Disk<'a> {
    async fn attach(pod: &'a Pod, image: &Path, read_only: bool) -> Self {
        let request = HostRequest::AttachScsi {
            address: AT,
            path: image.to_owned(),
            kind: DiskKind::Virtual,
            read_only,
        };
        pod.backend.perform(&request).await.unwrap();
        Self { pod }
    }

    fn settings(path: &str, read_only: bool, pin: Option<&str>) -> MappedVirtualDisk {
        MappedVirtualDisk {
            mount_path: path.to_owned(),
            controller: AT.controller,
            lun: AT.lun,
            read_only,
            verity_info: pin.map(|root| VerityInfo {
                root_digest: root.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    async fn mount(&self, path: &str, read_only: bool, pin: Option<&str>) -> Result<(), String> {
        let settings = Resource::MappedVirtualDisk(Self::settings(path, read_only, pin));
        let outcome = self
            .pod
            .vm
            .bridge()
            .modify(ModificationRequest::add(settings))
            .await;
        outcome.map_err(|error| error.to_string())
    }

    async fn unmount(&self, path: &str) {
        let settings = Resource::MappedVirtualDisk(Self::settings(path, true, None));
        let request = ModificationRequest::remove(settings);
        self.pod.vm.bridge().modify(request).await.unwrap();
    }

    async fn detach(self) {
        let device = ScsiDevice {
            controller: AT.controller,
            lun: AT.lun,
        };
        let request = ModificationRequest::remove(Resource::ScsiDevice(device));
        self.pod.vm.bridge().modify(request).await.unwrap();
        let detach = HostRequest::DetachScsi { address: AT };
        self.pod.backend.perform(&detach).await.unwrap();
    }
}

#[track_caller]
fn refused(outcome: Result<(), String>, words: &[&str]) {
    let said = outcome.unwrap_err();
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_layer_must_have_the_root_that_it_is_held_to_whoever_comes_first() {
    let pod = Pod::boot().await;
    let upper = Checked::of(&pod, "upper");
    let wrong = "00".repeat(32);
    let disk = Disk::attach(&pod, &upper.image(), true).await;
    refused(
        disk.mount("/tmp/a", true, Some(&wrong)).await,
        &["dm-verity of /dev/sd", &wrong, &upper.root],
    );
    refused(
        disk.mount("/tmp/a", true, Some("12")).await,
        &["64 hexadecimal digits"],
    );
    pod.vm
        .bridge()
        .guest_mounts()
        .await
        .map(|mounts| assert!(mounts.is_empty(), "{mounts:?}"))
        .unwrap();
    disk.mount("/tmp/a", true, None).await.unwrap();
    refused(
        disk.mount("/tmp/b", true, Some(&wrong)).await,
        &["dm-verity of SCSI disk 1:9", &wrong],
    );
    disk.mount("/tmp/b", true, Some(&upper.root)).await.unwrap();
    refused(disk.mount("/tmp/c", false, None).await, &["hash tree"]);
    // A second mount on one path takes nothing from the first.
    refused(
        disk.mount("/tmp/b", true, None).await,
        &["/tmp/b", "mounted there already"],
    );
    assert_eq!(
        sources(&pod)
            .await
            .iter()
            .filter(|(source, _)| source.starts_with("/dev/dm-"))
            .count(),
        3
    );
    disk.unmount("/tmp/a").await;
    disk.unmount("/tmp/b").await;
    refused(
        disk.mount("/tmp/c", false, None).await,
        &["hash tree", "read-only"],
    );
    disk.detach().await;
    pod.assert_empty("with a tree").await;

    let plain = required("COFFERDAM_TEST_LAYERS").join("upper/layer.vhd");
    let disk = Disk::attach(&pod, &plain, true).await;
    refused(
        disk.mount("/tmp/a", true, Some(&upper.root)).await,
        &["has no hash tree"],
    );
    disk.mount("/tmp/a", true, None).await.unwrap();
    refused(
        disk.mount("/tmp/b", true, Some(&upper.root)).await,
        &["has no hash tree"],
    );
    disk.unmount("/tmp/a").await;
    disk.detach().await;
    pod.assert_empty("without a tree").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn layers_in_persistent_memory_are_checked_too() {
    let pod = Pod::boot_with(|config| config.limits.vpmem_devices = 4).await;
    let (base, upper) = (erofs_base(&pod), Checked::of(&pod, "upper"));
    let plan = pod.plan(&on(&pod, &[&upper.folder, &base], "cat /etc/issue"));
    let mut allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
    let found = sources(&pod).await;
    let has = |start: &str, kind: &str| {
        found
            .iter()
            .any(|(source, fs_type)| source.starts_with(start) && fs_type == kind)
    };
    assert!(has("/dev/dm-", "ext4") && has("/dev/pmem", "erofs"), "{found:?}");
    assert!(!pod.run_in("memory", &plan).await.is_empty());
    // QEMU keeps such devices until the VM ends; the guest has let go of them.
    let _ = allocation.release().await;
    let mounts = pod.vm.bridge().guest_mounts().await.unwrap();
    assert!(mounts.is_empty(), "{mounts:?}");
    pod.shut_down().await;
}
