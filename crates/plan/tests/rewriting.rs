//! Random specs: planning touches the root's path and the listed mounts' type and source, and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, PlanRequest, Spec, plan, wanted};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::{Map, Value, json};

/// Any JSON, not too deep.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

/// Members nobody here knows.
fn unknown() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map("x-[a-z]{1,4}", value(), 0..3).prop_map(|map| map.into_iter().collect())
}

fn with(mut known: Value, unknown: Map<String, Value>) -> Value {
    known.as_object_mut().unwrap().extend(unknown);
    known
}

fn mount() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![
        Just("bind"),
        Just("virtual-disk"),
        Just("automanage-virtual-disk"),
        Just("physical-disk"),
        Just("tmpfs"),
        Just("none"),
    ];
    let source = prop_oneof![
        "/[a-z]{1,3}",
        "[a-z]{1,3}/[a-z]{1,3}",
        "sandbox://[a-z./]{0,8}",
        Just(String::new())
    ];
    let destination = prop_oneof![9 => "/[a-z]{1,3}", 1 => Just(String::new())];
    let options = prop::option::of(prop::collection::vec("ro|RO|rw|rbind", 0..3));
    (destination, kind, source, options, unknown()).prop_map(
        |(destination, kind, source, options, unknown)| {
            let mut entry = json!({"destination": destination, "type": kind, "source": source});
            if let Some(options) = options {
                entry["options"] = json!(options);
            }
            with(entry, unknown)
        },
    )
}

fn spec() -> impl Strategy<Value = Value> {
    let root =
        (prop::option::of("[a-z]{0,3}"), any::<bool>(), unknown()).prop_map(|(path, readonly, unknown)| {
            let mut root = json!({"readonly": readonly});
            if let Some(path) = path {
                root["path"] = json!(path);
            }
            with(root, unknown)
        });
    let folders = prop::collection::vec("/[a-z]{1,3}", 0..4);
    let mounts = prop::collection::vec(mount(), 0..6);
    (
        prop::option::of(root),
        prop::option::of(mounts),
        folders,
        unknown(),
    )
        .prop_map(|(root, mounts, folders, unknown)| {
            let mut spec = json!({"windows": {"layerFolders": folders, "x": 1}});
            for (name, member) in [("root", root), ("mounts", mounts.map(Value::from))] {
                if let Some(member) = member {
                    spec[name] = member;
                }
            }
            with(spec, unknown)
        })
}

/// Whatever a path is wanted for, it is mostly that: by its name, so that every kind occurs.
fn facts(spec: &Spec, bundle: &Path) -> Facts {
    let mut facts = Facts::default();
    for (inode, path) in wanted(spec, bundle).into_iter().enumerate() {
        let name = path.to_string_lossy();
        let kind = match name.len() % 4 {
            _ if name.ends_with(".vhd") || name.ends_with(".vhdx") => FileKind::File { bytes: 1 },
            0 => FileKind::File { bytes: 1 },
            1 => FileKind::BlockDevice,
            _ => FileKind::Directory,
        };
        let identity = FileId {
            device: 1,
            inode: inode as u64,
        };
        let found = FileFacts {
            kind,
            identity,
            image_problem: None,
        };
        facts.insert(path, Ok(found));
    }
    facts
}

/// The spec without what planning may write.
fn untouched(mut spec: Value, mounts: &[usize]) -> Value {
    if let Some(root) = spec.get_mut("root").and_then(Value::as_object_mut) {
        root.shift_remove("path");
        if root.is_empty() {
            spec.as_object_mut().unwrap().shift_remove("root");
        }
    }
    for index in mounts {
        let entry = spec["mounts"][*index].as_object_mut().unwrap();
        entry.shift_remove("type");
        entry.shift_remove("source");
    }
    spec
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/rewriting.txt",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rewriting_touches_only_the_root_path_and_type_and_source_of_the_needed_mounts(
        document in spec(),
        process_isolation in any::<bool>(),
    ) {
        let spec = Spec::parse(&document.to_string()).unwrap();
        let bundle = Path::new("/bundle");
        let facts = facts(&spec, bundle);
        let request = PlanRequest { spec: &spec, bundle, container_root: "/c", process_isolation };
        let result = plan(request, &facts);
        prop_assert_eq!(spec.document(), &document, "the caller's spec is never changed");
        let Ok(plan) = result else { return Ok(()) };

        let disks = plan.needs.disks.iter().map(|disk| disk.mount_index);
        let shares = plan.needs.shares.iter().filter_map(|share| share.mount_index);
        let needed: Vec<_> = disks.clone().chain(shares.clone()).collect();
        prop_assert_eq!(untouched(plan.spec.clone(), &needed), untouched(document, &needed));
        for index in disks {
            prop_assert_eq!(&plan.spec["mounts"][index]["type"], "none");
        }
        for index in shares {
            prop_assert_eq!(&plan.spec["mounts"][index]["type"], "bind");
        }
        // What the spec says now lies in the VM, or on the host where there is none.
        let prefix = if process_isolation { "/bundle/" } else { "/c/" };
        prop_assert!(plan.spec["root"]["path"].as_str().unwrap().starts_with(prefix));
        for index in &needed {
            let place = format!("/c/mounts/m{index}");
            prop_assert!(plan.spec["mounts"][*index]["source"].as_str().unwrap().starts_with(&place));
        }
        prop_assert!(!process_isolation || needed.is_empty());
    }

    #[test]
    fn no_text_makes_planning_panic(text in "\\PC{0,80}", document in value()) {
        for text in [text, document.to_string()] {
            if let Ok(spec) = Spec::parse(&text) {
                let facts = facts(&spec, Path::new("/bundle"));
                let request = PlanRequest {
                    spec: &spec,
                    bundle: Path::new("/bundle"),
                    container_root: "/c",
                    process_isolation: false,
                };
                let _ = plan(request, &facts);
            }
        }
    }

    #[test]
    fn no_known_member_of_an_unexpected_kind_makes_planning_panic(
        root in value(),
        entry in value(),
        folders in value(),
    ) {
        let document = json!({"root": root, "mounts": [entry], "windows": {"layerFolders": folders}});
        if let Ok(spec) = Spec::parse(&document.to_string()) {
            let facts = facts(&spec, Path::new("/bundle"));
            let request = PlanRequest {
                spec: &spec,
                bundle: Path::new("/bundle"),
                container_root: "/c",
                process_isolation: false,
            };
            let _ = plan(request, &facts);
        }
    }
}
