//! Negotiation (§5).

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::Context,
    frame::{NO_ACTIVITY, code, word},
    reply::Reply,
};

pub(super) const CASES: &[Case] = &[
    Case::new("negotiation/version-4", "5", &[Need::Fresh], version_4),
    Case::new("negotiation/range-around-4", "5", &[Need::Fresh], range_around_4),
    Case::new("negotiation/none-common", "5", &[Need::Fresh], none_common),
    Case::new("negotiation/twice", "5", &[Need::Fresh], twice),
    Case::new("negotiation/first-of-all", "5", &[Need::Fresh], first_of_all),
    Case::new("negotiation/capabilities", "5", &[], capabilities),
];

fn negotiate(ctx: &mut Context<'_>, minimum: u32, maximum: u32) -> Outcome<Reply> {
    let range = json!({
        "ContainerId": "", "ActivityId": NO_ACTIVITY, "MinimumVersion": minimum, "MaximumVersion": maximum,
    });
    ctx.session.call(word::NEGOTIATE_PROTOCOL, &range)
}

fn agrees(ctx: &mut Context<'_>, minimum: u32, maximum: u32) -> Outcome<Value> {
    let reply = negotiate(ctx, minimum, maximum)?.ok()?;
    ensure(reply["Version"] == 4, || {
        format!(
            "of versions {minimum} to {maximum} the agent chose {}",
            reply["Version"]
        )
    })?;
    Ok(reply)
}

fn version_4(ctx: &mut Context<'_>) -> Outcome {
    agrees(ctx, 4, 4).map(drop)
}

fn range_around_4(ctx: &mut Context<'_>) -> Outcome {
    agrees(ctx, 1, 9).map(drop)
}

fn none_common(ctx: &mut Context<'_>) -> Outcome {
    for (minimum, maximum) in [(5, 9), (0, 3), (u32::MAX, u32::MAX)] {
        negotiate(ctx, minimum, maximum)?.fails(&[code::PROTOCOL_VERSION])?;
    }
    // The state is still "nothing agreed", and a right range is taken.
    ctx.vm(word::DUMP_STACKS, json!({}))?
        .fails(&[code::NOT_IMPLEMENTED])?;
    agrees(ctx, 4, 4).map(drop)
}

/// A second negotiation is answered, and the connection goes on.
fn twice(ctx: &mut Context<'_>) -> Outcome {
    agrees(ctx, 4, 4)?;
    agrees(ctx, 4, 4)?;
    ctx.vm(word::WAIT_FOR_PROCESS, json!({"ProcessId": 4_194_301}))?
        .fails(&[code::UNKNOWN_PROCESS])
}

fn first_of_all(ctx: &mut Context<'_>) -> Outcome {
    let words = [
        word::CREATE,
        word::START,
        word::EXECUTE_PROCESS,
        word::WAIT_FOR_PROCESS,
        word::SIGNAL_PROCESS,
        word::RESIZE_CONSOLE,
        word::GET_PROPERTIES,
        word::MODIFY_SETTINGS,
        word::DUMP_STACKS,
        word::DELETE_CONTAINER_STATE,
    ];
    for word in words {
        // Not the VM's id: an agent that serves Shutdown early must not end here either.
        ctx.of("c", word, json!({}))?.fails(&[code::NOT_IMPLEMENTED])?;
    }
    agrees(ctx, 4, 4).map(drop)
}

fn capabilities(ctx: &mut Context<'_>) -> Outcome {
    let all = ctx.capabilities;
    ensure(
        all["RuntimeOsType"]
            .as_str()
            .is_some_and(|system| system.eq_ignore_ascii_case("linux")),
        || {
            format!(
                "RuntimeOsType is {}; an empty one means Windows",
                all["RuntimeOsType"]
            )
        },
    )?;
    let schemas = all["SupportedSchemaVersions"].as_array();
    ensure(
        schemas.is_some_and(|versions| versions.contains(&json!({"Major": 2, "Minor": 1}))),
        || {
            format!(
                "SupportedSchemaVersions has no 2.1: {}",
                all["SupportedSchemaVersions"]
            )
        },
    )?;
    for flag in ["SendHostCreateMessage", "SendHostStartMessage"] {
        ensure(matches!(all[flag], Value::Null | Value::Bool(false)), || {
            format!("{flag} is {}: a Linux guest does not ask for it", all[flag])
        })?;
    }
    for flag in [
        "NamespaceAddRequestSupported",
        "SignalProcessSupported",
        "DumpStacksSupported",
        "DeleteContainerStateSupported",
    ] {
        let value = &all["GuestDefinedCapabilities"][flag];
        ensure(matches!(value, Value::Null | Value::Bool(_)), || {
            format!("{flag} is {value}, not true or false")
        })?;
    }
    Ok(())
}
