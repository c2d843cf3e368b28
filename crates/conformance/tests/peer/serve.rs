//! Requests and answers.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use cofferdam_conformance::frame::{VM, code, encode, word};
use serde_json::{Value, json};

use super::{Fault, Shared, process};

/// A refusal: code and message.
pub(super) type Answer = Result<Value, (u32, String)>;

pub(super) fn refuse<T>(code: u32, message: impl Into<String>) -> Result<T, (u32, String)> {
    Err((code, message.into()))
}

/// Serves one connection.
pub(crate) fn serve(stream: UnixStream, fault: Fault, directory: PathBuf) {
    let mut reader = stream.try_clone().unwrap();
    let shared = super::shared(stream, fault, directory);
    let mut negotiated = false;
    while let Some((word, id, body)) = read(&mut reader, &shared) {
        if word >> 28 != 1 {
            if fault == Fault::AnswersAnswers {
                shared.send(word & 0x0fff_ffff | 0x2000_0000, id, &json!({"Result": 0}));
            }
            continue;
        }
        if word & 0x0ff0_0000 != 0x0010_0000 && fault == Fault::SilentOnUnknownCategory {
            continue;
        }
        if fault == Fault::RefusesNewline && body.ends_with(b"\n") {
            shared.answer(word, id, "", refuse(code::BAD_JSON, "a newline"));
            continue;
        }
        let Some(request) = parse(&body) else {
            match fault {
                Fault::BreaksOnMalformed => break,
                Fault::SilentOnMalformed => {}
                _ => shared.answer(word, id, "", refuse(code::BAD_JSON, "no JSON object")),
            }
            continue;
        };
        let activity = text(&shared, &request, "ActivityId");
        if word == word::NEGOTIATE_PROTOCOL {
            let outcome = if negotiated && fault == Fault::RefusesSecondNegotiation {
                refuse(code::NOT_IMPLEMENTED, "again")
            } else {
                negotiate(&shared, &request)
            };
            negotiated |= outcome.is_ok();
            shared.answer(word, id, &activity, outcome);
            continue;
        }
        if !negotiated && fault != Fault::ServesUnnegotiated {
            shared.answer(
                word,
                id,
                &activity,
                refuse(code::NOT_IMPLEMENTED, "before negotiation"),
            );
            continue;
        }
        let ends = matches!(word, word::SHUTDOWN_GRACEFUL | word::SHUTDOWN_FORCED);
        if ends && text(&shared, &request, "ContainerId") == VM {
            if fault == Fault::AnswersPowerOff {
                shared.answer(word, id, &activity, Ok(json!({})));
            }
            break;
        }
        let of_it = Arc::clone(&shared);
        let work = move || {
            let outcome = perform(&of_it, word, &request);
            of_it.answer(word, id, &activity, outcome);
        };
        if fault == Fault::OneAtATime {
            work();
        } else {
            thread::spawn(work);
        }
    }
    if fault == Fault::StaysAfterTheEnd {
        thread::sleep(Duration::from_secs(20));
    }
    let _ = reader.shutdown(Shutdown::Both);
}

fn read(reader: &mut UnixStream, shared: &Shared) -> Option<(u32, u64, Vec<u8>)> {
    let mut head = [0; 16];
    if shared.is(Fault::ReadsOnce) {
        // A header comes in one piece, it thinks.
        reader.read(&mut head).ok().filter(|length| *length == 16)?;
    } else {
        reader.read_exact(&mut head).ok()?;
    }
    let four = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let size = four(4);
    let mut id = u64::from_le_bytes(head[8..].try_into().unwrap());
    if shared.is(Fault::IdsOf32Bits) {
        id &= 0xffff_ffff;
    }
    if shared.is(Fault::RefusesLargeRequests) && size > 65_536 {
        return None;
    }
    let waits = size < 16 && shared.is(Fault::WaitsBelowHeader)
        || size > 8 << 20 && shared.is(Fault::WaitsForGigabytes);
    if waits {
        let _ = reader.read_to_end(&mut Vec::new());
        return None;
    }
    if !(16..=8 << 20).contains(&size) {
        return None;
    }
    let mut body = vec![0; size as usize - 16];
    reader.read_exact(&mut body).ok()?;
    Some((four(0), id, body))
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(body)
        .ok()
        .filter(Value::is_object)
}

/// A member, its name in any case.
pub(super) fn member<'a>(shared: &Shared, object: &'a Value, name: &str) -> &'a Value {
    if shared.is(Fault::ExactMemberNames) {
        return &object[name];
    }
    let mut members = object.as_object().into_iter().flatten();
    members
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map_or(&Value::Null, |(_, value)| value)
}

fn text(shared: &Shared, object: &Value, name: &str) -> String {
    member(shared, object, name)
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A JSON text in a member; an empty one is an empty object.
pub(super) fn in_string(shared: &Shared, object: &Value, name: &str) -> Result<Value, (u32, String)> {
    match text(shared, object, name).trim() {
        "" => Ok(json!({})),
        text => parse(text.as_bytes()).ok_or((code::BAD_JSON, format!("{name} is no JSON text"))),
    }
}

fn negotiate(shared: &Shared, request: &Value) -> Answer {
    let number = |name| member(shared, request, name).as_u64().unwrap_or(0);
    let fits = number("MinimumVersion") <= 4 && number("MaximumVersion") >= 4;
    if !fits && !shared.is(Fault::TakesAnyVersion) {
        return refuse(code::PROTOCOL_VERSION, "versions");
    }
    let system = if shared.is(Fault::WindowsType) {
        ""
    } else {
        "Linux"
    };
    Ok(json!({"Version": 4, "Capabilities": {
        "SupportedSchemaVersions": [{"Major": 2, "Minor": 1}], "RuntimeOsType": system,
        "GuestDefinedCapabilities": {
            "SignalProcessSupported": true, "DumpStacksSupported": true, "DeleteContainerStateSupported": true,
        },
    }}))
}

fn perform(shared: &Arc<Shared>, word: u32, request: &Value) -> Answer {
    let id = text(shared, request, "ContainerId");
    let pid = || match member(shared, request, "ProcessId") {
        Value::Null => Ok(0),
        number => number
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .ok_or((code::BAD_JSON, "ProcessId".to_owned())),
    };
    if !matches!(
        member(shared, request, "ContainerId"),
        Value::String(_) | Value::Null
    ) {
        return refuse(code::BAD_JSON, "ContainerId");
    }
    match word {
        word::CREATE => process::create(shared, &id, request),
        word::START => Ok(json!({})),
        word::SHUTDOWN_GRACEFUL | word::SHUTDOWN_FORCED => {
            process::shut_down(shared, &id, word == word::SHUTDOWN_FORCED)
        }
        word::EXECUTE_PROCESS => process::execute(shared, &id, request),
        word::WAIT_FOR_PROCESS => {
            process::wait(shared, pid()?, member(shared, request, "TimeoutInMs").as_u64())
        }
        word::SIGNAL_PROCESS => {
            let options = member(shared, request, "Options");
            process::signal(shared, pid()?, member(shared, options, "Signal").as_i64())
        }
        word::RESIZE_CONSOLE => refuse(code::UNKNOWN_PROCESS, "no console"),
        word::GET_PROPERTIES if id == VM => refuse(code::NOT_IMPLEMENTED, "not for the VM"),
        word::GET_PROPERTIES => {
            in_string(shared, request, "Query")?;
            if process::exists(shared, &id) || shared.is(Fault::TakesUnknownContainers) {
                Ok(json!({"Properties": "{}"}))
            } else {
                refuse(code::UNKNOWN_CONTAINER, format!("no container {id:?}"))
            }
        }
        word::MODIFY_SETTINGS => modify(shared, member(shared, request, "Request")),
        word::DUMP_STACKS => {
            let length = if shared.is(Fault::LongStacks) { 70_000 } else { 100 };
            Ok(json!({"GuestStacks": "x".repeat(length)}))
        }
        word::DELETE_CONTAINER_STATE if id == VM => refuse(code::NOT_IMPLEMENTED, "not for the VM"),
        word::DELETE_CONTAINER_STATE => process::delete(shared, &id),
        other => refuse(code::UNKNOWN_MESSAGE, format!("0x{other:08x}")),
    }
}

/// There are no devices: nothing can be added, and everything is removed already.
fn modify(shared: &Shared, request: &Value) -> Answer {
    if request.is_string() && shared.is(Fault::TakesRequestText) {
        return Ok(json!({}));
    }
    if !request.is_object() {
        return refuse(code::BAD_JSON, "Request is no object");
    }
    let resource = text(shared, request, "ResourceType");
    let known = [
        "MappedVirtualDisk",
        "SCSIDevice",
        "VPMemDevice",
        "CombinedLayers",
        "MappedDirectory",
    ];
    if !known.contains(&resource.as_str()) {
        return refuse(0x8007_0057, format!("invalid ResourceType {resource:?}"));
    }
    let default = if shared.is(Fault::RemovesByDefault) {
        "Remove"
    } else {
        "Add"
    };
    match text(shared, request, "RequestType").as_str() {
        "" if default == "Remove" => Ok(json!({})),
        "" | "Add" if shared.is(Fault::AddsWhatIsNotThere) => Ok(json!({})),
        "Remove" if !shared.is(Fault::RefusesRemoval) => Ok(json!({})),
        kind => refuse(0x8000_4005, format!("{kind} {resource}: there is no such device")),
    }
}

impl Shared {
    fn answer(&self, word: u32, id: u64, activity: &str, outcome: Answer) {
        let mut body = match outcome {
            Ok(body) => body,
            Err((code, mut message)) => {
                if !self.is(Fault::LongMessages) {
                    message = message.chars().take(200).collect();
                }
                json!({"Result": code.cast_signed(), "ErrorMessage": message})
            }
        };
        if body["Result"].is_null() {
            body["Result"] = 0.into();
        }
        body["ActivityId"] = if activity.len() > 256 { "" } else { activity }.into();
        if self.is(Fault::OtherActivity) {
            body["ActivityId"] = "another".into();
        }
        let failed = body["Result"] != 0;
        if failed && self.is(Fault::UnsignedResult) {
            body["Result"] = (body["Result"].as_i64().unwrap() as i32).cast_unsigned().into();
        }
        if failed && self.is(Fault::PositiveCode) {
            body["Result"] = 5.into();
        }
        if self.is(Fault::NoErrorMessage) {
            body.as_object_mut().unwrap().remove("ErrorMessage");
        }
        let id = if self.is(Fault::OtherId) {
            id.wrapping_add(1)
        } else {
            id
        };
        let word = if self.is(Fault::RequestTypeInAnswer) {
            word
        } else {
            word & 0x0fff_ffff | 0x2000_0000
        };
        self.send(word, id, &body);
        if self.is(Fault::TwoAnswers) {
            self.send(word, id, &body);
        }
    }

    pub(super) fn send(&self, word: u32, id: u64, body: &Value) {
        let bytes = encode(word, id, body.to_string().as_bytes());
        let _ = self.writer.lock().unwrap().write_all(&bytes);
    }

    /// Dials a port of the host.
    pub(super) fn dial(&self, port: &Value) -> Result<UnixStream, (u32, String)> {
        let path: &Path = &self.directory.join(port.to_string());
        let stream =
            UnixStream::connect(path).map_err(|error| (0x8000_4005, format!("dialling {port}: {error}")))?;
        if self.is(Fault::DialsTwice) {
            drop(UnixStream::connect(path));
        }
        Ok(stream)
    }
}
