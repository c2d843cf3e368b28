//! What the fake's host and guest refuse, as a hypervisor and a kernel would.

use std::path::PathBuf;

use cofferdam_backend::{Backend, BackendError, fake::*};
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{GuestRequest, HostRequest, ShareId},
};

use crate::rig::{DISK, OTHER, boot};

#[tokio::test]
async fn a_disk_lives_through_attach_mount_unmount_eject_detach() {
    let b = boot().await;
    b.attach(DISK, "/a").await.unwrap();
    b.mount(DISK, "/m").await.unwrap();
    assert_eq!(b.vm.guest_mounts()["/m"].source, MountSource::Scsi(DISK));
    assert_eq!(b.vm.devices().await.unwrap().scsi.len(), 1);
    b.unmount(DISK, "/m").await.unwrap();
    b.eject(DISK).await.unwrap();
    b.detach(DISK).await.unwrap();
    // Every removal is harmless when repeated.
    b.unmount(DISK, "/m").await.unwrap();
    b.eject(DISK).await.unwrap();
    b.detach(DISK).await.unwrap();
    assert!(b.vm.guest_mounts().is_empty() && b.vm.host_devices().is_empty());
    assert_eq!((b.vm.attach_count(), b.vm.detach_count()), (1, 1));
    assert_eq!(b.vm.violations(), [""; 0]);
    assert!(b.vm.steps().iter().all(|step| step.outcome == Outcome::Done));
}

#[tokio::test]
async fn the_host_refuses_what_a_hypervisor_would_and_notes_it() {
    let b = boot().await;
    let mut seen = 0;
    b.attach(DISK, "/a").await.unwrap();
    b.attach(DISK, "/b").await.unwrap_err();
    b.attach(
        ScsiAddress {
            controller: 4,
            lun: 0,
        },
        "/b",
    )
    .await
    .unwrap_err();
    b.attach(
        ScsiAddress {
            controller: 0,
            lun: 64,
        },
        "/b",
    )
    .await
    .unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 3);
    // A locked image is bad luck, not a broken rule.
    b.attach(OTHER, "/a").await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 0);

    b.mount(DISK, "/m").await.unwrap();
    b.detach(DISK).await.unwrap_err();
    b.unmount(DISK, "/m").await.unwrap();
    b.detach(DISK).await.unwrap_err();
    assert_eq!(
        b.new_violations(&mut seen),
        2,
        "mounted, then unmounted but not ejected"
    );

    let share = |share| HostRequest::AddShare {
        share: ShareId(share),
        path: "/s".into(),
        read_only: true,
        allowed_names: None,
    };
    b.host(share(1)).await.unwrap();
    b.host(HostRequest::RemoveShare { share: ShareId(1) })
        .await
        .unwrap();
    b.host(share(1)).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 1, "a share's name never comes back");

    let vpmem = |index| HostRequest::AttachVpmem {
        index,
        path: "/v".into(),
    };
    b.host(vpmem(0)).await.unwrap();
    b.host(vpmem(0)).await.unwrap_err();
    b.host(vpmem(64)).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 2);
}

#[tokio::test]
async fn the_guest_refuses_what_a_kernel_would_and_notes_it() {
    let b = boot().await;
    let mut seen = 0;
    b.mount(DISK, "/m").await.unwrap_err();
    assert_eq!(
        b.new_violations(&mut seen),
        0,
        "an absent disk may be a fault's doing"
    );
    b.attach(DISK, "/a").await.unwrap();
    b.attach(OTHER, "/b").await.unwrap();
    b.mount(DISK, "/m").await.unwrap();
    b.mount(OTHER, "/m").await.unwrap_err();
    b.unmount(OTHER, "/m").await.unwrap_err();
    b.eject(DISK).await.unwrap_err();
    b.mount(OTHER, "relative").await.unwrap_err();
    b.mount(OTHER, "/a/../b").await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 5);
    // One disk in two places is fine, and then ejected only when both are gone.
    b.mount(DISK, "/n").await.unwrap();
    b.unmount(DISK, "/m").await.unwrap();
    b.eject(DISK).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 1);
    b.unmount(DISK, "/n").await.unwrap();
    b.eject(DISK).await.unwrap();
    b.mount(DISK, "/m").await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 0, "an ejected disk is not there");
}

#[tokio::test]
async fn an_overlay_needs_its_layers_and_keeps_them() {
    let b = boot().await;
    let mut seen = 0;
    let combine = || GuestRequest::CombineLayers {
        root: "/r/rootfs".into(),
        layers: vec!["/l".into()],
        scratch: "/r/scratch".into(),
    };
    b.host(HostRequest::AttachVpmem {
        index: 0,
        path: "/v".into(),
    })
    .await
    .unwrap();
    b.attach(DISK, "/a").await.unwrap();
    b.mount(DISK, "/r/scratch").await.unwrap();
    b.guest(combine()).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 1, "the layer is missing");
    b.guest(GuestRequest::MountVpmem {
        index: 0,
        guest_path: "/l".into(),
    })
    .await
    .unwrap();
    b.guest(combine()).await.unwrap();
    b.unmount(DISK, "/r/scratch").await.unwrap_err();
    b.guest(GuestRequest::UnmountVpmem {
        index: 0,
        guest_path: "/l".into(),
    })
    .await
    .unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 2, "the overlay is above both");
    b.guest(GuestRequest::RemoveCombinedLayers {
        root: "/r/rootfs".into(),
    })
    .await
    .unwrap();
    b.unmount(DISK, "/r/scratch").await.unwrap();
    b.guest(GuestRequest::UnmountVpmem {
        index: 0,
        guest_path: "/l".into(),
    })
    .await
    .unwrap();
    assert_eq!(b.new_violations(&mut seen), 0);
}

#[tokio::test]
async fn a_file_is_really_deleted_once_it_is_unplugged_even_without_a_vm() {
    let b = boot().await;
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("disk.vhdx");
    std::fs::write(&path, b"x").unwrap();
    b.attach(DISK, path.to_str().unwrap()).await.unwrap();
    b.host(HostRequest::DeleteFile { path: path.clone() })
        .await
        .unwrap_err();
    assert!(path.exists());
    b.vm.kill_vm();
    assert!(matches!(b.detach(DISK).await, Err(BackendError::Gone(_))));
    b.host(HostRequest::DeleteFile { path: path.clone() })
        .await
        .unwrap();
    assert!(!path.exists());
    b.host(HostRequest::DeleteFile { path }).await.unwrap();
}
