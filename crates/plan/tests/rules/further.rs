//! One mount more, for a container that runs.

use std::path::Path;

use cofferdam_plan::{
    DiskSource, Mount, MountPlan, MountRequest, Needs, PlanError, ShareNeed, plan_mount, wanted_by_mount,
};
use serde_json::json;

use crate::host::{ROOT, host, mount, one};

fn entry(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
    let entry = json!({"type": kind, "source": source, "destination": destination, "options": options});
    serde_json::from_value(entry).unwrap()
}

fn planned(mount: &Mount) -> Result<MountPlan, PlanError> {
    let request = MountRequest {
        mount,
        base: Path::new("/bundle"),
        container_root: ROOT,
        index: 7,
    };
    plan_mount(request, &host().facts())
}

#[track_caller]
fn refused(mount: &Mount, beginning: &str) -> String {
    let error = planned(mount).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.mount_index, Some(7));
    assert!(text.starts_with(&format!("mount 7: {beginning}")), "{text}");
    text
}

#[test]
fn a_directory_a_file_and_a_disk_need_what_they_would_in_a_spec() {
    let directory = planned(&entry("bind", "data", "/d", &["Ro", "rbind"])).unwrap();
    let share = ShareNeed {
        mount_index: Some(7),
        host_path: "/bundle/data".into(),
        guest_path: "/run/gcs/c/1/mounts/m7".into(),
        read_only: true,
        allowed_names: None,
    };
    let needs = Needs {
        shares: vec![share.clone()],
        ..Needs::default()
    };
    let expected = MountPlan {
        index: 7,
        needs,
        source: "/run/gcs/c/1/mounts/m7".to_owned(),
        destination: "/d".to_owned(),
        read_only: true,
    };
    assert_eq!(directory, expected);

    let file = planned(&entry("bind", "/etc/hosts", "/d", &[])).unwrap();
    assert_eq!(file.source, "/run/gcs/c/1/mounts/m7/hosts");
    let names = file.needs.shares[0].allowed_names.as_deref();
    assert_eq!(names, Some(["hosts".to_owned()].as_slice()));

    for (kind, source, of, auto_manage) in [
        ("virtual-disk", "/d.vhdx", DiskSource::Virtual, false),
        ("automanage-virtual-disk", "/d.vhdx", DiskSource::Virtual, true),
        ("physical-disk", "/dev/sdb", DiskSource::Physical, false),
    ] {
        let plan = planned(&entry(kind, source, "/d", &["rw"])).unwrap();
        let disk = &plan.needs.disks[0];
        assert_eq!(
            (disk.source, disk.auto_manage, disk.read_only),
            (of, auto_manage, false)
        );
        assert_eq!((disk.mount_index, &disk.guest_path), (7, &plan.source));
        assert!(plan.needs.shares.is_empty() && !plan.read_only);
    }
}

#[test]
fn it_is_refused_with_the_words_of_a_mount_of_a_spec() {
    for (kind, source) in [
        ("bind", "/gone"),
        ("virtual-disk", "/srv/data"),
        ("physical-disk", "/d.vhdx"),
        ("automanage-virtual-disk", "/gone"),
        ("bind", ""),
    ] {
        let in_spec = one(kind, source, &[]).unwrap_err().refusal.to_string();
        let later: Mount = serde_json::from_value(mount(kind, source, &[])).unwrap();
        assert_eq!(refused(&later, ""), format!("mount 7: {in_spec}"));
    }
}

#[test]
fn m1_types_are_refused_since_only_the_runtime_makes_them() {
    for kind in ["tmpfs", "proc", "none", ""] {
        let text = refused(
            &entry(kind, "x", "/d", &[]),
            &format!("a mount of type {kind:?} "),
        );
        assert!(text.contains("automanage-virtual-disk"), "{text}");
    }
    let untyped: Mount =
        serde_json::from_value(json!({"source": "/etc/hosts", "destination": "/d"})).unwrap();
    refused(&untyped, "a mount of type \"\" ");
}

#[test]
fn a_source_below_the_sandbox_needs_nothing_and_goes_to_the_guest_as_it_is() {
    let mount = entry("bind", "sandbox:///shared", "/d", &[]);
    assert_eq!(wanted_by_mount(&mount, Path::new("/bundle")), None);
    let plan = planned(&mount).unwrap();
    assert_eq!(
        (plan.source.as_str(), plan.needs),
        ("sandbox:///shared", Needs::default())
    );
}

#[test]
fn two_spellings_of_a_destination_are_one() {
    for spelling in ["/a/b", "//a//b/", "/./a/./b"] {
        let plan = planned(&entry("bind", "data", spelling, &[])).unwrap();
        assert_eq!(plan.destination, "/a/b", "{spelling}");
    }
}

#[test]
fn destinations_of_the_runtime_and_ways_out_are_refused() {
    for (destination, problem) in [
        ("d", "is not absolute"),
        ("/a/../b", "climbs"),
        ("/..", "climbs"),
        ("/", "is the container's root"),
        ("//.", "is the container's root"),
        ("/a\0", "holds a NUL"),
        ("/proc", "belongs to the container's runtime"),
        ("/proc/sys/x", "belongs to the container's runtime"),
        ("/dev/./shm", "belongs to the container's runtime"),
        ("//sys", "belongs to the container's runtime"),
    ] {
        let beginning = format!("the destination {destination:?} {problem}");
        refused(&entry("bind", "data", destination, &[]), &beginning);
    }
    for destination in ["/devices", "/system", "/processes", "/a/proc", "/..a"] {
        planned(&entry("bind", "data", destination, &[])).unwrap();
    }
}

#[test]
fn an_option_that_would_be_lost_is_refused() {
    refused(
        &entry("bind", "data", "/d", &["ro", "noexec"]),
        "option \"noexec\" ",
    );
    planned(&entry("bind", "data", "/d", &["RO", "rbind", "rprivate"])).unwrap();
}

#[test]
fn the_path_to_look_at_is_resolved_against_the_base() {
    let base = Path::new("/bundle");
    let wanted = |kind, source| wanted_by_mount(&entry(kind, source, "/d", &[]), base);
    assert_eq!(wanted("bind", "data"), Some("/bundle/data".into()));
    assert_eq!(wanted("physical-disk", "/dev/sdb"), Some("/dev/sdb".into()));
    assert_eq!((wanted("tmpfs", "x"), wanted("bind", "")), (None, None));
    // What is not looked at counts as absent.
    let request = MountRequest {
        mount: &entry("bind", "/elsewhere", "/d", &[]),
        base,
        container_root: ROOT,
        index: 0,
    };
    assert!(plan_mount(request, &host().facts()).is_err());
}
