//! Images and devices, one at a time.

use std::{fs, process::Command};

use cofferdam_backend::{Backend, BackendError};
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{DiskKind, GuestRequest, HostRequest, ShareId},
};
use cofferdam_vm::{Guest, GuestError};

use crate::scene::{ADDRESS, Scene, succeed};

const OTHER: ScsiAddress = ScsiAddress {
    controller: 3,
    lun: 63,
};

/// Attaches, mounts, writes, and gives everything back; then again, to see what was written.
async fn round_trip(name: &str, format: &str, options: &[&str]) {
    let scene = Scene::new();
    let image = scene.image(name, &[("before", "b")], format, options);
    let point = scene.path("bundle/m");
    scene.attach(&image, false).await.unwrap();
    assert_eq!(scene.host.devices().await.unwrap().scsi.len(), 1);
    scene.mount(&point, false).await.unwrap();
    assert_eq!(fs::read_to_string(point.join("before")).unwrap(), "b");
    fs::write(point.join("after"), "a").unwrap();
    scene.unmount(&point).await.unwrap();
    scene.detach().await.unwrap();
    scene.assert_nothing_left();
    assert!(scene.host.devices().await.unwrap().is_empty());

    scene.attach(&image, true).await.unwrap();
    scene.mount(&point, true).await.unwrap();
    assert_eq!(fs::read_to_string(point.join("after")).unwrap(), "a");
    assert!(fs::write(point.join("more"), "").is_err());
    scene.unmount(&point).await.unwrap();
    scene.detach().await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn what_is_written_to_a_raw_image_is_there_the_next_time() {
    round_trip("d.raw", "raw", &[]).await;
}

#[tokio::test]
async fn what_is_written_to_a_fixed_vhd_is_there_the_next_time() {
    round_trip("d.vhd", "vpc", &["-o", "subformat=fixed,force_size=on"]).await;
}

#[tokio::test]
async fn what_is_written_to_a_dynamic_vhd_is_there_the_next_time() {
    round_trip("d.vhd", "vpc", &["-o", "subformat=dynamic,force_size=on"]).await;
}

#[tokio::test]
async fn what_is_written_to_a_vhdx_is_there_the_next_time() {
    round_trip("d.vhdx", "vhdx", &[]).await;
}

#[tokio::test]
async fn what_is_written_to_a_qcow2_is_there_the_next_time() {
    round_trip("d.qcow2", "qcow2", &[]).await;
}

#[tokio::test]
async fn a_fixed_vhds_footer_is_no_part_of_the_disk() {
    let scene = Scene::new();
    let options = ["-o", "subformat=fixed,force_size=on"];
    let image = scene.image("d.vhd", &[], "vpc", &options);
    scene.attach(&image, true).await.unwrap();
    let device = fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .find(|entry| {
            fs::read_to_string(entry.path().join("loop/backing_file"))
                .is_ok_and(|file| file.trim() == image.to_str().unwrap())
        })
        .unwrap();
    let sectors: u64 = fs::read_to_string(device.path().join("size"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(sectors * 512, fs::metadata(&image).unwrap().len() - 512);
    assert_eq!(fs::read_to_string(device.path().join("ro")).unwrap().trim(), "1");
    scene.detach().await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn an_image_has_one_writer_or_any_number_of_readers() {
    let (one, two) = (Scene::new(), Scene::new());
    for (name, format) in [("d.raw", "raw"), ("d.vhdx", "vhdx")] {
        let image = one.image(name, &[], format, &[]);
        one.attach(&image, true).await.unwrap();
        two.attach(&image, true).await.unwrap();
        let writer = two.attach_at(OTHER, &image, DiskKind::Virtual, false).await;
        assert!(writer.is_err(), "{name}");
        one.detach().await.unwrap();
        two.detach().await.unwrap();
        one.attach(&image, false).await.unwrap();
        let reader = two.attach(&image, true).await.unwrap_err().to_string();
        assert!(
            reader.contains("writes to it") || reader.contains("lock"),
            "{reader}"
        );
        one.detach().await.unwrap();
    }
    one.assert_nothing_left();
    two.assert_nothing_left();
}

#[tokio::test]
async fn a_block_device_is_taken_as_it_is() {
    let scene = Scene::new();
    let image = scene.image("d.raw", &[("there", "t")], "raw", &[]);
    let output = succeed(Command::new("losetup").args(["--find", "--show"]).arg(&image));
    let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let point = scene.path("bundle/m");
    let kind = DiskKind::Physical;
    let attached = scene.attach_at(ADDRESS, device.as_ref(), kind, false).await;
    let as_image = scene
        .attach_at(OTHER, device.as_ref(), DiskKind::Virtual, false)
        .await;
    let mounted = scene.mount(&point, false).await;
    let text = fs::read_to_string(point.join("there"));
    let unmounted = scene.unmount(&point).await;
    let detached = scene.detach().await;
    succeed(Command::new("losetup").args(["--detach", &device]));
    attached.unwrap();
    mounted.unwrap();
    assert_eq!(text.unwrap(), "t");
    unmounted.unwrap();
    detached.unwrap();
    let as_image = as_image.unwrap_err().to_string();
    assert!(as_image.contains("not a disk image"), "{as_image}");
    let as_device = scene.attach_at(ADDRESS, &image, kind, false).await;
    let as_device = as_device.unwrap_err().to_string();
    assert!(as_device.contains("no block device"), "{as_device}");
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_disk_that_is_mounted_stays_and_its_holder_is_named() {
    let scene = Scene::new();
    let image = scene.image("d.vhdx", &[], "vhdx", &[]);
    let point = scene.path("bundle/m");
    scene.attach(&image, false).await.unwrap();
    scene.mount(&point, false).await.unwrap();
    let error = scene.detach().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("mounted on {}", point.display())),
        "{error}"
    );
    fs::write(point.join("still"), "works").unwrap();
    scene.unmount(&point).await.unwrap();
    scene.detach().await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn every_removal_of_what_is_absent_succeeds() {
    let scene = Scene::new();
    scene.detach().await.unwrap();
    scene.unmount(&scene.path("bundle/m")).await.unwrap();
    scene.unmount(&scene.path("no/such/m")).await.unwrap();
    let combined = GuestRequest::RemoveCombinedLayers {
        root: scene.path("bundle/rootfs").to_str().unwrap().to_owned(),
    };
    Guest::perform(&scene.host, &combined).await.unwrap();
    let file = scene.path("gone");
    Backend::perform(&scene.host, &HostRequest::DeleteFile { path: file })
        .await
        .unwrap();
    scene.host.stop().await.unwrap();
    scene.host.stop().await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn what_only_a_vm_has_is_unsupported_by_name() {
    let scene = Scene::new();
    let image = scene.image("d.raw", &[], "raw", &[]);
    for request in [
        HostRequest::AttachVpmem {
            index: 0,
            path: image.clone(),
        },
        HostRequest::AddShare {
            share: ShareId(1),
            path: scene.path("bundle"),
            read_only: true,
            allowed_names: None,
        },
    ] {
        let error = Backend::perform(&scene.host, &request).await.unwrap_err();
        assert!(matches!(error, BackendError::Unsupported(_)), "{error}");
    }
    let request = GuestRequest::MountVpmem {
        index: 0,
        guest_path: "/x".to_owned(),
    };
    let error = Guest::perform(&scene.host, &request).await.unwrap_err();
    assert!(matches!(error, GuestError::Unsupported(_)), "{error}");
    assert_eq!(scene.host.limits().vpmem_devices, 0);
}

#[tokio::test]
async fn a_directory_that_was_there_stays_there() {
    let scene = Scene::new();
    let image = scene.image("d.raw", &[("shown", "")], "raw", &[]);
    let point = scene.path("images/point");
    fs::create_dir(&point).unwrap();
    fs::write(point.join("covered"), "c").unwrap();
    scene.attach(&image, true).await.unwrap();
    scene.mount(&point, true).await.unwrap();
    assert!(point.join("shown").exists() && !point.join("covered").exists());
    scene.unmount(&point).await.unwrap();
    scene.detach().await.unwrap();
    assert_eq!(fs::read_to_string(point.join("covered")).unwrap(), "c");
    scene.assert_nothing_left();
}

#[tokio::test]
async fn stopping_the_host_frees_what_was_not_detached() {
    let scene = Scene::new();
    let image = scene.image("d.vhdx", &[], "vhdx", &[]);
    scene.attach(&image, false).await.unwrap();
    scene.host.stop().await.unwrap();
    scene.host.exited().await;
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_layer_with_a_hash_tree_is_checked_or_refused_and_never_mounted_unchecked() {
    let scene = Scene::new();
    let image = scene.image("d.raw", &[("f", "checked\n")], "raw", &[]);
    let size = fs::metadata(&image).unwrap().len();
    let mut format = Command::new("veritysetup");
    format.args(["format", "--data-block-size=4096", "--hash-block-size=4096"]);
    format.args([
        format!("--data-blocks={}", size / 4096),
        format!("--hash-offset={size}"),
    ]);
    succeed(format.args([&image, &image]));
    let point = scene.path("bundle/m");
    scene.attach(&image, true).await.unwrap();
    let outcome = scene.mount(&point, true).await;
    // Not every kernel has a device mapper; without one the layer cannot be checked, and is not to be had.
    if fs::exists("/dev/mapper/control").unwrap() {
        outcome.unwrap();
        assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "checked\n");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(point.to_str().unwrap()));
        assert!(mount.unwrap().contains(" /dev/dm-"), "{mount:?}");
        scene.unmount(&point).await.unwrap();
    } else {
        let said = outcome.unwrap_err().to_string();
        assert!(
            said.contains("dm-verity of /dev/loop") && said.contains("no device mapper"),
            "{said}"
        );
    }
    scene.detach().await.unwrap();
    scene.assert_nothing_left();
    assert!(scene.host.devices().await.unwrap().is_empty());
}
