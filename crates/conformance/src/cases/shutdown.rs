//! The end of the VM itself: Shutdown* for the null container (§6).

use std::time::Duration;

use serde_json::json;

use crate::{
    case::{Case, Need, Outcome, ensure},
    context::Context,
    frame::{VM, encode, word},
};

pub(super) const CASES: &[Case] = &[Case::new(
    "shutdown/of-the-vm",
    "6",
    &[Need::Fresh, Need::PowerOff],
    of_the_vm,
)];

/// There is no answer: the connection just ends.
fn of_the_vm(ctx: &mut Context<'_>) -> Outcome {
    let range = json!({"ContainerId": "", "MinimumVersion": 4, "MaximumVersion": 4});
    ctx.session.call(word::NEGOTIATE_PROTOCOL, &range)?.ok()?;
    let body = json!({"ContainerId": VM}).to_string();
    // No answer is expected, and the session fails one that comes.
    ctx.session
        .send_bytes(&encode(word::SHUTDOWN_GRACEFUL, 900, body.as_bytes()));
    ensure(ctx.session.closes_within(Duration::from_secs(20))?, || {
        "the connection is still open 20 s after the VM was asked to end".into()
    })
}
