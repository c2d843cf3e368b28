//! An agent in this process that keeps the protocol, or breaks exactly one rule of it. Its "containers" are plain
//! processes of this machine, which is enough for the bridge: it needs no root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod process;
mod serve;

use std::{
    io,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use cofferdam_conformance::agent::{Agent, Link, Port};

pub(crate) use serve::serve;

/// The one rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    // Frames.
    OtherId,
    IdsOf32Bits,
    RequestTypeInAnswer,
    TwoAnswers,
    OtherActivity,
    ExactMemberNames,
    RefusesNewline,
    RefusesLargeRequests,
    WaitsBelowHeader,
    WaitsForGigabytes,
    AnswersAnswers,
    SilentOnUnknownCategory,
    StaysAfterTheEnd,
    ReadsOnce,
    // Results.
    UnsignedResult,
    NoErrorMessage,
    PositiveCode,
    BreaksOnMalformed,
    SilentOnMalformed,
    TakesUnknownContainers,
    TakesUnknownProcesses,
    TakesOldSchema,
    TakesDoubleCreate,
    TakesDoubleStart,
    TakesExecAfterEnd,
    LongMessages,
    LongStacks,
    // Negotiation.
    TakesAnyVersion,
    ServesUnnegotiated,
    RefusesSecondNegotiation,
    WindowsType,
    // Order and waiting.
    OneAtATime,
    WaitsNever,
    WaitsWithoutLimit,
    ForgetsExitCodes,
    AnswersPowerOff,
    // Processes and streams.
    LineWins,
    NoEnvironment,
    TermForKill,
    DialsTwice,
    DialsUnwanted,
    StartsWithoutStream,
    CutsOutput,
    KeepsInputOpen,
    SwapsOutputs,
    // Containers.
    StartsAtCreate,
    GracefulKills,
    OneKindOfEnd,
    KeepsDeleted,
    TwoNotifications,
    NotificationWithId,
    NotificationBeforeOutput,
    NoNotification,
    NotificationOfUnknown,
    NotificationOfFailedCreate,
    NotificationOnlyAfterWait,
    NotificationOtherActivity,
    // Settings.
    AddsWhatIsNotThere,
    RefusesRemoval,
    RemovesByDefault,
    TakesRequestText,
}

/// The agent.
pub(crate) struct Peer {
    fault: Fault,
    directory: tempfile::TempDir,
}

impl Peer {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            directory: tempfile::tempdir().unwrap(),
        }
    }
}

impl Agent for Peer {
    fn connect(&mut self) -> Result<Link, String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (fault, directory) = (self.fault, self.directory.path().to_owned());
        thread::spawn(move || serve(theirs, fault, directory));
        Ok(Link::of_socket(ours).unwrap())
    }

    fn disconnect(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn is_new_each_time(&self) -> bool {
        true
    }

    fn listen(&mut self, number: u32) -> io::Result<Port> {
        Port::at(&self.directory.path().join(""), number)
    }
}

/// What the peer's threads share.
pub(crate) struct Shared {
    fault: Fault,
    directory: PathBuf,
    writer: Mutex<UnixStream>,
    table: Mutex<process::Table>,
}

impl Shared {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn table(&self) -> MutexGuard<'_, process::Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is shared, for a new connection.
fn shared(stream: UnixStream, fault: Fault, directory: PathBuf) -> Arc<Shared> {
    Arc::new(Shared {
        fault,
        directory,
        writer: Mutex::new(stream),
        table: Mutex::default(),
    })
}
