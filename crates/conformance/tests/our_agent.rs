//! This repository's agent, as a plain process: every case is tried, and none fails.
//!
//! Its containers need root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod ours;

use std::{process::Command, time::Duration};

use cofferdam_conformance::{
    agent::Program,
    cases,
    report::{Report, Result as Ended},
    runner::Runner,
};

#[test]
fn our_agent_keeps_every_rule() {
    let _leftovers = ours::Leftovers;
    let mut program = Program::new(ours::command(), false).unwrap();
    let setup = ours::setup();
    let report = Runner::new(&mut program, &setup, Duration::from_secs(60)).run(&cases::all(), |row| {
        println!("{}", Report::line(row, 45));
    });
    for row in &report.cases {
        assert_eq!(row.result, Ended::Passed, "{}: {:?}", row.case, row.reason);
    }
    assert_eq!(report.cases.len(), cases::all().len());
}

fn conformance(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cofferdam-conformance"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_commands_exit_status_tells_a_pass_a_failure_and_a_wrong_call_apart() {
    let program = format!("{} -v4 --use-inouterr --stdio-dir {{}}", ours::agent().display());
    let (code, out, _) = conformance(&["--program", &program, "--only", "negotiation/"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("negotiation/twice") && out.contains(" 0 failed, 0 not tried"),
        "{out}"
    );

    // What was not tried is only then a failure when everything is required.
    let only = [
        "--program",
        &program,
        "--only",
        "shutdown/of-the-vm",
        "--only",
        "negotiation/twice",
    ];
    let (code, out, _) = conformance(&only);
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("not tried") && out.contains("1 passed, 0 failed, 1 not tried"),
        "{out}"
    );
    let (code, ..) = conformance(&[&only[..], &["--require", "all"]].concat());
    assert_eq!(code, Some(1));

    // A program that is no agent at all.
    let (code, out, _) = conformance(&[
        "--program",
        "true",
        "--only",
        "negotiation/version-4",
        "--format",
        "json",
    ]);
    assert_eq!(code, Some(1), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["cases"][0]["case"], "negotiation/version-4");
    assert_eq!(report["cases"][0]["result"], "failed");
    let (code, out, _) = conformance(&["--program", "/no/such/agent", "--only", "negotiation/version-4"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("not tried") && out.contains("/no/such/agent"),
        "{out}"
    );

    for wrong in [
        &[][..],
        &["--only", "x"],
        &["--list", "--only", "no-such-case"],
        &["--bridge", "/x"],
    ] {
        let (code, _, error) = conformance(wrong);
        assert_eq!(code, Some(2), "{wrong:?}");
        assert!(!error.is_empty());
    }
    let (code, out, _) = conformance(&["--list"]);
    assert_eq!((code, out.lines().count()), (Some(0), cases::all().len()));
}

#[test]
fn an_agent_that_nobody_connects_is_not_tried_and_not_passed() {
    let directory = tempfile::tempdir().unwrap();
    let bridge = directory.path().join("bridge").display().to_string();
    let ports = directory.path().display().to_string();
    let (code, out, _) = conformance(&[
        "--bridge",
        &bridge,
        "--stdio-dir",
        &ports,
        "--timeout",
        "1",
        "--only",
        "negotiation/version-4",
    ]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("not tried") && out.contains("no agent dialled"),
        "{out}"
    );
}
