//! An event as it is told to others.

use std::time::SystemTime;

use cofferdam_pod::{Event, Exit, ProcessName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

/// The types of events.
pub mod types {
    /// A container was created.
    pub const CREATE: &str = "create";
    /// A container's init was started.
    pub const START: &str = "start";
    /// A further process was added to a container.
    pub const EXEC_ADDED: &str = "exec-added";
    /// It was started.
    pub const EXEC_STARTED: &str = "exec-started";
    /// A process ended: the init, or a further one.
    pub const EXIT: &str = "exit";
    /// A container ran out of memory.
    pub const OOM: &str = "oom";
    /// A container stands still.
    pub const PAUSED: &str = "paused";
    /// It goes on.
    pub const RESUMED: &str = "resumed";
    /// A process was deleted; with the init, everything the container held was given back.
    pub const DELETE: &str = "delete";
    /// A container's owner went away without a word. No owner tells this: whoever listens finds it.
    pub const LOST: &str = "lost";

    /// All of them.
    pub const ALL: [&str; 10] = [
        CREATE,
        START,
        EXEC_ADDED,
        EXEC_STARTED,
        EXIT,
        OOM,
        PAUSED,
        RESUMED,
        DELETE,
        LOST,
    ];
}

/// Something that happened to a container or to one of its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// When it was told, as in RFC 3339.
    pub time: String,
    /// What happened, one of [`types`]; an owner of another version may tell others.
    #[serde(rename = "type")]
    pub kind: String,
    /// The container.
    pub id: String,
    /// The further process, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub attributes: Map<String, Value>,
}

impl Told {
    /// One that happens now.
    #[must_use]
    pub fn now(kind: &str, name: ProcessName, attributes: Map<String, Value>) -> Self {
        Self {
            time: rfc3339(SystemTime::now()),
            kind: kind.to_owned(),
            id: name.container,
            exec: name.exec,
            attributes,
        }
    }

    /// A pod's event, which happened just now. `None` for one that nobody is told of.
    pub(crate) fn of(event: Event) -> Option<Self> {
        let init = |container: String| ProcessName::init(container);
        let none = Map::new;
        Some(match event {
            Event::Created {
                container, bundle, ..
            } => Self::now(
                types::CREATE,
                init(container),
                members(json!({ "bundle": bundle.to_string_lossy() })),
            ),
            Event::Started { name } => {
                let kind = match name.exec {
                    None => types::START,
                    Some(_) => types::EXEC_STARTED,
                };
                Self::now(kind, name, none())
            }
            Event::ExecAdded { name } => Self::now(types::EXEC_ADDED, name, none()),
            Event::Paused { container } => Self::now(types::PAUSED, init(container), none()),
            Event::Resumed { container } => Self::now(types::RESUMED, init(container), none()),
            Event::OutOfMemory { container, kills } => {
                Self::now(types::OOM, init(container), members(json!({ "kills": kills })))
            }
            Event::Exited { name, exit } => Self::now(types::EXIT, name, ended(exit)),
            Event::Deleted { name, exit } => Self::now(types::DELETE, name, ended(exit)),
            _ => return None,
        })
    }
}

fn ended(exit: Exit) -> Map<String, Value> {
    let mut attributes = members(json!({ "exitStatus": exit.status, "exitedAt": rfc3339(exit.at) }));
    if exit.lost {
        attributes.insert("lost".to_owned(), true.into());
    }
    attributes
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// A moment as RFC 3339 has it, in UTC and to the nanosecond: all of them are of one length, and sort as text.
#[must_use]
pub fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let (hour, minute, second, nanosecond) = at.to_hms_nano();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{nanosecond:09}Z", at.date())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::format_description::well_known::Rfc3339;

    use super::*;

    #[test]
    fn a_moment_is_as_long_as_any_other_and_is_understood_by_others() {
        for nanoseconds in [0, 1, 1_700_000_000_120_000_000, 951_782_400_000_000_000] {
            let text = rfc3339(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds));
            assert_eq!(text.len(), "2026-01-31T12:00:00.123456789Z".len(), "{text}");
            let read = OffsetDateTime::parse(&text, &Rfc3339).unwrap();
            assert_eq!(read.unix_timestamp_nanos(), i128::from(nanoseconds));
        }
    }
}
