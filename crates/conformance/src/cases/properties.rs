//! GetProperties and DumpStacks (§6).

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, Stop, ensure},
    context::{Context, Running},
    frame::word,
};

pub(super) const CASES: &[Case] = &[
    Case::new("properties/process-list", "6", &[Need::Container], process_list),
    Case::new("properties/statistics", "6", &[Need::Container], statistics),
    Case::new(
        "properties/empty-and-unknown-queries",
        "6",
        &[Need::Container],
        odd_queries,
    ),
    Case::new(
        "stacks/of-the-agent",
        "6",
        &[Need::Capability("DumpStacksSupported")],
        stacks,
    ),
];

fn running(ctx: &mut Context<'_>) -> Outcome<(String, Running)> {
    let id = ctx.create("read line")?;
    let init = ctx.start_init(&id, [true, false, false])?;
    Ok((id, init))
}

fn end(ctx: &mut Context<'_>, id: &str, mut init: Running) -> Outcome {
    init.end_input()?;
    ctx.wait(id, init.pid)?;
    ctx.session.notification(id)?;
    ctx.delete(id)
}

/// `Properties`, a JSON text in a member.
fn ask(ctx: &mut Context<'_>, id: &str, query: &str) -> Outcome<Value> {
    let reply = ctx.of(id, word::GET_PROPERTIES, json!({"Query": query}))?.ok()?;
    let text = match &reply["Properties"] {
        Value::String(text) if text.is_empty() => return Ok(json!({})),
        Value::String(text) => text.clone(),
        Value::Null => return Ok(json!({})),
        other => return Err(Stop::Failed(format!("Properties is not a JSON text: {other}"))),
    };
    serde_json::from_str(&text)
        .map_err(|error| Stop::Failed(format!("Properties is no JSON text ({error}): {text}")))
}

fn process_list(ctx: &mut Context<'_>) -> Outcome {
    let (id, init) = running(ctx)?;
    let properties = ask(ctx, &id, r#"{"PropertyTypes":["ProcessList"]}"#)?;
    let list = properties["ProcessList"].as_array();
    let pids: Vec<u64> = list
        .into_iter()
        .flatten()
        .filter_map(|process| process["ProcessId"].as_u64())
        .collect();
    ensure(pids.contains(&u64::from(init.pid)), || {
        format!("the list {pids:?} does not hold the first process, {}", init.pid)
    })?;
    end(ctx, &id, init)
}

fn statistics(ctx: &mut Context<'_>) -> Outcome {
    let (id, init) = running(ctx)?;
    let properties = ask(ctx, &id, r#"{"PropertyTypes":["Statistics","ProcessList"]}"#)?;
    let metrics = &properties["LCOWMetrics"];
    ensure(metrics.is_object(), || format!("LCOWMetrics is {metrics}"))?;
    for group in ["pids", "cpu", "memory"] {
        ensure(matches!(metrics[group], Value::Null | Value::Object(_)), || {
            format!("LCOWMetrics.{group} is {}", metrics[group])
        })?;
    }
    ensure(properties["ProcessList"].is_array(), || {
        "asked for both, the agent left the ProcessList out".into()
    })?;
    end(ctx, &id, init)
}

fn odd_queries(ctx: &mut Context<'_>) -> Outcome {
    let (id, init) = running(ctx)?;
    for query in [
        "",
        "{}",
        r#"{"PropertyTypes":[]}"#,
        r#"{"PropertyTypes":["Memory","NoSuchThing"]}"#,
        r#"{"PropertyTypes":null}"#,
    ] {
        ask(ctx, &id, query)?;
    }
    end(ctx, &id, init)
}

fn stacks(ctx: &mut Context<'_>) -> Outcome {
    let reply = ctx.vm(word::DUMP_STACKS, json!({}))?.ok()?;
    ensure(
        reply["GuestStacks"]
            .as_str()
            .is_some_and(|text| !text.trim().is_empty()),
        || format!("GuestStacks is {}", reply["GuestStacks"]),
    )
}
