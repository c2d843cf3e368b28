//! Rules M1 to M10: the mounts.

use std::{collections::BTreeSet, io, path::Path};

use cofferdam_plan::{DiskSource, FileFacts, FileId, ShareNeed};
use serde_json::json;

use crate::host::{
    FILE, host, mount, mounts, one, planned, planned_with, refused, shares_of_mounts, without_vm,
};

#[test]
fn m1_other_types_are_left_exactly_as_they_are() {
    let others = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/x"},
        {"destination": "", "type": "tmpfs", "source": "", "options": null, "x": {"y": 1}},
        {"destination": "/b", "type": "BIND", "source": "/gone"},
        {"destination": "/n", "type": null, "source": "/gone", "options": ["bind"]},
    ]);
    let plan = planned(&mounts(others.clone())).unwrap();
    assert_eq!(plan.spec["mounts"], others);
    assert!(plan.needs.disks.is_empty() && shares_of_mounts(&plan).is_empty());
}

#[test]
fn m2_source_and_destination_must_be_there_with_and_without_a_vm() {
    let text = "invalid OCI spec - a mount must have both source and a destination: ";
    for kind in ["bind", "physical-disk", "virtual-disk", "automanage-virtual-disk"] {
        for entry in [
            json!({"destination": "/m", "type": kind}),
            json!({"destination": "/m", "type": kind, "source": ""}),
            json!({"destination": "", "type": kind, "source": "/srv/data"}),
            json!({"type": kind, "source": "/srv/data"}),
        ] {
            let layered = json!({"windows": {"layerFolders": ["/l/1", "/l/s"]}, "mounts": [entry]});
            refused(planned(&layered), Some(0), text);
            refused(without_vm(&layered), Some(0), text);
        }
    }
}

#[test]
fn m3_a_physical_disk_is_a_block_device() {
    let plan = one("physical-disk", "/dev/sdb", &[]).unwrap();
    let disk = &plan.needs.disks[0];
    assert_eq!((disk.mount_index, disk.source), (1, DiskSource::Physical));
    assert_eq!((disk.read_only, disk.auto_manage), (false, false));
    assert_eq!(plan.spec["mounts"][1]["type"], "none");
    assert_eq!(plan.spec["mounts"][1]["source"], "/run/gcs/c/1/mounts/m1");
    let prefix = "adding SCSI physical disk mount /d.vhdx: ";
    let text = refused(one("physical-disk", "/d.vhdx", &[]), Some(1), prefix);
    assert!(text.contains("must be a block device"), "{text}");
    refused(
        one("physical-disk", "/gone", &[]),
        Some(1),
        "adding SCSI physical disk mount /gone: ",
    );
}

#[test]
fn m3_a_read_only_physical_disk_is_read_only_and_keeps_its_options() {
    let plan = one("physical-disk", "/dev/sdb", &["rO", "nosuid"]).unwrap();
    assert!(plan.needs.disks[0].read_only);
    assert_eq!(plan.needs.disks[0].guest_path, "/run/gcs/c/1/mounts/m1");
    assert_eq!(plan.spec["mounts"][1]["options"], json!(["rO", "nosuid"]));
}

#[test]
fn m4_a_virtual_disk_is_an_image_file() {
    let plan = one("virtual-disk", "/d.vhdx", &["ro"]).unwrap();
    let disk = &plan.needs.disks[0];
    assert_eq!((disk.mount_index, disk.source), (1, DiskSource::Virtual));
    assert_eq!((disk.read_only, disk.auto_manage), (true, false));
    assert_eq!(disk.guest_path, "/run/gcs/c/1/mounts/m1");
    let expected =
        json!({"destination": "/m", "type": "none", "source": "/run/gcs/c/1/mounts/m1", "options": ["ro"]});
    assert_eq!(plan.spec["mounts"][1], expected);
}

#[test]
fn m4_what_is_no_usable_image_is_refused() {
    let prefix = "adding SCSI virtual disk mount ";
    let text = refused(one("virtual-disk", "/srv/data", &[]), Some(1), prefix);
    assert!(
        text.contains("is a directory, but must be a disk image"),
        "{text}"
    );
    refused(one("virtual-disk", "/gone", &[]), Some(1), prefix);
    let mut facts = host().facts();
    let identity = FileId { device: 1, inode: 99 };
    let damaged = FileFacts {
        kind: FILE,
        identity,
        image_problem: Some("its footer has a wrong checksum".to_owned()),
    };
    facts.insert("/bad.vhd".into(), Ok(damaged));
    let spec = mounts(json!([mount("virtual-disk", "/bad.vhd", &[])]));
    let text = refused(planned_with(&spec, false, &facts), Some(0), prefix);
    assert!(text.contains("its footer has a wrong checksum"), "{text}");
}

#[test]
fn m5_an_automanaged_disk_is_recorded_as_such() {
    let plan = one("automanage-virtual-disk", "/d.vhdx", &[]).unwrap();
    assert!(plan.needs.disks[0].auto_manage);
    assert_eq!(plan.spec["mounts"][1]["type"], "none");
    refused(
        one("automanage-virtual-disk", "/gone", &[]),
        Some(1),
        "adding SCSI virtual disk mount /gone: ",
    );
}

#[test]
fn m6_a_source_below_the_sandbox_is_passed_on_verbatim() {
    let plan = one("bind", "sandbox://../x", &["ro"]).unwrap();
    assert_eq!(plan.spec["mounts"][1]["source"], "sandbox://../x");
    assert!(shares_of_mounts(&plan).is_empty());
}

#[test]
fn m6_the_disk_types_win_over_the_sandbox() {
    let prefix = "adding SCSI virtual disk mount /bundle/sandbox://x: ";
    refused(one("virtual-disk", "sandbox://x", &[]), Some(1), prefix);
}

#[test]
fn m6_only_a_source_that_starts_with_the_very_prefix_is_of_the_sandbox() {
    for source in ["sandbox:/x", "Sandbox://x", "./sandbox://x"] {
        refused(
            one("bind", source, &[]),
            Some(1),
            "could not open bind mount target: /bundle/",
        );
    }
}

#[test]
fn m7_a_directory_is_shared_at_the_mounts_guest_path() {
    let plan = one("bind", "/srv/data", &["rbind", "rw"]).unwrap();
    let share = ShareNeed {
        mount_index: Some(1),
        host_path: "/srv/data".into(),
        guest_path: "/run/gcs/c/1/mounts/m1".into(),
        read_only: false,
        allowed_names: None,
    };
    assert_eq!(shares_of_mounts(&plan), [&share]);
    assert_eq!(plan.spec["mounts"][1]["type"], "bind");
    assert_eq!(plan.spec["mounts"][1]["source"], "/run/gcs/c/1/mounts/m1");
}

#[test]
fn m8_anything_else_is_shared_with_its_directory_restricted_to_its_name() {
    for (source, directory, name) in [
        ("/etc/hosts", "/etc", "hosts"),
        ("/dev/sdb", "/dev", "sdb"),
        ("/run/socket", "/run", "socket"),
        ("/d.vhdx", "/", "d.vhdx"),
    ] {
        let plan = one("bind", source, &["ro"]).unwrap();
        let share = shares_of_mounts(&plan)[0];
        assert_eq!(share.host_path, Path::new(directory));
        assert_eq!(share.allowed_names.as_deref(), Some([name.to_owned()].as_slice()));
        assert!(share.read_only);
        assert_eq!(
            plan.spec["mounts"][1]["source"],
            format!("/run/gcs/c/1/mounts/m1/{name}")
        );
    }
}

#[test]
fn m8_nothing_but_the_source_of_the_entry_changes() {
    let mut entry = mount("bind", "/etc/hosts", &["rbind", "ro"]);
    entry["x"] = json!({"y": 1});
    let plan = planned(&mounts(json!([entry]))).unwrap();
    entry["source"] = json!("/run/gcs/c/1/mounts/m0/hosts");
    assert_eq!(plan.spec["mounts"], json!([entry]));
}

#[test]
fn m8_two_files_of_one_directory_are_two_restricted_shares() {
    let entries = json!([
        mount("bind", "/etc/hosts", &[]),
        mount("bind", "/etc/passwd", &[])
    ]);
    let plan = planned(&mounts(entries)).unwrap();
    let shares = shares_of_mounts(&plan);
    let names = |n: usize| shares[n].allowed_names.as_ref().unwrap().join(" ");
    assert_eq!((names(0).as_str(), names(1).as_str()), ("hosts", "passwd"));
    assert_ne!(shares[0].guest_path, shares[1].guest_path);
}

#[test]
fn m9_a_bind_source_that_is_not_there_is_refused_with_the_systems_reason() {
    let text = refused(
        one("bind", "/gone", &[]),
        Some(1),
        "could not open bind mount target: ",
    );
    assert!(text.contains("/gone"), "{text}");
    let mut facts = host().facts();
    facts.insert(
        "/secret".into(),
        Err(io::Error::from(io::ErrorKind::PermissionDenied)),
    );
    let result = planned_with(&mounts(json!([mount("bind", "/secret", &[])])), false, &facts);
    let text = refused(result, Some(0), "could not open bind mount target: ");
    assert!(text.contains("permission denied"), "{text}");
}

#[test]
fn m10_without_a_vm_mounts_are_left_to_the_runtime() {
    let entries = json!([
        mount("bind", "/srv/data", &[]),
        mount("bind", "/gone", &[]),
        mount("virtual-disk", "/d.vhdx", &["ro"]),
        mount("physical-disk", "/dev/sdb", &[]),
        mount("bind", "sandbox://x", &[]),
    ]);
    let spec = json!({"windows": {"layerFolders": ["/l/1", "/l/s"]}, "mounts": entries});
    let plan = without_vm(&spec).unwrap();
    assert_eq!(plan.spec["mounts"], entries);
    assert!(plan.needs.disks.is_empty() && plan.needs.shares.is_empty());
}

#[test]
fn ro_counts_in_any_letter_case_and_as_a_whole_option_only() {
    for (options, read_only) in [
        (vec!["ro"], true),
        (vec!["rbind", "RO"], true),
        (vec!["Ro", "rw"], true),
        (vec!["rw"], false),
        (vec!["rox", "norecovery,ro"], false),
        (vec![], false),
    ] {
        let plan = one("bind", "/srv/data", &options).unwrap();
        assert_eq!(shares_of_mounts(&plan)[0].read_only, read_only, "{options:?}");
    }
}

#[test]
fn the_index_counts_skipped_entries_too() {
    let skipped = json!({"destination": "/proc", "type": "proc"});
    let disk = mount("virtual-disk", "/d.vhdx", &[]);
    let plan = planned(&mounts(json!([
        skipped,
        skipped,
        mount("bind", "/srv/data", &[]),
        skipped,
        disk
    ])))
    .unwrap();
    assert_eq!(shares_of_mounts(&plan)[0].guest_path, "/run/gcs/c/1/mounts/m2");
    assert_eq!(plan.needs.disks[0].guest_path, "/run/gcs/c/1/mounts/m4");
}

#[test]
fn two_mounts_on_one_destination_are_both_planned() {
    let entry = mount("bind", "/srv/data", &[]);
    let plan = planned(&mounts(json!([entry, entry]))).unwrap();
    let paths: BTreeSet<_> = shares_of_mounts(&plan)
        .iter()
        .map(|share| &share.guest_path)
        .collect();
    assert_eq!(paths.len(), 2);
}
