//! `GetProperties` (GCS bridge protocol §6), and properties of our own.
//!
//! For the VM itself (null container id) the query may hold `Mounts`, the mounts made since the agent started, and
//! `AgentMemory`, the agent's resident memory. The guest says so with the capability `CofferdamMounts`. The capability
//! `CofferdamLimits` speaks of `OutOfMemory`, of a container, and of `Statistics`, of all containers of the VM together.

use cofferdam_protocol::{
    json::InString,
    message::{DecodeError, GetProperties, Payload, Request},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    agent::{self, Agent},
    container::stats,
    error::{AgentError, Result},
};

/// The answer: a JSON text in a member.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Answer {
    properties: InString<Value>,
}

/// The wanted names as they came; the protocol's own type keeps only those it knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Query {
    property_types: Vec<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Wanted {
    query: InString<Query>,
}

impl Payload for Wanted {
    const TYPE: cofferdam_protocol::MessageType = GetProperties::TYPE;
    type Reply = cofferdam_protocol::message::Empty;
}

/// The names of the properties a request asks for.
pub(super) fn wanted(body: &[u8]) -> Result<Vec<String>, DecodeError> {
    Request::<Wanted>::from_body(body).map(|request| request.payload.query.0.property_types)
}

/// Properties of a container.
pub(super) fn of_container(agent: &Agent, id: &str, names: &[String]) -> Result<Answer> {
    let container = agent.containers.get(id)?;
    let mut properties = Map::new();
    for name in names {
        match name.as_str() {
            "ProcessList" => {
                let list = stats::pids(&container.cgroup())
                    .into_iter()
                    .map(|pid| json!({"ProcessId": pid}));
                properties.insert("ProcessList".into(), list.collect());
            }
            "Statistics" => {
                properties.insert("LCOWMetrics".into(), stats::read(&container.cgroup()));
            }
            "OutOfMemory" => {
                let verdict = agent.containers.out_of_memory(id)?;
                properties.insert(
                    "OutOfMemory".into(),
                    json!({"Kills": verdict.kills, "InitKilled": verdict.init_killed}),
                );
            }
            other => tracing::warn!(
                property = other,
                container = id,
                "an unknown property is asked for"
            ),
        }
    }
    Ok(Answer {
        properties: InString(Value::Object(properties)),
    })
}

/// Properties of the VM.
pub(super) fn of_vm(agent: &Agent, names: &[String]) -> Result<Answer> {
    let mut properties = Map::new();
    for name in names {
        match name.as_str() {
            "Mounts" => {
                properties.insert("Mounts".into(), agent.mounts()?.into());
            }
            "Statistics" => {
                let pod = stats::read(&agent.containers.pod_cgroup());
                properties.insert("LCOWMetrics".into(), pod);
            }
            "AgentMemory" => {
                let bytes = agent::resident_bytes();
                properties.insert("AgentMemory".into(), json!({"RssBytes": bytes}));
            }
            other => tracing::warn!(property = other, "an unknown property of the VM is asked for"),
        }
    }
    if properties.is_empty() {
        return Err(AgentError::NotSupported(
            "the VM itself has only the properties Mounts, Statistics and AgentMemory".into(),
        ));
    }
    Ok(Answer {
        properties: InString(Value::Object(properties)),
    })
}

/// Halves the longest list, and says how much is missing.
pub(super) fn shrink(answer: &mut Answer) -> bool {
    let Some(properties) = answer.properties.0.as_object_mut() else {
        return false;
    };
    let longest = properties
        .iter_mut()
        .filter_map(|(name, value)| Some((name.clone(), value.as_array_mut()?)))
        .max_by_key(|(_, list)| list.len());
    let Some((name, list)) = longest.filter(|(_, list)| !list.is_empty()) else {
        return false;
    };
    let kept = list.len() / 2;
    let cut = list.len() - kept;
    list.truncate(kept);
    let missing = properties.entry(format!("{name}Omitted")).or_insert(json!(0));
    *missing = json!(missing.as_u64().unwrap_or(0) + cut as u64);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_query_asks_for_nothing() {
        let names = |query: &str| wanted(json!({"ContainerId": "c", "Query": query}).to_string().as_bytes());
        assert!(names("").unwrap().is_empty());
        assert_eq!(
            names(r#"{"PropertyTypes":["Mounts","X"]}"#).unwrap(),
            ["Mounts", "X"]
        );
        assert!(names("{").is_err());
    }

    #[test]
    fn lists_shrink_and_say_so() {
        let mut answer = Answer {
            properties: InString(json!({"Mounts": [1, 2, 3, 4, 5], "ProcessList": [1]})),
        };
        assert!(shrink(&mut answer));
        assert!(shrink(&mut answer));
        assert_eq!(
            answer.properties.0,
            json!({"Mounts": [1], "ProcessList": [1], "MountsOmitted": 4})
        );
        while shrink(&mut answer) {}
        assert_eq!(answer.properties.0["Mounts"], json!([]));
    }
}
