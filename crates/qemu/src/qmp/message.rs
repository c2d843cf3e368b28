//! What the lines hold. No I/O.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::QmpError;

/// Something QEMU tells unasked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    /// Its name: `DEVICE_DELETED`, `SHUTDOWN`, …
    pub(crate) name: String,
    /// Its details.
    pub(crate) data: Map<String, Value>,
}

impl Event {
    /// A detail that is a string, or the empty string.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.data.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// One line from QEMU.
#[derive(Debug)]
pub(crate) enum Incoming {
    Greeting,
    Answer {
        id: u64,
        result: Result<Value, QmpError>,
    },
    Event(Event),
    /// A well-formed line that concerns nobody: an answer without an id of ours.
    Other,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    event: Option<String>,
    data: Option<Map<String, Value>>,
    id: Option<u64>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

/// Reads one line.
pub(super) fn parse(line: &[u8]) -> Result<Incoming, String> {
    let line: Line =
        serde_json::from_slice(line).map_err(|error| format!("a line that is no QMP: {error}"))?;
    if let Some(name) = line.event {
        return Ok(Incoming::Event(Event {
            name,
            data: line.data.unwrap_or_default(),
        }));
    }
    if line.greeting.is_some() {
        return Ok(Incoming::Greeting);
    }
    let Some(id) = line.id else {
        return Ok(Incoming::Other);
    };
    let result = match line.error {
        Some(Refusal { class, desc }) => Err(QmpError::Refused {
            class,
            description: desc,
        }),
        None => Ok(line.returned.unwrap_or_default()),
    };
    Ok(Incoming::Answer { id, result })
}

/// Writes one command with its line end.
pub(super) fn command(name: &str, arguments: &Value, id: u64) -> Vec<u8> {
    let message = if arguments.is_null() {
        json!({ "execute": name, "id": id })
    } else {
        json!({ "execute": name, "arguments": arguments, "id": id })
    };
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_refusals_and_events_are_told_apart() {
        let Ok(Incoming::Answer {
            id: 7,
            result: Ok(value),
        }) = parse(br#"{"return": {"a": 1}, "id": 7}"#)
        else {
            panic!("an answer");
        };
        assert_eq!(value, json!({ "a": 1 }));
        let refusal = br#"{"id": 8, "error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}"#;
        let Ok(Incoming::Answer {
            id: 8,
            result: Err(QmpError::Refused { class, description }),
        }) = parse(refusal)
        else {
            panic!("a refusal");
        };
        assert_eq!(
            (class.as_str(), description.as_str()),
            ("DeviceNotFound", "Device 'x' not found")
        );
        let event = br#"{"timestamp": {"seconds": 1}, "event": "DEVICE_DELETED", "data": {"device": "d"}}"#;
        let Ok(Incoming::Event(event)) = parse(event) else {
            panic!("an event")
        };
        assert_eq!(
            (event.name.as_str(), event.text("device"), event.text("path")),
            ("DEVICE_DELETED", "d", "")
        );
    }

    #[test]
    fn commands_are_one_line_whatever_their_arguments_hold() {
        let line = command("blockdev-add", &json!({ "filename": "/a\nb\"" }), 3);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(
            command("quit", &Value::Null, 4),
            b"{\"execute\":\"quit\",\"id\":4}\n"
        );
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }
}
