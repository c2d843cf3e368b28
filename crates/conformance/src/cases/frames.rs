//! Frames: the header, sizes, and streams no honest host sends (§2, §3).

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    case::{Case, Need, Outcome, ensure, failed},
    context::Context,
    frame::{self, VM, code, encode, header, word},
};

pub(super) const CASES: &[Case] = &[
    Case::new("frames/literal-bytes", "11", &[Need::Fresh], literal_bytes),
    Case::new("frames/ids-are-echoed", "2", &[], ids_are_echoed),
    Case::new("frames/duplicate-id", "9", &[], duplicate_id),
    Case::new("frames/byte-by-byte", "2", &[], byte_by_byte),
    Case::new("frames/many-in-one-write", "2", &[], many_in_one_write),
    Case::new("frames/body-ending-in-newline", "2", &[], body_ending_in_newline),
    Case::new("frames/member-names-in-any-case", "2", &[], member_names),
    Case::new("frames/unknown-members", "2", &[], unknown_members),
    Case::new("frames/escaped-letters", "2", &[], escaped_letters),
    Case::new("frames/request-of-a-megabyte", "2", &[], large_request),
    Case::new("frames/unknown-message", "3", &[], unknown_message),
    Case::new("frames/unknown-category", "3", &[], unknown_category),
    Case::new("frames/not-a-request", "3", &[Need::Fresh], not_a_request),
    Case::new(
        "frames/size-below-header",
        "13.1",
        &[Need::Fresh],
        size_below_header,
    ),
    Case::new(
        "frames/size-of-four-gigabytes",
        "13.1",
        &[Need::Fresh],
        size_of_gigabytes,
    ),
    Case::new("frames/cut-in-header", "2", &[Need::Fresh], cut_in_header),
    Case::new("frames/cut-in-body", "2", &[Need::Fresh], cut_in_body),
    Case::new("frames/noise", "2", &[Need::Fresh], noise),
];

/// How long an agent may take to refuse what it has read completely.
const REFUSAL: Duration = Duration::from_secs(5);

/// Negotiation as text, as the protocol shows it.
const NEGOTIATE: &[u8] = b"{\"ContainerId\":\"\",\"ActivityId\":\"00000000-0000-0000-0000-000000000000\",\
                          \"MinimumVersion\":4,\"MaximumVersion\":4}\n";

/// A request that every agent answers, with a failure.
fn unknown_container(ctx: &mut Context<'_>) -> Outcome {
    let body = json!({"ProcessId": 1, "Height": 1, "Width": 1});
    ctx.of("no-such-container", word::RESIZE_CONSOLE, body)?
        .fails(&[code::UNKNOWN_CONTAINER, code::UNKNOWN_PROCESS])
}

fn negotiate(ctx: &mut Context<'_>, id: u64) -> Outcome<Value> {
    ctx.session.expect(0x1010_0b01, id, None);
    ctx.session.send_bytes(&encode(0x1010_0b01, id, NEGOTIATE));
    ctx.session.answer(id)?.ok()
}

fn literal_bytes(ctx: &mut Context<'_>) -> Outcome {
    let body = br#"{"ContainerId":"","ActivityId":"00000000-0000-0000-0000-000000000000","MinimumVersion":4,"MaximumVersion":4}"#;
    let size = u8::try_from(16 + body.len()).unwrap_or_default();
    let head = [0x01, 0x0b, 0x10, 0x10, size, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ctx.session.expect(0x1010_0b01, 0, None);
    ctx.session.send_bytes(&head);
    ctx.session.send_bytes(body);
    let reply = ctx.session.answer(0)?.ok()?;
    ensure(reply["Version"] == 4, || {
        format!("the Version is {}", reply["Version"])
    })
}

fn ids_are_echoed(ctx: &mut Context<'_>) -> Outcome {
    for id in [0, 7, 1 << 31, (1 << 32) + 3, 1 << 63, u64::MAX] {
        ctx.session.expect(word::RESIZE_CONSOLE, id, None);
        let body = br#"{"ContainerId":"no-such-container","ProcessId":1}"#;
        ctx.session.send_bytes(&encode(word::RESIZE_CONSOLE, id, body));
        ctx.session.answer(id)?.fails(&[])?;
    }
    Ok(())
}

fn duplicate_id(ctx: &mut Context<'_>) -> Outcome {
    let body = br#"{"ContainerId":"no-such-container","ProcessId":1}"#;
    let mut both = encode(word::RESIZE_CONSOLE, 99, body);
    both.extend(encode(word::RESIZE_CONSOLE, 99, body));
    ctx.session.expect(word::RESIZE_CONSOLE, 99, None);
    ctx.session.expect(word::RESIZE_CONSOLE, 99, None);
    ctx.session.send_bytes(&both);
    for _ in 0..2 {
        ctx.session.answer(99)?.fails(&[])?;
    }
    unknown_container(ctx)
}

fn byte_by_byte(ctx: &mut Context<'_>) -> Outcome {
    let body = br#"{"ContainerId":"no-such-container","ProcessId":1}"#;
    ctx.session.expect(word::RESIZE_CONSOLE, 50, None);
    for byte in encode(word::RESIZE_CONSOLE, 50, body) {
        ctx.session.send_bytes(&[byte]);
        ctx.session.listen_for(Duration::from_millis(1))?;
    }
    ctx.session.answer(50)?.fails(&[])
}

fn many_in_one_write(ctx: &mut Context<'_>) -> Outcome {
    let body = br#"{"ContainerId":"no-such-container","ProcessId":1}"#;
    let mut bytes = Vec::new();
    for id in 100..120 {
        ctx.session.expect(word::RESIZE_CONSOLE, id, None);
        bytes.extend(encode(word::RESIZE_CONSOLE, id, body));
    }
    ctx.session.send_bytes(&bytes);
    for id in 100..120 {
        ctx.session.answer(id)?.fails(&[])?;
    }
    Ok(())
}

fn body_ending_in_newline(ctx: &mut Context<'_>) -> Outcome {
    let body = b"{\"ContainerId\":\"no-such-container\",\"ProcessId\":1}\n";
    let id = ctx.session.send_text(word::RESIZE_CONSOLE, body);
    ctx.session
        .answer(id)?
        .fails(&[code::UNKNOWN_CONTAINER, code::UNKNOWN_PROCESS])
}

fn member_names(ctx: &mut Context<'_>) -> Outcome {
    // Only who reads the names finds the process it asks about unknown, and the activity to echo.
    let body = br#"{"containerID":"00000000-0000-0000-0000-000000000000","ACTIVITYID":"an activity","processid":4194301,"TIMEOUTINMS":1}"#;
    let id = ctx.session.send_text(word::WAIT_FOR_PROCESS, body);
    let reply = ctx.session.answer(id)?;
    let echoed = reply.body["ActivityId"].clone();
    reply.fails(&[code::UNKNOWN_PROCESS])?;
    ensure(echoed == "an activity", || {
        format!("the member ACTIVITYID was not read: the ActivityId is {echoed}")
    })
}

fn unknown_members(ctx: &mut Context<'_>) -> Outcome {
    let body = json!({"ProcessId": 4_194_301, "TimeoutInMs": 1, "Unheard": {"Of": [1, null, "x"]}, "otsc": null,
                      "ocsc": {"TraceID": "00", "SpanID": "00", "TraceOptions": 0}});
    ctx.vm(word::WAIT_FOR_PROCESS, body)?
        .fails(&[code::UNKNOWN_PROCESS])
}

fn escaped_letters(ctx: &mut Context<'_>) -> Outcome {
    let body = br#"{"ContainerId":"00000000-0000-0000-0000-000000000000","ActivityId":"\u003ca\u0026b\u003e \ud83d\ude00","ProcessId":4194301}"#;
    let id = ctx.session.send_text(word::SIGNAL_PROCESS, body);
    let reply = ctx.session.answer(id)?;
    ensure(reply.body["ActivityId"] == "<a&b> \u{1f600}", || {
        format!("the ActivityId came back as {}", reply.body["ActivityId"])
    })
}

fn large_request(ctx: &mut Context<'_>) -> Outcome {
    // Nothing limits a host's frame to 64 KiB: a Create carries a whole OCI spec.
    let body = json!({"ProcessId": 4_194_301, "TimeoutInMs": 1, "Padding": "x".repeat(1 << 20)});
    ctx.vm(word::WAIT_FOR_PROCESS, body)?
        .fails(&[code::UNKNOWN_PROCESS])
}

fn unknown_message(ctx: &mut Context<'_>) -> Outcome {
    // The second to last is a known message of another version.
    for word in [0x1010_0e01, 0x1010_0f01, 0x1010_ff01, 0x1010_0902, 0x101f_ff01] {
        ctx.of("c", word, json!({}))?
            .fails(&[code::UNKNOWN_MESSAGE, code::NOT_IMPLEMENTED])?;
    }
    Ok(())
}

fn unknown_category(ctx: &mut Context<'_>) -> Outcome {
    for word in [0x1020_0101, 0x1ff0_0101, 0x1000_0101] {
        ctx.of("c", word, json!({}))?
            .fails(&[code::UNKNOWN_MESSAGE, code::NOT_IMPLEMENTED])?;
    }
    unknown_container(ctx)
}

/// A frame that is no request is not answered. Whether the connection survives it is the agent's choice.
fn not_a_request(ctx: &mut Context<'_>) -> Outcome {
    negotiate(ctx, 1)?;
    for word in [0x2010_0201, 0x3010_0101, 0x0010_0201, 0x7010_0201] {
        ctx.session
            .send_bytes(&encode(word, 55, br#"{"ContainerId":"c"}"#));
    }
    // An answer would have the id of no request, which the session does not let pass.
    ctx.session.listen_for(Duration::from_millis(200))?;
    if ctx.session.closes_within(Duration::ZERO)? {
        return Ok(());
    }
    unknown_container(ctx)
}

/// After a header that cannot be: the connection ends, or the agent answers with a failure.
fn refused(ctx: &mut Context<'_>, size: u32) -> Outcome {
    negotiate(ctx, 1)?;
    ctx.session.expect(word::START, 77, None);
    ctx.session.send_bytes(&header(word::START, size, 77));
    let id = 77;
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(20);
    while waited < REFUSAL {
        if ctx.session.closes_within(step)? {
            return Ok(());
        }
        if ctx.session.has_answer(id)? {
            return ctx.session.answer(id)?.fails(&[]);
        }
        waited += step;
    }
    failed(format!(
        "a header with the size {size} was neither answered nor did it end the connection within {} s",
        REFUSAL.as_secs()
    ))
}

fn size_below_header(ctx: &mut Context<'_>) -> Outcome {
    refused(ctx, 15)
}

fn size_of_gigabytes(ctx: &mut Context<'_>) -> Outcome {
    refused(ctx, u32::MAX)
}

fn cut_in_header(ctx: &mut Context<'_>) -> Outcome {
    negotiate(ctx, 1)?;
    ctx.session.send_bytes(&header(word::START, 40, 2)[..9]);
    ends_quietly(ctx)
}

fn cut_in_body(ctx: &mut Context<'_>) -> Outcome {
    negotiate(ctx, 1)?;
    ctx.session.send_bytes(&header(word::START, 400, 2));
    ctx.session.send_bytes(b"{\"ContainerId\":\"c");
    ends_quietly(ctx)
}

/// A stream that ends is answered with its end, not with an answer to what never came whole.
fn ends_quietly(ctx: &mut Context<'_>) -> Outcome {
    ctx.session.half_close();
    ensure(ctx.session.closes_within(REFUSAL)?, || {
        format!(
            "the connection was still open {} s after the host's end",
            REFUSAL.as_secs()
        )
    })
}

/// Bytes that mean nothing: no answer to them, and no crash (the runner looks at how the agent ends).
fn noise(ctx: &mut Context<'_>) -> Outcome {
    negotiate(ctx, 1)?;
    let mut state = 0x2545_f491_u32;
    let mut bytes = Vec::new();
    for index in 0..64_u64 {
        let mut body = vec![0; 200];
        for byte in &mut body {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            *byte = state as u8;
        }
        // Frames with a right header and a senseless body first: they must be answered.
        ctx.session.expect(word::GET_PROPERTIES, 1000 + index, None);
        bytes.extend(frame::encode(word::GET_PROPERTIES, 1000 + index, &body));
    }
    ctx.session.send_bytes(&bytes);
    for index in 0..64 {
        ctx.session.answer(1000 + index)?.fails(&[])?;
    }
    ctx.vm(
        word::WAIT_FOR_PROCESS,
        json!({"ProcessId": 4_194_301, "ContainerId": VM}),
    )?
    .fails(&[code::UNKNOWN_PROCESS])
}
