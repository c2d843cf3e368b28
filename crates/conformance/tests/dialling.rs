//! Agents that somebody else connects: one that dials again, and one that dials once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "only its serving is used here")]
mod peer;

use std::{os::unix::net::UnixStream, path::PathBuf, thread, time::Duration};

use cofferdam_conformance::{
    agent::Dialling,
    cases,
    report::{Report, Result as Ended},
    runner::Runner,
    setup::Setup,
};
use peer::{Fault, serve};

/// An agent that dials `bridge` and serves, at most `times` times, for as long as somebody listens.
fn dial(bridge: PathBuf, ports: PathBuf, times: usize) {
    thread::spawn(move || {
        for _ in 0..times {
            let Ok(stream) = UnixStream::connect(&bridge) else {
                return;
            };
            serve(stream, Fault::None, ports.clone());
        }
    });
}

const NAMES: [&str; 7] = [
    "negotiation/twice",
    "frames/size-below-header",
    "frames/ids-are-echoed",
    "errors/unknown-container",
    "stdio/three-streams-vm",
    "limits/megabytes-both-ways",
    "shutdown/of-the-vm",
];

fn try_dialling(times: usize) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let (bridge, ports) = (directory.path().join("bridge"), directory.path().to_owned());
    let mut agent = Dialling::new(bridge.clone(), ports.join(""), Duration::from_secs(2)).unwrap();
    dial(bridge, ports, times);
    let mut setup = Setup::bare();
    setup.shell = Ok(vec!["/bin/sh".into(), "-c".into()]);
    setup.may_power_off = true;
    let cases: Vec<_> = cases::all()
        .into_iter()
        .filter(|case| NAMES.contains(&case.name))
        .collect();
    assert_eq!(cases.len(), NAMES.len());
    Runner::new(&mut agent, &setup, Duration::from_secs(20)).run(&cases, |_| {})
}

#[test]
fn an_agent_that_dials_again_is_tried_with_everything() {
    let report = try_dialling(usize::MAX);
    for row in &report.cases {
        assert_eq!(row.result, Ended::Passed, "{}: {:?}", row.case, row.reason);
    }
    assert_eq!(
        report.cases.last().unwrap().case,
        "shutdown/of-the-vm",
        "what ends it comes last"
    );
}

#[test]
fn an_agent_that_dials_once_is_tried_with_what_one_connection_allows() {
    let report = try_dialling(1);
    for row in &report.cases {
        let needs_its_own = [
            "negotiation/twice",
            "frames/size-below-header",
            "shutdown/of-the-vm",
        ];
        let expected = if needs_its_own.contains(&row.case) {
            Ended::NotTried
        } else {
            Ended::Passed
        };
        assert_eq!(row.result, expected, "{}: {:?}", row.case, row.reason);
    }
}
