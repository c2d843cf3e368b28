//! The bends: what is done to a message, and which case must see it.

mod rules;

use cofferdam_conformance::frame::word;
use serde_json::{Value, json};

pub(crate) use rules::RULES;

/// What becomes of a request: the request as it is now, or an answer instead.
pub(crate) enum Bent {
    Request,
    Answer(Value),
}

pub(crate) type BendRequest = fn(u32, &mut Value) -> Bent;
pub(crate) type BendAnswer = fn(u32, &mut Value);

/// One bend, and the case that must see it.
pub(crate) struct Rule {
    pub(crate) what: &'static str,
    pub(crate) case: &'static str,
    pub(crate) request: BendRequest,
    pub(crate) answer: BendAnswer,
}

pub(crate) const fn request(what: &'static str, case: &'static str, bend: BendRequest) -> Rule {
    Rule {
        what,
        case,
        request: bend,
        answer: |_, _| {},
    }
}

const fn answer(what: &'static str, case: &'static str, bend: BendAnswer) -> Rule {
    Rule {
        what,
        case,
        request: |_, _| Bent::Request,
        answer: bend,
    }
}

/// Changes a JSON text in a member.
fn within(body: &mut Value, path: &str, change: impl FnOnce(&mut Value)) {
    let Some(member) = body.pointer_mut(path) else {
        return;
    };
    let Some(text) = member.as_str() else { return };
    let Ok(mut inner) = serde_json::from_str::<Value>(text) else {
        return;
    };
    change(&mut inner);
    *member = inner.to_string().into();
}

const PARAMETERS: &str = "/Settings/ProcessParameters";

/// A request's spec, changed.
fn spec(word: u32, body: &mut Value, change: impl FnOnce(&mut Value)) -> Bent {
    if word == word::CREATE {
        within(body, "/ContainerConfig", |config| {
            change(&mut config["OciSpecification"])
        });
    }
    Bent::Request
}

/// A request's process parameters, changed.
fn parameters(word: u32, body: &mut Value, change: impl FnOnce(&mut Value)) -> Bent {
    if word == word::EXECUTE_PROCESS {
        within(body, PARAMETERS, change);
    }
    Bent::Request
}

/// Requests of this kind are not performed, and said to have succeeded.
fn swallowed(word: u32, of: u32) -> Bent {
    if word == of {
        Bent::Answer(json!({"Result": 0, "ProcessId": 77}))
    } else {
        Bent::Request
    }
}

fn succeeded(word: u32, of: u32, body: &mut Value) {
    if word == of {
        body["Result"] = 0.into();
    }
}
