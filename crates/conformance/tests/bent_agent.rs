//! Our own agent, as root, behind a proxy that bends one message: the case of the rule that is broken by it fails. This is
//! for rules about containers and terminals, which the agents of `broken_agents.rs` do not have.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bent;
mod ours;

use std::{
    collections::HashMap,
    io::{self, Write as _},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bent::{Bent, RULES, Rule, request};
use cofferdam_conformance::{
    agent::{Agent, Link, Port, Program},
    case::Case,
    cases,
    frame::{Incoming, encode, read},
    report::Result as Ended,
    runner::Runner,
    setup::Setup,
};
use serde_json::Value;

/// No bend.
static STRAIGHT: Rule = request("nothing is bent", "", |_, _| Bent::Request);

/// Our agent behind a proxy.
struct Bender {
    program: Program,
    rule: &'static Rule,
}

fn frame_of(incoming: Incoming) -> Option<(u32, u64, Vec<u8>)> {
    match incoming {
        Incoming::Frame(frame) => Some((frame.word, frame.id, frame.body)),
        _ => None,
    }
}

impl Agent for Bender {
    fn connect(&mut self) -> Result<Link, String> {
        let link = self.program.connect()?;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = (link.reader, link.writer);
        let words: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
        let back = Arc::new(Mutex::new(theirs.try_clone().unwrap()));
        let rule = self.rule;
        let (asked, answers) = (Arc::clone(&words), Arc::clone(&back));
        let mut requests = theirs;
        thread::spawn(move || {
            while let Some((word, id, body)) = frame_of(read(&mut requests)) {
                asked.lock().unwrap().insert(id, word);
                let bytes = match serde_json::from_slice::<Value>(&body) {
                    Ok(mut value) => match (rule.request)(word, &mut value) {
                        Bent::Request => encode(word, id, value.to_string().as_bytes()),
                        Bent::Answer(mut answer) => {
                            answer["ActivityId"] = value["ActivityId"].clone();
                            let word = word & 0x0fff_ffff | 0x2000_0000;
                            let bytes = encode(word, id, answer.to_string().as_bytes());
                            let _ = answers.lock().unwrap().write_all(&bytes);
                            continue;
                        }
                    },
                    Err(_) => encode(word, id, &body),
                };
                if writer.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        thread::spawn(move || {
            while let Some((word, id, body)) = frame_of(read(&mut reader)) {
                let mut value: Value = serde_json::from_slice(&body).unwrap();
                if word >> 28 == 2 {
                    let asked = words.lock().unwrap().get(&id).copied().unwrap_or(0);
                    (rule.answer)(asked, &mut value);
                }
                let _ = back
                    .lock()
                    .unwrap()
                    .write_all(&encode(word, id, value.to_string().as_bytes()));
            }
            let _ = back.lock().unwrap().shutdown(std::net::Shutdown::Both);
        });
        Ok(Link::of_socket(ours).unwrap())
    }

    fn disconnect(&mut self) -> Result<(), String> {
        self.program.disconnect()
    }

    fn is_new_each_time(&self) -> bool {
        true
    }

    fn listen(&mut self, number: u32) -> io::Result<Port> {
        self.program.listen(number)
    }
}

fn try_on(rule: &'static Rule, bent: bool, setup: &Setup) -> (Ended, Option<String>) {
    let wanted: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| case.name == rule.case)
        .collect();
    assert_eq!(wanted.len(), 1, "{} is no case", rule.case);
    let mut agent = Bender {
        program: Program::new(ours::command(), false).unwrap(),
        rule: if bent { rule } else { &STRAIGHT },
    };
    // What never comes must not take long; what comes late on a busy machine must not fail the honest one.
    let limit = Duration::from_secs(if bent { 4 } else { 30 });
    let report = Runner::new(&mut agent, setup, limit).run(&wanted, |_| {});
    (report.cases[0].result, report.cases[0].reason.clone())
}

/// Runs a case for each of the rules, several at once: most of the time is spent waiting for what must not come. `bent`
/// says whether the rule's bend is applied.
fn try_all(bent: bool) -> Vec<(&'static Rule, Ended, Option<String>)> {
    let setup = ours::setup();
    let left = Mutex::new(RULES.iter());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(rule) = left.lock().unwrap().next() else {
                        break;
                    };
                    let (result, reason) = try_on(rule, bent, &setup);
                    println!("{}: {}: {reason:?}", rule.case, rule.what);
                    results.lock().unwrap().push((rule, result, reason));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    assert_eq!(results.len(), RULES.len());
    results
}

#[test]
fn each_bent_message_is_caught_by_its_case_and_an_unbent_one_is_not() {
    let _leftovers = ours::Leftovers;
    for (rule, result, reason) in try_all(false) {
        assert_eq!(result, Ended::Passed, "{}: {reason:?}", rule.case);
    }
    for (rule, result, reason) in try_all(true) {
        assert_eq!(result, Ended::Failed, "{}: {}: {reason:?}", rule.case, rule.what);
    }
}
