//! The ends of containers: Shutdown* and DeleteContainerState (§6).

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::{Context, NONE, OUT, Running},
    frame::{code, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("shutdown/graceful-is-term", "6", &[Need::Container], graceful),
    Case::new("shutdown/forced-is-kill", "6", &[Need::Container], forced),
    Case::new(
        "shutdown/before-the-start",
        "6",
        &[Need::Container],
        before_the_start,
    ),
    Case::new("shutdown/after-the-end", "4", &[Need::Container], after_the_end),
    Case::new("delete/frees-the-id", "6", DELETES, frees_the_id),
    Case::new("delete/not-while-it-runs", "6", DELETES, not_while_it_runs),
    Case::new("delete/removes-the-bundle", "6", DELETES, removes_the_bundle),
];

const DELETES: &[Need] = &[Need::Container, Need::Capability("DeleteContainerStateSupported")];

/// Ends with 9 of SIGTERM, and by itself after a while.
const TRAP: &str =
    "trap 'exit 9' TERM; echo ready; i=0; while [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done";

fn trapping(ctx: &mut Context<'_>) -> Outcome<(String, Running)> {
    let id = ctx.create(TRAP)?;
    let mut init = ctx.start_init(&id, OUT)?;
    let mut ready = [0; 6];
    if let Some(stdout) = &mut init.stdout {
        std::io::Read::read_exact(stdout, &mut ready)
            .map_err(|error| crate::case::Stop::Failed(format!("standard output broke: {error}")))?;
    }
    Ok((id, init))
}

fn ends_as(ctx: &mut Context<'_>, id: &str, kinds: &[&str]) -> Outcome<Value> {
    let notification = ctx.session.notification(id)?;
    let kind = notification["Type"].as_str().unwrap_or_default();
    ensure(kinds.contains(&kind), || {
        format!(
            "the end is told as {}, not as {}",
            notification["Type"],
            kinds.join(" or ")
        )
    })?;
    Ok(notification)
}

fn graceful(ctx: &mut Context<'_>) -> Outcome {
    let (id, mut init) = trapping(ctx)?;
    ctx.of(&id, word::SHUTDOWN_GRACEFUL, json!({}))?.ok()?;
    init.stdout = None;
    let code = ctx.wait(&id, init.pid)?;
    ensure(code == 9, || {
        format!("the first process did not see SIGTERM: it ended with {code}")
    })?;
    ends_as(ctx, &id, &["GracefulExit"])?;
    ctx.delete(&id)
}

fn forced(ctx: &mut Context<'_>) -> Outcome {
    let (id, mut init) = trapping(ctx)?;
    ctx.of(&id, word::SHUTDOWN_FORCED, json!({}))?.ok()?;
    init.stdout = None;
    let code = ctx.wait(&id, init.pid)?;
    ensure(code != 9 && code != 0, || {
        format!("the first process was not killed: it ended with {code}")
    })?;
    ends_as(ctx, &id, &["ForcedExit"])?;
    ctx.delete(&id)
}

/// A container that was created and never started owes its notification as well.
fn before_the_start(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("exit 0")?;
    ctx.of(&id, word::SHUTDOWN_FORCED, json!({}))?.ok()?;
    ends_as(ctx, &id, &["ForcedExit"])?;
    ctx.delete(&id)
}

/// The host takes "unknown" for success; "already stopped" has a code of its own.
fn after_the_end(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("exit 0")?;
    let init = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, init.pid)?;
    ends_as(ctx, &id, &["UnexpectedExit"])?;
    for word in [word::SHUTDOWN_GRACEFUL, word::SHUTDOWN_FORCED] {
        let reply = ctx.of(&id, word, json!({}))?;
        if reply.result != 0 {
            reply.fails(&[code::ALREADY_STOPPED, code::UNKNOWN_CONTAINER])?;
        }
    }
    ctx.delete(&id)
}

fn frees_the_id(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.new_id();
    for _ in 0..2 {
        let config = ctx.config(&id, "exit 0", |_| {})?;
        ctx.create_as(&id, &config, "an activity")?.ok()?;
        let init = ctx.start_init(&id, NONE)?;
        ctx.wait(&id, init.pid)?;
        ctx.session.notification(&id)?;
        ctx.delete(&id)?;
        ctx.of(&id, word::GET_PROPERTIES, json!({"Query": ""}))?
            .fails(&[code::UNKNOWN_CONTAINER])?;
    }
    Ok(())
}

/// Refused, or done with the container ended first: never a container that runs on without a name.
fn not_while_it_runs(ctx: &mut Context<'_>) -> Outcome {
    let (id, mut init) = trapping(ctx)?;
    let reply = ctx.of(&id, word::DELETE_CONTAINER_STATE, json!({}))?;
    init.stdout = None;
    if reply.result == 0 {
        return ctx.session.notification(&id).map(drop);
    }
    reply.fails(&[])?;
    ctx.of(&id, word::SHUTDOWN_FORCED, json!({}))?.ok()?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn removes_the_bundle(ctx: &mut Context<'_>) -> Outcome {
    let setup = ctx.container_setup()?;
    let id = ctx.create("exit 0")?;
    let bundle = setup.bundles.join(&id);
    ensure(ctx.agent_has(&bundle.join("config.json"))?, || {
        format!("Create wrote no {}/config.json", bundle.display())
    })?;
    let init = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)?;
    ensure(!ctx.agent_has(&bundle)?, || {
        format!("{} is still there", bundle.display())
    })
}
