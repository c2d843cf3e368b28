//! Exit statuses, as runc and docker have them.

use std::fmt::Display;

/// How the command ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Exit {
    status: u8,
    message: Option<String>,
}

/// cofferdam's own failure in `run`: docker's number, so that scripts can tell it from the container's.
const FAILED: u8 = 125;
/// The container's program cannot be run.
const NOT_EXECUTABLE: u8 = 126;
/// The container's program was not found.
const NOT_FOUND: u8 = 127;
/// A refusal by a command that runs nothing.
const REFUSED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;

impl Exit {
    /// Everything went well.
    pub(crate) fn success() -> Self {
        Self {
            status: 0,
            message: None,
        }
    }

    /// The container's own status.
    pub(crate) fn container(status: u8) -> Self {
        Self {
            status,
            message: None,
        }
    }

    /// A failure of cofferdam, not of the container.
    pub(crate) fn failed(error: impl Display) -> Self {
        Self {
            status: FAILED,
            message: Some(error.to_string()),
        }
    }

    /// The container's program could not be started; the runtime's words tell which of the two it was.
    pub(crate) fn not_started(error: impl Display) -> Self {
        let message = error.to_string();
        let lower = message.to_lowercase();
        let program = lower.contains("executable ");
        let status = if lower.contains("exec format error") || (program && lower.contains("permissions")) {
            NOT_EXECUTABLE
        } else if program && lower.contains("not found") {
            NOT_FOUND
        } else {
            FAILED
        };
        Self {
            status,
            message: Some(message),
        }
    }

    /// A further process could not be started: as [`Exit::not_started`], and whom or where it cannot run as or in is a
    /// reason of its own, as runc has it.
    pub(crate) fn not_executed(error: impl Display) -> Self {
        let mut exit = Self::not_started(error);
        let lower = exit.message.as_deref().unwrap_or_default().to_lowercase();
        let reasons = [
            "unable to find user",
            "unable to find group",
            "the working directory ",
        ];
        if exit.status == FAILED && reasons.iter().any(|reason| lower.contains(reason)) {
            exit.status = NOT_EXECUTABLE;
        }
        exit
    }

    /// How a command ended that runs nothing: a failure of it is a refusal, with its causes.
    pub(crate) fn of(outcome: anyhow::Result<()>) -> Self {
        match outcome {
            Ok(()) => Self::success(),
            Err(error) => Self::refused(format!("{error:#}")),
        }
    }

    /// A refusal, with the reason.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            status: REFUSED,
            message: Some(message.into()),
        }
    }

    /// Something is wrong, as has been said on standard output.
    pub(crate) fn found() -> Self {
        Self {
            status: REFUSED,
            message: None,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            status: USAGE,
            message: Some(message.into()),
        }
    }

    /// Ended by a signal while there was no container yet: the shell's convention.
    pub(crate) fn signalled(number: i32) -> Self {
        Self {
            status: 128 + u8::try_from(number).unwrap_or(127) % 128,
            message: None,
        }
    }

    /// Says the message, if there is one, and returns the status.
    pub(crate) fn announce(self) -> i32 {
        if let Some(message) = self.message {
            eprintln!("cofferdam: {message}");
        }
        i32::from(self.status)
    }
}
