//! Limits, the freezer and memory events of what is no container.

use cofferdam_protocol::{HResult, message as m};
use serde_json::{Value, json};

use crate::agent::Agent;

fn change(agent: &mut Agent, container: &str, resource: &str, settings: &Value) -> crate::agent::Answer {
    let request = json!({"RequestType": "Update", "ResourceType": resource, "Settings": settings});
    agent.call(
        m::MODIFY_SETTINGS,
        &json!({"ContainerId": container, "Request": request}),
    )
}

#[test]
fn an_unknown_container_has_neither_limits_nor_a_freezer_nor_memory_to_run_out_of() {
    let mut agent = Agent::ready();
    for (resource, settings) in [
        ("ContainerConstraints", json!({"Linux": {"pids": {"limit": 1}}})),
        ("CofferdamFreezer", json!({"Frozen": true})),
        ("CofferdamPodLimits", json!({"Linux": {}})),
    ] {
        change(&mut agent, "c", resource, &settings).failed(HResult::CONTAINER_NOT_FOUND);
    }
    let nobody = json!({"ContainerId": "c"});
    agent
        .call(m::WAIT_FOR_OOM, &nobody)
        .failed(HResult::CONTAINER_NOT_FOUND);
    let query = json!({"PropertyTypes": ["OutOfMemory"]}).to_string();
    agent
        .call(m::GET_PROPERTIES, &json!({"ContainerId": "c", "Query": query}))
        .failed(HResult::CONTAINER_NOT_FOUND);
}

#[test]
fn the_vm_itself_is_no_container() {
    let mut agent = Agent::ready();
    agent
        .call_vm(m::WAIT_FOR_OOM, json!({}))
        .failed(HResult::NOT_IMPLEMENTED);
    let mut change_vm = |resource: &str, settings: Value| {
        let request = json!({"RequestType": "Update", "ResourceType": resource, "Settings": settings});
        agent
            .call_vm(m::MODIFY_SETTINGS, json!({ "Request": request }))
            .failed(HResult::INVALID_ARGUMENT)
    };
    for resource in ["ContainerConstraints", "CofferdamFreezer"] {
        let said = change_vm(resource, json!({}));
        assert!(said.contains("for a container, not for the VM itself"), "{said}");
    }
    for (settings, said) in [
        (json!({}), "no limits for Linux"),
        (json!({"Windows": {}}), "no limits for Linux"),
        (json!({"Linux": []}), "linux.resources: it is no object"),
        (json!({"Linux": {"memory": {"limit": -5}}}), "memory.limit: -5"),
        (json!({"Linux": {"unified": {"cgroup.kill": "1"}}}), "cgroup.kill"),
    ] {
        let refused = change_vm("CofferdamPodLimits", settings);
        assert!(refused.contains(said), "{refused}");
    }
}
