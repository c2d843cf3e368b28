//! A conformance suite for the guest bridge protocol, which can be pointed at any agent.
//!
//! It is the host's side, written a second time and on purpose: frames are literal bytes and bodies are literal JSON as
//! the protocol has them, so that a mistake in this repository's own protocol crates is seen, not shared
//! (docs/decisions/0110-conformance-suite.md).
//!
//! * [`frame`], [`reply`] and [`session`]: bytes, answers, a connection. The rules that hold for every frame are held
//!   here, whichever case runs.
//! * [`agent`]: how an agent is reached. [`setup`]: what the suite may use besides.
//! * [`cases`]: the rules, by subject, on top of [`context`]. [`runner`] runs them, [`report`] tells.
//!
//! ```no_run
//! use std::time::Duration;
//! use cofferdam_conformance::{agent::Program, cases, report::Result, runner::Runner, setup::Setup};
//!
//! let command = ["cofferdam-agent", "-v4", "--use-inouterr", "--stdio-dir", "{}"];
//! let mut agent = Program::new(command.map(str::to_owned).to_vec(), false)?;
//! let setup = Setup::bare();
//! let report = Runner::new(&mut agent, &setup, Duration::from_secs(20)).run(&cases::all(), |_| {});
//! assert_eq!(report.count(Result::Failed), 0);
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod agent;
pub mod case;
pub mod cases;
pub mod context;
pub mod frame;
pub mod reply;
pub mod report;
pub mod runner;
pub mod session;
pub mod setup;
