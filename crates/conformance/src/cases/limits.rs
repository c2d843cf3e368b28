//! Answers stay below 64 KiB, and streams carry megabytes (§2, §13.3). The session refuses a larger frame whenever one
//! comes; these cases provoke it.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, Stop, ensure},
    context::{Context, NONE, OUT},
    frame::{VM, code, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("limits/huge-names-in-a-failure", "13.3", &[], huge_names),
    Case::new(
        "limits/stacks-in-a-frame",
        "13.3",
        &[Need::Capability("DumpStacksSupported")],
        stacks,
    ),
    Case::new(
        "limits/long-process-list",
        "13.3",
        &[Need::Container],
        long_process_list,
    ),
    Case::new("limits/megabytes-both-ways", "8", &[Need::Shell], both_ways),
    Case::new(
        "limits/megabytes-to-a-slow-reader",
        "8",
        &[Need::Shell],
        slow_reader,
    ),
    Case::new(
        "limits/megabytes-of-a-container",
        "8",
        &[Need::Container],
        of_a_container,
    ),
];

/// Bytes of each direction: far more than any buffer between the two.
const BYTES: usize = 8 << 20;
/// Processes whose list is longer than a frame, escaped as a JSON text in a JSON text.
const PROCESSES: usize = 3500;

fn huge_names(ctx: &mut Context<'_>) -> Outcome {
    // A control character takes six bytes as JSON.
    let long = "\u{1}".repeat(100_000);
    ctx.of(
        &long,
        word::GET_PROPERTIES,
        json!({"Query": "", "ActivityId": long}),
    )?
    .fails(&[])?;
    let modify = json!({"Request": {"RequestType": "Add", "ResourceType": long, "Settings": {}}});
    ctx.vm(word::MODIFY_SETTINGS, modify)?.fails(&[])?;
    let parameters = json!({"CommandArgs": [format!("/no/such/{long}")]}).to_string();
    let settings = json!({"ProcessParameters": parameters, "VsockStdioRelaySettings": {}});
    ctx.vm(word::EXECUTE_PROCESS, json!({"Settings": settings}))?
        .fails(&[])
}

fn stacks(ctx: &mut Context<'_>) -> Outcome {
    // Many tasks at work, then their stacks.
    let mut waits = Vec::new();
    for _ in 0..100 {
        waits.push(ctx.send("no-such-container", word::GET_PROPERTIES, json!({"Query": ""})));
    }
    let reply = ctx.vm(word::DUMP_STACKS, json!({}))?.ok()?;
    ensure(
        reply["GuestStacks"].as_str().is_some_and(|text| !text.is_empty()),
        || format!("GuestStacks is {}", reply["GuestStacks"]),
    )?;
    for id in waits {
        ctx.session.answer(id)?.fails(&[code::UNKNOWN_CONTAINER])?;
    }
    Ok(())
}

fn long_process_list(ctx: &mut Context<'_>) -> Outcome {
    let script = format!(
        "i=0; while [ $i -lt {PROCESSES} ]; do sleep 120 & i=$((i+1)); done; echo ready; read line; exit 0"
    );
    let id = ctx.create(&script)?;
    let mut init = ctx.start_init(&id, [true, true, false])?;
    let mut ready = [0; 6];
    if let Some(stdout) = &mut init.stdout {
        stdout.set_read_timeout(Some(ctx.session.limit() * 3))?;
        stdout.read_exact(&mut ready).map_err(|error| {
            Stop::NotTried(format!("{PROCESSES} processes could not be started: {error}"))
        })?;
    }
    let query = json!({"Query": r#"{"PropertyTypes":["ProcessList"]}"#});
    // Cut, or refused: both are answers within a frame. The session looks at the size.
    let reply = ctx.of(&id, word::GET_PROPERTIES, query)?;
    if reply.result != 0 {
        reply.fails(&[])?;
    }
    ctx.of(&id, word::SHUTDOWN_FORCED, json!({}))?.ok()?;
    init.stdout = None;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

/// Bytes without a period that a lost or doubled piece could hide in.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        })
        .collect()
}

/// Holds `got` to `sent`.
pub(super) fn same(got: &[u8], sent: &[u8]) -> Outcome {
    let wrong = got.iter().zip(sent).position(|(is, should)| is != should);
    ensure(got == sent, || match wrong {
        Some(at) => format!("byte {at} of {} is wrong", sent.len()),
        None => format!("{} bytes came of {}", got.len(), sent.len()),
    })
}

/// Sends `bytes` into `stream` and then its end, beside the caller.
fn feed(stream: Option<UnixStream>, bytes: Vec<u8>) -> thread::JoinHandle<std::io::Result<()>> {
    thread::spawn(move || {
        if let Some(mut stream) = stream {
            stream.write_all(&bytes)?;
            stream.shutdown(Shutdown::Write)?;
        }
        Ok(())
    })
}

fn fed(feeding: thread::JoinHandle<std::io::Result<()>>) -> Outcome {
    match feeding.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Stop::Failed(format!("standard input was not taken: {error}"))),
        Err(_) => Err(Stop::NotTried("the suite's own thread broke".into())),
    }
}

fn both_ways(ctx: &mut Context<'_>) -> Outcome {
    let mut cat = ctx.vm_shell("cat", [true, true, false])?;
    echo(ctx, &mut cat, VM)
}

fn echo(ctx: &mut Context<'_>, cat: &mut crate::context::Running, of: &str) -> Outcome {
    let sent = pattern(BYTES);
    let feeding = feed(cat.stdin.take(), sent.clone());
    let got = crate::context::read_to_end(cat.stdout.take(), "standard output");
    fed(feeding)?;
    same(&got?, &sent)?;
    let code = ctx.wait(of, cat.pid)?;
    ensure(code == 0, || format!("cat ended with {code}"))
}

/// A reader that takes its time, and whose process has ended long before: nothing is cut off.
fn slow_reader(ctx: &mut Context<'_>) -> Outcome {
    let bytes = 1 << 20;
    let mut head = ctx.vm_shell(&format!("head -c {bytes} /dev/zero; echo end"), OUT)?;
    let mut got = 0;
    let mut last = Vec::new();
    let Some(mut stdout) = head.stdout.take() else {
        return Err(Stop::NotTried("no stream".into()));
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        thread::sleep(Duration::from_millis(if got == 0 { 1500 } else { 5 }));
        match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                got += length;
                last.extend_from_slice(&buffer[..length]);
                let extra = last.len().saturating_sub(4);
                last.drain(..extra);
            }
            Err(error) => {
                return Err(Stop::Failed(format!(
                    "standard output broke after {got} bytes: {error}"
                )));
            }
        }
    }
    drop(stdout);
    ensure(got == bytes + 4 && last == b"end\n", || {
        format!("{got} bytes came of {}", bytes + 4)
    })?;
    ctx.wait(VM, head.pid).map(drop)
}

fn of_a_container(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("cat")?;
    let mut cat = ctx.start_init(&id, [true, true, false])?;
    echo(ctx, &mut cat, &id)?;
    let notification: Value = ctx.session.notification(&id)?;
    ensure(notification["ContainerId"] == id.as_str(), || {
        notification.to_string()
    })?;
    // Without any stream as well.
    ctx.delete(&id)?;
    let id = ctx.create("head -c 3000000 /dev/zero")?;
    let head = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, head.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}
