//! The suite can fail: an agent that breaks one rule is caught by the case of that rule, and an agent that breaks none
//! passes the same cases.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod peer;

use std::{sync::Mutex, thread, time::Duration};

use cofferdam_conformance::{
    cases,
    report::{Report, Result as Ended},
    runner::Runner,
    setup::{ContainerSetup, Setup},
};
use peer::{Fault, Peer};
use serde_json::json;

/// A broken rule, and the case that is about it.
const RULES: &[(Fault, &str)] = &[
    (Fault::OtherId, "frames/many-in-one-write"),
    (Fault::IdsOf32Bits, "frames/ids-are-echoed"),
    (Fault::RequestTypeInAnswer, "frames/literal-bytes"),
    (Fault::TwoAnswers, "frames/duplicate-id"),
    (Fault::OtherActivity, "ordering/many-in-flight"),
    (Fault::ExactMemberNames, "frames/member-names-in-any-case"),
    (Fault::RefusesNewline, "frames/body-ending-in-newline"),
    (Fault::RefusesLargeRequests, "frames/request-of-a-megabyte"),
    (Fault::WaitsBelowHeader, "frames/size-below-header"),
    (Fault::WaitsForGigabytes, "frames/size-of-four-gigabytes"),
    (Fault::AnswersAnswers, "frames/not-a-request"),
    (Fault::SilentOnUnknownCategory, "frames/unknown-category"),
    (Fault::StaysAfterTheEnd, "frames/cut-in-body"),
    (Fault::StaysAfterTheEnd, "frames/cut-in-header"),
    (Fault::ReadsOnce, "frames/byte-by-byte"),
    (Fault::BreaksOnMalformed, "frames/noise"),
    (Fault::UnsignedResult, "errors/unknown-container"),
    (Fault::NoErrorMessage, "errors/unknown-container"),
    (Fault::PositiveCode, "errors/unknown-process"),
    (Fault::BreaksOnMalformed, "errors/malformed-json"),
    (Fault::SilentOnMalformed, "errors/malformed-json"),
    (Fault::TakesUnknownContainers, "errors/unknown-container"),
    (Fault::TakesUnknownProcesses, "errors/unknown-process"),
    (Fault::TakesOldSchema, "errors/schema-version-below-2-1"),
    (Fault::TakesDoubleCreate, "errors/double-create"),
    (Fault::TakesDoubleStart, "errors/double-start"),
    (Fault::TakesExecAfterEnd, "errors/exec-after-the-end"),
    (Fault::LongMessages, "limits/huge-names-in-a-failure"),
    (Fault::LongStacks, "limits/stacks-in-a-frame"),
    (Fault::TakesAnyVersion, "negotiation/none-common"),
    (Fault::ServesUnnegotiated, "negotiation/first-of-all"),
    (Fault::RefusesSecondNegotiation, "negotiation/twice"),
    (Fault::WindowsType, "negotiation/capabilities"),
    (Fault::OneAtATime, "ordering/a-long-wait-holds-up-nobody"),
    (Fault::WaitsNever, "ordering/a-long-wait-holds-up-nobody"),
    (Fault::WaitsWithoutLimit, "wait/with-a-limit"),
    (Fault::ForgetsExitCodes, "wait/after-the-end"),
    (Fault::AnswersPowerOff, "shutdown/of-the-vm"),
    (Fault::LineWins, "execute/args-win-over-line"),
    (Fault::NoEnvironment, "execute/environment-and-directory"),
    (Fault::TermForKill, "signal/none-is-kill"),
    (Fault::DialsTwice, "stdio/one-connection-a-port"),
    (Fault::DialsUnwanted, "stdio/only-wanted-streams"),
    (
        Fault::StartsWithoutStream,
        "execute/a-failed-dial-fails-the-request",
    ),
    (Fault::CutsOutput, "limits/megabytes-both-ways"),
    (Fault::KeepsInputOpen, "stdio/input-nobody-reads"),
    (Fault::NoNotification, "notification/though-nobody-reads"),
    (Fault::KeepsInputOpen, "stdio/half-close-is-the-end-container"),
    (Fault::SwapsOutputs, "stdio/three-streams-vm"),
    (Fault::StartsAtCreate, "container/create-holds-the-process"),
    (Fault::GracefulKills, "shutdown/graceful-is-term"),
    (Fault::OneKindOfEnd, "shutdown/forced-is-kill"),
    (Fault::KeepsDeleted, "delete/frees-the-id"),
    (Fault::TwoNotifications, "notification/exactly-one"),
    (Fault::NotificationWithId, "notification/members"),
    (
        Fault::NotificationBeforeOutput,
        "notification/after-stdio-is-drained",
    ),
    (Fault::NoNotification, "notification/exactly-one"),
    (Fault::NotificationOfUnknown, "notification/not-for-unknown-ids"),
    (
        Fault::NotificationOfFailedCreate,
        "notification/not-for-a-failed-create",
    ),
    (Fault::NotificationOnlyAfterWait, "notification/without-a-wait"),
    (Fault::NotificationOtherActivity, "notification/members"),
    (Fault::AddsWhatIsNotThere, "settings/disk-that-is-not-there"),
    (Fault::RefusesRemoval, "settings/layers-that-are-not-there"),
    (Fault::RemovesByDefault, "settings/no-request-type-is-add"),
    (Fault::TakesRequestText, "settings/request-is-an-object"),
];

/// Runs cases on a peer.
fn try_on(fault: Fault, names: &[&str]) -> Report {
    let bundles = tempfile::tempdir().unwrap();
    let setup = Setup {
        shell: Ok(vec!["/bin/sh".into(), "-c".into()]),
        container: Ok(ContainerSetup::given(
            json!({"root": {"path": "/"}, "process": {}}),
            bundles.path().to_owned(),
        )),
        may_power_off: true,
    };
    let cases: Vec<_> = cases::all()
        .into_iter()
        .filter(|case| names.contains(&case.name))
        .collect();
    assert!(!cases.is_empty(), "{names:?} names no case");
    let mut peer = Peer::new(fault);
    // What never comes must not take long; what comes late on a busy machine must not fail the honest one.
    let limit = Duration::from_secs(if fault == Fault::None { 20 } else { 4 });
    Runner::new(&mut peer, &setup, limit).run(&cases, |_| {})
}

#[test]
fn an_agent_that_keeps_the_rules_passes() {
    let names: Vec<&str> = RULES.iter().map(|(_, name)| *name).collect();
    let report = try_on(Fault::None, &names);
    for row in &report.cases {
        assert_eq!(row.result, Ended::Passed, "{}: {:?}", row.case, row.reason);
    }
}

#[test]
fn each_broken_rule_is_caught_by_its_case() {
    let left = Mutex::new(RULES.iter());
    let escaped = Mutex::new(Vec::new());
    // Most of the time is spent waiting for what must not come.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some((fault, name)) = left.lock().unwrap().next() else {
                        break;
                    };
                    let report = try_on(*fault, &[name]);
                    let row = &report.cases[0];
                    if row.result != Ended::Failed {
                        escaped
                            .lock()
                            .unwrap()
                            .push((fault, name, row.result, row.reason.clone()));
                    }
                }
            });
        }
    });
    let escaped = escaped.into_inner().unwrap();
    assert!(escaped.is_empty(), "not caught: {escaped:#?}");
}
