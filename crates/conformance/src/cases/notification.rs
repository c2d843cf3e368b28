//! The exit notification: exactly one for each container, after its output is out, and none for anybody else (§6).
//! The session fails any case in which a notification comes that is not due.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, ensure, failed},
    context::{Context, NONE, OUT},
    frame::{code, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("notification/exactly-one", "6", &[Need::Container], exactly_one),
    Case::new("notification/members", "6", &[Need::Container], members),
    Case::new(
        "notification/after-stdio-is-drained",
        "6",
        &[Need::Container],
        after_stdio,
    ),
    Case::new(
        "notification/not-for-a-failed-create",
        "6",
        &[Need::Container],
        not_for_a_failed_create,
    ),
    Case::new("notification/not-for-unknown-ids", "6", &[], not_for_unknown_ids),
    Case::new(
        "notification/without-a-wait",
        "6",
        &[Need::Container],
        without_a_wait,
    ),
    Case::new(
        "notification/though-nobody-reads",
        "8",
        &[Need::Container],
        nobody_reads,
    ),
];

/// How long a second notification is waited for.
const SECOND: Duration = Duration::from_millis(700);

fn exactly_one(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("read line")?;
    let mut init = ctx.start_init(&id, [true, false, false])?;
    init.end_input()?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    // Whatever is asked of it now, it has ended once. The session fails the case if another comes.
    let reply = ctx.of(&id, word::SHUTDOWN_FORCED, json!({}))?;
    if reply.result != 0 {
        reply.fails(&[])?;
    }
    ctx.session.listen_for(SECOND)?;
    ctx.delete(&id)?;
    ctx.session.listen_for(SECOND / 2)
}

fn members(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.new_id();
    let activity = "11111111-2222-3333-4444-555555555555";
    let config = ctx.config(&id, "exit 5", |_| {})?;
    ctx.create_as(&id, &config, activity)?.ok()?;
    let init = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, init.pid)?;
    let notification = ctx.session.notification(&id)?;
    ensure(notification["ActivityId"] == activity, || {
        format!(
            "the ActivityId is {}, Create's was {activity}",
            notification["ActivityId"]
        )
    })?;
    ensure(notification["Type"] == "UnexpectedExit", || {
        format!("an end by itself is told as {}", notification["Type"])
    })?;
    ensure(
        matches!(notification["Operation"].as_str(), None | Some("None" | "")),
        || format!("the Operation is {}", notification["Operation"]),
    )?;
    ensure(
        matches!(notification["Result"], Value::Null) || notification["Result"] == 0,
        || format!("the Result is {}", notification["Result"]),
    )?;
    ctx.delete(&id)
}

/// The container has ended, and its output is still on its way because the host does not read: nothing is told.
fn after_stdio(ctx: &mut Context<'_>) -> Outcome {
    let bytes = 3_000_000;
    let id = ctx.create(&format!("head -c {bytes} /dev/zero; exit 0"))?;
    let mut init = ctx.start_init(&id, OUT)?;
    ctx.session.listen_for(Duration::from_millis(800))?;
    if !ctx.session.notifications(&id)?.is_empty() {
        return failed(format!(
            "the end was told while most of {bytes} bytes of output had not been read"
        ));
    }
    let out = crate::context::read_to_end(init.stdout.take(), "standard output")?;
    ensure(out.len() == bytes, || {
        format!("{} bytes came of {bytes}", out.len())
    })?;
    ctx.session.notification(&id)?;
    ctx.wait(&id, init.pid)?;
    ctx.delete(&id)
}

fn not_for_a_failed_create(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.new_id();
    let config = ctx.config(&id, "exit 0", |spec| {
        spec["root"]["path"] = "/no/such/root".into()
    })?;
    ctx.create_as(&id, &config, "an activity")?.fails(&[])?;
    ctx.session.listen_for(SECOND)
}

fn not_for_unknown_ids(ctx: &mut Context<'_>) -> Outcome {
    for word in [word::SHUTDOWN_GRACEFUL, word::SHUTDOWN_FORCED] {
        ctx.of("no-such-container", word, json!({}))?
            .fails(&[code::UNKNOWN_CONTAINER])?;
    }
    ctx.of("no-such-container", word::SIGNAL_PROCESS, json!({"ProcessId": 1}))?
        .fails(&[])?;
    ctx.session.listen_for(SECOND)
}

/// The host need not have asked.
fn without_a_wait(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("echo some output; exit 3")?;
    let mut init = ctx.start_init(&id, OUT)?;
    init.output()?;
    ctx.session.notification(&id)?;
    // Late, but the exit code is kept.
    let code = ctx.wait(&id, init.pid)?;
    ensure(code == 3, || format!("the exit code is {code}"))?;
    ctx.delete(&id)
}

/// A host whose reader has gone must still learn of the end.
fn nobody_reads(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("head -c 1000000 /dev/zero; exit 0")?;
    let mut init = ctx.start_init(&id, OUT)?;
    init.stdout = None;
    ctx.session.notification(&id)?;
    ctx.wait(&id, init.pid)?;
    ctx.delete(&id)
}
