//! Requests in flight: answered in any order, each once, none held up by another (§9).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::{Context, exit_code},
    frame::{VM, code, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("ordering/many-in-flight", "9", &[], many_in_flight),
    Case::new(
        "ordering/a-long-wait-holds-up-nobody",
        "9",
        &[Need::Shell],
        long_wait,
    ),
    Case::new(
        "ordering/many-waits-for-many-processes",
        "9",
        &[Need::Shell],
        many_waits,
    ),
    Case::new("ordering/a-slow-change-holds-up-nobody", "9", &[], slow_change),
];

fn many_in_flight(ctx: &mut Context<'_>) -> Outcome {
    let mut asked = Vec::new();
    for round in 0..150_u32 {
        // Of several kinds, whose answers must not be mixed up; each has an activity of its own.
        let activity = format!("activity {round}");
        let (word, body) = match round % 3 {
            0 => (word::GET_PROPERTIES, json!({"Query": "", "ActivityId": activity})),
            1 => (
                word::WAIT_FOR_PROCESS,
                json!({"ProcessId": 4_194_301, "ActivityId": activity}),
            ),
            _ => (word::SHUTDOWN_FORCED, json!({"ActivityId": activity})),
        };
        let code = if word == word::WAIT_FOR_PROCESS {
            code::UNKNOWN_PROCESS
        } else {
            code::UNKNOWN_CONTAINER
        };
        asked.push((ctx.send("no-such-container", word, body), code));
    }
    for (id, code) in asked.into_iter().rev() {
        ctx.session.answer(id)?.fails(&[code, code::UNKNOWN_CONTAINER])?;
    }
    Ok(())
}

fn long_wait(ctx: &mut Context<'_>) -> Outcome {
    let mut cat = ctx.vm_shell("cat", [true, false, false])?;
    let forever = json!({"ProcessId": cat.pid, "TimeoutInMs": u32::MAX});
    let waits: Vec<u64> = (0..20)
        .map(|_| ctx.send(VM, word::WAIT_FOR_PROCESS, forever.clone()))
        .collect();
    let begun = Instant::now();
    ctx.of("no-such-container", word::GET_PROPERTIES, json!({"Query": ""}))?
        .fails(&[code::UNKNOWN_CONTAINER])?;
    let other = ctx.vm_shell("exit 7", [false; 3])?;
    ensure(ctx.wait(VM, other.pid)? == 7, || {
        "another process's exit code is not its own".into()
    })?;
    ensure(begun.elapsed() < ctx.session.limit(), || {
        format!("others were held up for {} ms", begun.elapsed().as_millis())
    })?;
    for id in &waits {
        ensure(!ctx.session.has_answer(*id)?, || {
            "WaitForProcess was answered while the process ran".into()
        })?;
    }
    cat.end_input()?;
    cat.stdin = None;
    for id in waits {
        let reply = ctx.session.answer(id)?.ok()?;
        ensure(exit_code(&reply)? == 0, || {
            format!("cat ended with {}", reply["ExitCode"])
        })?;
    }
    Ok(())
}

/// Exit codes go to those who wait for them, whatever the order of the ends.
fn many_waits(ctx: &mut Context<'_>) -> Outcome {
    let mut running = Vec::new();
    for number in 0..12_u64 {
        let script = format!("read line; exit {}", number + 20);
        let process = ctx.vm_shell(&script, [true, false, false])?;
        let body = json!({"ProcessId": process.pid, "TimeoutInMs": u32::MAX});
        let wait = ctx.send(VM, word::WAIT_FOR_PROCESS, body);
        running.push((process, wait, number + 20));
    }
    for (mut process, wait, code) in running.into_iter().rev() {
        process.end_input()?;
        let reply = ctx.session.answer(wait)?.ok()?;
        ensure(exit_code(&reply)? == code, || {
            format!(
                "a process that ends with {code} is said to have ended with {}",
                reply["ExitCode"]
            )
        })?;
    }
    Ok(())
}

/// A disk that does not come is waited for, and nobody waits with it.
fn slow_change(ctx: &mut Context<'_>) -> Outcome {
    let settings = json!({"MountPath": "/run/gcs/c/conformance/m0", "Controller": 3, "Lun": 61});
    let request = json!({"RequestType": "Add", "ResourceType": "MappedVirtualDisk", "Settings": settings});
    let slow = ctx.send(VM, word::MODIFY_SETTINGS, json!({"Request": request}));
    let begun = Instant::now();
    for _ in 0..10 {
        ctx.of("no-such-container", word::GET_PROPERTIES, json!({"Query": ""}))?
            .fails(&[code::UNKNOWN_CONTAINER])?;
    }
    let took = begun.elapsed();
    let still_waiting = !ctx.session.has_answer(slow)?;
    ctx.session
        .answer_within(slow, ctx.session.limit() + Duration::from_secs(10))?
        .fails(&[])?;
    ensure(still_waiting || took < Duration::from_secs(3), || {
        format!(
            "ten requests took {} ms, and the disk's answer came first",
            took.as_millis()
        )
    })
}
