//! What cannot be done is answered: same id, a failing code, a message; and the connection survives (§4).

use serde_json::json;

use crate::{
    case::{Case, Need, Outcome},
    context::{Context, NONE},
    frame::{VM, code, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("errors/unknown-container", "4", &[], unknown_container),
    Case::new("errors/unknown-process", "4", &[], unknown_process),
    Case::new("errors/malformed-json", "4", &[], malformed_json),
    Case::new(
        "errors/malformed-json-in-string",
        "6",
        &[],
        malformed_json_in_string,
    ),
    Case::new("errors/wrong-member-types", "4", &[], wrong_member_types),
    Case::new("errors/schema-version-below-2-1", "6", &[], old_schema),
    Case::new("errors/vm-is-no-container", "3", &[], vm_is_no_container),
    Case::new("errors/double-create", "4", &[Need::Container], double_create),
    Case::new("errors/double-start", "6", &[Need::Container], double_start),
    Case::new(
        "errors/exec-after-the-end",
        "6",
        &[Need::Container],
        exec_after_the_end,
    ),
    Case::new(
        "errors/container-without-root",
        "6",
        &[Need::Container],
        without_root,
    ),
];

const ABSENT: &str = "no-such-container";

/// The connection still serves.
fn survives(ctx: &mut Context<'_>) -> Outcome {
    ctx.vm(word::WAIT_FOR_PROCESS, json!({"ProcessId": 4_194_301}))?
        .fails(&[code::UNKNOWN_PROCESS])
}

fn unknown_container(ctx: &mut Context<'_>) -> Outcome {
    let start = json!({"Settings": {"ProcessParameters": "{}", "VsockStdioRelaySettings": {}}});
    ctx.of(ABSENT, word::EXECUTE_PROCESS, start)?
        .fails(&[code::UNKNOWN_CONTAINER])?;
    let query = json!({"Query": r#"{"PropertyTypes":["ProcessList"]}"#});
    ctx.of(ABSENT, word::GET_PROPERTIES, query)?
        .fails(&[code::UNKNOWN_CONTAINER])?;
    for word in [word::SHUTDOWN_GRACEFUL, word::SHUTDOWN_FORCED] {
        ctx.of(ABSENT, word, json!({}))?
            .fails(&[code::UNKNOWN_CONTAINER])?;
    }
    for word in [word::SIGNAL_PROCESS, word::RESIZE_CONSOLE] {
        ctx.of(ABSENT, word, json!({"ProcessId": 1}))?
            .fails(&[code::UNKNOWN_CONTAINER, code::UNKNOWN_PROCESS])?;
    }
    survives(ctx)
}

fn unknown_process(ctx: &mut Context<'_>) -> Outcome {
    // Above the largest pid a kernel gives by default, and 0, which kill would take for the whole group.
    for pid in [4_194_301_u32, 0, u32::MAX] {
        ctx.vm(
            word::WAIT_FOR_PROCESS,
            json!({"ProcessId": pid, "TimeoutInMs": u32::MAX}),
        )?
        .fails(&[code::UNKNOWN_PROCESS])?;
        // A reference agent looks for a container first, and has none for the VM.
        for word in [word::SIGNAL_PROCESS, word::RESIZE_CONSOLE] {
            ctx.vm(word, json!({"ProcessId": pid, "Options": {"Signal": 15}}))?
                .fails(&[code::UNKNOWN_PROCESS, code::UNKNOWN_CONTAINER])?;
        }
    }
    survives(ctx)
}

fn malformed_json(ctx: &mut Context<'_>) -> Outcome {
    let deep = "[".repeat(50_000);
    for body in [
        &b""[..],
        b"{",
        b"{\"ContainerId\":\"c\"",
        b"null x",
        b"\xff\xfe{}",
        b"\0",
        deep.as_bytes(),
    ] {
        for word in [word::GET_PROPERTIES, word::WAIT_FOR_PROCESS, word::CREATE] {
            let id = ctx.session.send_text(word, body);
            ctx.session.answer(id)?.fails(&[code::BAD_JSON])?;
        }
    }
    survives(ctx)
}

fn malformed_json_in_string(ctx: &mut Context<'_>) -> Outcome {
    let broken = "{\"SchemaVersion\":";
    let create = json!({"ContainerConfig": broken});
    ctx.of("conformance-broken", word::CREATE, create)?
        .fails(&[code::BAD_JSON])?;
    let settings = json!({"Settings": {"ProcessParameters": broken, "VsockStdioRelaySettings": {}}});
    ctx.vm(word::EXECUTE_PROCESS, settings)?
        .fails(&[code::BAD_JSON])?;
    // Whether the query or the container is looked at first is the agent's choice.
    ctx.of(ABSENT, word::GET_PROPERTIES, json!({"Query": broken}))?
        .fails(&[code::BAD_JSON, code::UNKNOWN_CONTAINER])?;
    survives(ctx)
}

fn wrong_member_types(ctx: &mut Context<'_>) -> Outcome {
    ctx.session.listen_for(std::time::Duration::ZERO)?;
    for body in [
        &br#"{"ContainerId":7,"ProcessId":1}"#[..],
        br#"{"ContainerId":"c","ProcessId":"one"}"#,
        br#"{"ContainerId":"c","ProcessId":-1}"#,
        br#"{"ContainerId":"c","ProcessId":4294967296}"#,
        br#"{"ContainerId":"c","ProcessId":1.5}"#,
    ] {
        let id = ctx.session.send_text(word::WAIT_FOR_PROCESS, body);
        ctx.session.answer(id)?.fails(&[])?;
    }
    survives(ctx)
}

fn old_schema(ctx: &mut Context<'_>) -> Outcome {
    for (major, minor) in [(1, 0), (2, 0)] {
        let config = json!({"SchemaVersion": {"Major": major, "Minor": minor}, "OciBundlePath": "/run/gcs/c/none",
                            "OciSpecification": {"root": {"path": "/"}, "process": {"args": ["true"]}}});
        let body = json!({"ContainerConfig": config.to_string()});
        ctx.of("conformance-old", word::CREATE, body)?
            .fails(&[code::BAD_JSON])?;
    }
    survives(ctx)
}

/// Messages that are not for the null container (§3, last column).
fn vm_is_no_container(ctx: &mut Context<'_>) -> Outcome {
    ctx.vm(
        word::GET_PROPERTIES,
        json!({"Query": r#"{"PropertyTypes":["ProcessList"]}"#}),
    )?
    .fails(&[])?;
    ctx.vm(word::DELETE_CONTAINER_STATE, json!({}))?.fails(&[])?;
    ctx.of(
        VM,
        word::CREATE,
        json!({"ContainerConfig": r#"{"SystemType":"Container"}"#}),
    )?
    .fails(&[])?;
    survives(ctx)
}

fn double_create(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("exit 0")?;
    let config = ctx.config(&id, "exit 0", |_| {})?;
    let body = json!({"ContainerConfig": config.to_string()});
    ctx.of(&id, word::CREATE, body)?
        .fails(&[code::CONTAINER_EXISTS])?;
    // The first one is as it was.
    let init = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn double_start(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("cat")?;
    let init = ctx.start_init(&id, [true, false, false])?;
    let again = json!({"Settings": {"ProcessParameters": "{}", "VsockStdioRelaySettings": {}}});
    ctx.of(&id, word::EXECUTE_PROCESS, again)?.fails(&[])?;
    // It still runs, and ends as it should.
    init.stdin
        .as_ref()
        .map_or(Ok(()), |stdin| stdin.shutdown(std::net::Shutdown::Write))?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    ctx.delete(&id)
}

fn exec_after_the_end(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.create("exit 0")?;
    let init = ctx.start_init(&id, NONE)?;
    ctx.wait(&id, init.pid)?;
    ctx.session.notification(&id)?;
    refuse_exec(ctx, &id)?;
    ctx.delete(&id)?;
    survives(ctx)
}

fn refuse_exec(ctx: &mut Context<'_>, id: &str) -> Outcome {
    let process = json!({"OciProcess": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}}});
    let body = json!({"Settings": {"ProcessParameters": process.to_string(), "VsockStdioRelaySettings": {}}});
    ctx.of(id, word::EXECUTE_PROCESS, body)?.fails(&[])
}

/// A create that fails leaves nothing: the id is free, and nobody is told of an end.
fn without_root(ctx: &mut Context<'_>) -> Outcome {
    let id = ctx.new_id();
    let config = ctx.config(&id, "exit 0", |spec| {
        spec["root"]["path"] = "/no/such/root".into()
    })?;
    for _ in 0..2 {
        ctx.of(&id, word::CREATE, json!({"ContainerConfig": config.to_string()}))?
            .fails(&[])?;
    }
    ctx.of(&id, word::GET_PROPERTIES, json!({"Query": ""}))?
        .fails(&[code::UNKNOWN_CONTAINER])
}
