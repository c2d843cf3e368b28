//! The messages and settings of limits, as they are on the wire.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cofferdam_protocol::{
    message::{Metrics, ModifySettings, Properties, Request, WaitForOom},
    settings::{Constraints, Freezer, ModificationRequest, Resource},
};
use serde_json::{Value, json};

#[test]
fn each_setting_names_its_resource_and_comes_back_as_it_went() {
    let limits = || Constraints::linux(json!({"memory": {"limit": 1}, "unified": {"Memory.Low": "1"}}));
    let linux = json!({"Linux": {"memory": {"limit": 1}, "unified": {"Memory.Low": "1"}}});
    for (resource, name, settings) in [
        (
            Resource::ContainerConstraints(limits()),
            "ContainerConstraints",
            linux.clone(),
        ),
        (Resource::PodLimits(limits()), "CofferdamPodLimits", linux),
        (
            Resource::Freezer(Freezer { frozen: true }),
            "CofferdamFreezer",
            json!({"Frozen": true}),
        ),
        (
            Resource::Freezer(Freezer::default()),
            "CofferdamFreezer",
            json!({}),
        ),
    ] {
        let request = ModificationRequest::update(resource);
        let request = Request::new("c1", ModifySettings { request });
        let body = request.to_body();
        let text: Value = serde_json::from_slice(&body).unwrap();
        let wanted = json!({"RequestType": "Update", "ResourceType": name, "Settings": settings});
        assert_eq!(text["Request"], wanted);
        assert_eq!(Request::<ModifySettings>::from_body(&body).unwrap(), request);
    }
}

#[test]
fn a_first_wait_for_oom_says_nothing_and_a_later_one_what_is_known() {
    let body =
        |kills_seen| serde_json::from_slice::<Value>(&Request::new("c", WaitForOom { kills_seen }).to_body());
    assert_eq!(body(0).unwrap().get("KillsSeen"), None);
    assert_eq!(body(2).unwrap()["KillsSeen"], 2);
}

#[test]
fn figures_of_any_guest_are_read_and_absent_ones_are_nothing() {
    let properties: Properties = serde_json::from_value(json!({
        "LCOWMetrics": {
            "pids": {"current": 3},
            "memory": {"usage": {"usage": 4096, "limit": 8192}, "total_rss": 7, "kernel": {}},
            "hugetlb": [],
            "blkio": {"io_service_bytes_recursive": [{"op": "Read", "device": "", "major": 8, "value": 512}]},
        },
        "OutOfMemory": {"Kills": 1, "InitKilled": true},
    }))
    .unwrap();
    let metrics = Metrics::from_value(properties.metrics.unwrap()).unwrap();
    assert_eq!(metrics.pids.unwrap().current, 3);
    assert_eq!(metrics.cpu, None);
    let memory = metrics.memory.unwrap();
    assert_eq!(
        (memory.usage.usage, memory.usage.limit, memory.rss),
        (4096, 8192, 0)
    );
    let figure = &metrics.blkio.unwrap().io_service_bytes_recursive[0];
    assert_eq!(
        (figure.op.as_str(), figure.major, figure.minor, figure.value),
        ("Read", 8, 0, 512)
    );
    let oom = properties.out_of_memory.unwrap();
    assert_eq!((oom.kills, oom.init_killed), (1, true));
    Metrics::from_value(json!({"pids": {"current": -1}})).unwrap_err();
}
