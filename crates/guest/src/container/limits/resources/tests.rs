use serde_json::json;

use super::*;

fn facts() -> Facts {
    Facts {
        cpus: Ids::parse("0-1").unwrap(),
        mems: Ids::parse("0").unwrap(),
        cpu_quota: "25000".into(),
        memory_in_use: 0,
    }
}

/// File and value of each write.
fn writes(resources: Value) -> Vec<(String, String)> {
    let plan = plan(&resources, &facts()).unwrap();
    assert_eq!(plan.not_usable, [""; 0]);
    plan.writes
        .into_iter()
        .map(|write| (write.file, write.value))
        .collect()
}

fn one(file: &str, value: &str) -> Vec<(String, String)> {
    vec![(file.into(), value.into())]
}

fn refused(resources: Value) -> String {
    let error = plan(&resources, &facts()).unwrap_err();
    assert_eq!(error.code(), 0x8007_0057);
    error.to_string()
}

#[test]
fn what_is_not_set_changes_nothing() {
    for resources in [
        json!(null),
        json!({}),
        json!({"memory": null, "cpu": {}, "pids": {}, "blockIO": {"weight": null}, "unified": null}),
        json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}}),
        json!({"devices": [{"allow": false, "access": "rwm"}], "hugepageLimits": [], "rdma": {}}),
        json!({"cpu": {"realtimeRuntime": 0}, "memory": {"disableOOMKiller": false, "useHierarchy": true}}),
    ] {
        assert_eq!(writes(resources.clone()), [], "{resources}");
    }
}

#[test]
fn swap_is_counted_apart_from_memory() {
    assert_eq!(
        writes(json!({"memory": {"limit": 1000, "swap": 1500, "reservation": 700}})),
        [
            ("memory.swap.max".into(), "500".into()),
            ("memory.max".into(), "1000".into()),
            ("memory.low".into(), "700".into())
        ]
    );
    let unlimited = [
        ("memory.swap.max".into(), "max".into()),
        ("memory.max".into(), "max".into()),
    ];
    assert_eq!(writes(json!({"memory": {"limit": -1}})), unlimited);
    assert_eq!(writes(json!({"memory": {"limit": -1, "swap": -1}})), unlimited);
    assert_eq!(writes(json!({"memory": {"limit": 5}})), one("memory.max", "5"));
    let plan = plan(&json!({"memory": {"limit": 5, "swap": 5}}), &facts()).unwrap();
    assert_eq!(plan.writes[0].if_absent, Absent::HoldsAnyway, "a VM without swap");
    assert_eq!(plan.writes[1].if_absent, Absent::Refused);
}

#[test]
fn shares_become_weights_that_keep_both_ends_and_the_usual_value() {
    for (shares, weight) in [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
    let mut before = 0;
    for shares in 2..=262_144 {
        let weight = weight_of_shares(shares);
        assert!(
            weight >= before && (1..=10_000).contains(&weight),
            "{shares}: {weight}"
        );
        before = weight;
    }
    assert_eq!(writes(json!({"cpu": {"shares": 1024}})), one("cpu.weight", "100"));
}

#[test]
fn cpu_time_and_period_are_one_file() {
    for (cpu, value) in [
        (json!({"quota": 5000, "period": 10_000}), "5000 10000"),
        (json!({"quota": 5000}), "5000"),
        (json!({"quota": -1}), "max"),
        (json!({"quota": -1, "period": 10_000}), "max 10000"),
        (json!({"period": 10_000}), "25000 10000"),
    ] {
        assert_eq!(writes(json!({"cpu": cpu})), one("cpu.max", value), "{cpu}");
    }
    assert_eq!(
        writes(json!({"cpu": {"quota": 5000, "burst": 100, "idle": 1}})),
        [
            ("cpu.max.burst".into(), "0".into()),
            ("cpu.max".into(), "5000".into()),
            ("cpu.max.burst".into(), "100".into()),
            ("cpu.idle".into(), "1".into())
        ]
    );
}

#[test]
fn only_cpus_and_nodes_that_the_vm_has_are_used_and_the_others_named() {
    let cpus = |list: &str| plan(&json!({"cpu": {"cpus": list, "mems": "0"}}), &facts()).unwrap();
    assert_eq!(cpus("0-1").not_usable, [""; 0]);
    assert_eq!(cpus("0-1").writes[0].value, "0-1");
    assert_eq!(cpus("1-3").writes[0].value, "1");
    assert_eq!(
        cpus("1-3").not_usable,
        ["linux.resources.cpu.cpus: of 1-3 the VM has 1"]
    );
    assert_eq!(cpus("6-7").writes.len(), 1, "the nodes alone");
    assert_eq!(
        cpus("6-7").not_usable,
        ["linux.resources.cpu.cpus: of 6-7 the VM has none"]
    );
    let without = plan(&json!({"cpu": {"cpus": "0"}}), &Facts::default()).unwrap();
    assert_eq!(without.writes, []);
    assert_eq!(
        without.not_usable,
        ["linux.resources.cpu.cpus: the VM's kernel has no cpusets"]
    );
}

#[test]
fn a_number_of_processes_is_never_none() {
    for (limit, value) in [(0, "1"), (7, "7"), (-1, "max")] {
        assert_eq!(
            writes(json!({"pids": {"limit": limit}})),
            one("pids.max", value),
            "{limit}"
        );
    }
}

#[test]
fn block_weights_change_their_scale_and_limits_of_the_hosts_devices_are_named() {
    for (weight, value) in [(10, "default 1"), (1000, "default 10000")] {
        assert_eq!(
            writes(json!({"blockIO": {"weight": weight}})),
            one("io.weight", value)
        );
    }
    let throttled = json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]}});
    assert_eq!(
        plan(&throttled, &facts()).unwrap().not_usable,
        ["linux.resources.blockIO.throttleReadBpsDevice: it numbers the host's own devices"]
    );
}

#[test]
fn files_of_a_controller_can_be_named_and_nothing_else() {
    assert_eq!(
        writes(json!({"unified": {"memory.oom.group": "1", "io.max": "8:0 rbps=1"}})),
        [
            ("io.max".into(), "8:0 rbps=1".into()),
            ("memory.oom.group".into(), "1".into())
        ]
    );
    for file in [
        "cgroup.procs",
        "memory",
        "memory.",
        "memory.max/../cgroup.kill",
        "../memory.max",
        "pids.Max",
        "",
    ] {
        let said = refused(json!({"unified": {file: "1"}}));
        assert!(said.contains("no limit of a cgroup"), "{file}: {said}");
    }
    refused(json!({"unified": {"memory.max": "1".repeat(VALUE_BYTES + 1)}}));
}

#[test]
fn what_cannot_be_a_limit_is_refused_by_name() {
    for (resources, said) in [
        (json!({"memory": {"limit": -2}}), "memory.limit: -2"),
        (
            json!({"memory": {"limit": 10, "swap": 9}}),
            "memory.swap: 9 is less",
        ),
        (
            json!({"memory": {"swap": 9}}),
            "memory.swap: it needs a memory.limit",
        ),
        (json!({"memory": {"reservation": -7}}), "memory.reservation"),
        (json!({"cpu": {"cpus": "all"}}), "cpu.cpus"),
        (json!({"cpu": {"cpus": "0-99999999"}}), "cpu.cpus"),
        (json!({"cpu": {"shares": -1}}), "linux.resources: "),
        (json!({"memory": {"limit": 1e30}}), "linux.resources: "),
        (json!({"pids": []}), "pids: it is no object"),
        (json!([1]), "linux.resources: "),
        (json!("no"), "linux.resources: "),
        (json!({"blockIO": {"weight": 9}}), "blockIO.weight: 9"),
    ] {
        let error = refused(resources.clone());
        assert!(error.contains(said), "{resources}: {error}");
    }
}

#[test]
fn members_that_version_2_has_not_are_named() {
    let resources = json!({
        "memory": {"kernel": 1, "kernelTCP": 1, "swappiness": 0, "disableOOMKiller": true},
        "cpu": {"realtimeRuntime": 1}, "hugepageLimits": [{}], "network": {"classID": 1}, "rdma": {"a": {}},
        "blockIO": {"leafWeight": 10},
    });
    let plan = plan(&resources, &facts()).unwrap();
    assert_eq!(plan.not_usable.len(), 9, "{:?}", plan.not_usable);
    assert_eq!(plan.writes, []);
}

#[test]
fn a_check_before_the_change_is_asked_for_by_the_document() {
    let with = |memory| plan(&json!({ "memory": memory }), &facts()).unwrap().at_least;
    assert_eq!(with(json!({"limit": 5, "checkBeforeUpdate": true})), Some(5));
    assert_eq!(with(json!({"limit": 5, "checkBeforeUpdate": false})), None);
    assert_eq!(with(json!({"limit": -1, "checkBeforeUpdate": true})), None);
}
