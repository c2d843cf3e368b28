//! What a case is, what it may need, and how it can end.

use crate::context::Context;

/// One rule of the protocol, tried on an agent.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `subject/rule`, unique.
    pub name: &'static str,
    /// The section of the protocol it comes from.
    pub section: &'static str,
    /// What must be there for it.
    pub needs: &'static [Need],
    /// The case itself.
    pub run: fn(&mut Context<'_>) -> Outcome,
}

impl Case {
    /// A case.
    pub const fn new(
        name: &'static str,
        section: &'static str,
        needs: &'static [Need],
        run: fn(&mut Context<'_>) -> Outcome,
    ) -> Self {
        Self {
            name,
            section,
            needs,
            run,
        }
    }
}

/// What a case cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A connection on which nothing has been said; it may be unusable afterwards.
    Fresh,
    /// A shell in the VM: processes of the VM itself.
    Shell,
    /// A bundle: containers.
    Container,
    /// Permission to end the agent's VM.
    PowerOff,
    /// A capability the agent names in `GuestDefinedCapabilities`.
    Capability(&'static str),
}

/// How a case can end without having passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The agent broke the rule: what was seen.
    Failed(String),
    /// It could not be tried on this agent, and why.
    NotTried(String),
}

/// How a case ends.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Ends a case as failed.
pub fn failed<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(what.into()))
}

/// Ends a case as failed unless `holds`.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { failed(what()) }
}

impl From<std::io::Error> for Stop {
    /// The suite's own trouble is no judgement of the agent.
    fn from(error: std::io::Error) -> Self {
        Self::NotTried(format!("the suite's own system call failed: {error}"))
    }
}
