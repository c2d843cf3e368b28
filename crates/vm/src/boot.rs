//! From nothing to an agent that answers.
//!
//! The host listens before the VM starts, because the guest dials as soon as it can and gives up on a refusal. Every
//! wait ends early when the VM dies, and then says what the hypervisor and the console said last.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cofferdam_backend::{Backend, BackendError, BoxListener, BoxStream, VmExit};
use cofferdam_bridge::{Bridge, BridgeError, Options};
use cofferdam_protocol::ports;

use crate::{driver::DEATH_LIMIT, guest_log::GuestLog};

/// How long things may take at boot.
#[derive(Debug, Clone)]
pub struct BootOptions {
    /// From the hypervisor's start to the agent's first message. Emulated machines under load are slow; a VM that
    /// dies is noticed at once, whatever this says.
    pub agent_limit: Duration,
}

impl Default for BootOptions {
    fn default() -> Self {
        Self {
            agent_limit: Duration::from_secs(120),
        }
    }
}

/// When each phase of a boot was over, from the call to [`crate::UtilityVm::boot`].
#[derive(Debug, Clone, Copy)]
pub struct BootTimes {
    /// The hypervisor answers its control channel.
    pub hypervisor: Duration,
    /// The agent has dialled the bridge.
    pub agent: Duration,
    /// The protocol version is agreed on.
    pub negotiated: Duration,
}

/// Why a VM did not come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The backend could not start it.
    #[error("starting the utility VM: {0}")]
    Backend(#[from] BackendError),
    /// It died before the agent was heard.
    #[error("the utility VM died while booting: {0}")]
    Died(VmExit),
    /// It runs, but nothing was heard of the agent.
    #[error(
        "the guest agent was not heard of within {} s; the guest's log:{}",
        limit.as_secs(),
        indented(log)
    )]
    Silent {
        /// The limit that passed.
        limit: Duration,
        /// The guest's last log lines.
        log: Vec<String>,
    },
    /// The agent's stream could not be taken.
    #[error("accepting the guest agent: {0}")]
    Accept(#[source] std::io::Error),
    /// The agent does not speak our protocol.
    #[error("negotiating with the guest agent: {0}")]
    Negotiation(#[from] BridgeError),
}

fn indented(lines: &[String]) -> String {
    if lines.is_empty() {
        return " (empty)".to_owned();
    }
    lines.iter().map(|line| format!("\n  | {line}")).collect()
}

/// A VM whose agent has answered, not yet anybody's.
pub(crate) struct Booted {
    pub(crate) bridge: Arc<Bridge>,
    pub(crate) log: GuestLog,
    pub(crate) times: BootTimes,
}

/// Starts the VM and negotiates. On an error the VM may be running still; the caller stops it.
pub(crate) async fn boot(backend: &Arc<dyn Backend>, options: &BootOptions) -> Result<Booted, BootError> {
    let begun = Instant::now();
    let log = GuestLog::default();
    let logs = backend.listen(ports::LOG).await?;
    let mut agent = backend.listen(ports::BRIDGE).await?;
    let entropy = backend.listen(ports::ENTROPY).await?;
    tokio::spawn(follow_logs(logs, log.clone()));
    tokio::spawn(give_entropy(entropy));

    backend.start().await?;
    let hypervisor = begun.elapsed();
    let stream = tokio::select! {
        accepted = agent.accept() => match accepted {
            Ok(stream) => stream,
            Err(source) => return Err(not_accepted(backend, source).await),
        },
        exit = backend.exited() => return Err(BootError::Died(exit)),
        () = tokio::time::sleep(options.agent_limit) => {
            return Err(BootError::Silent { limit: options.agent_limit, log: log.tail() });
        }
    };
    let agent = begun.elapsed();
    let (bridge, _) = tokio::select! {
        connected = Bridge::connect(stream, Options::default()) => connected?,
        exit = backend.exited() => return Err(BootError::Died(exit)),
    };
    let times = BootTimes {
        hypervisor,
        agent,
        negotiated: begun.elapsed(),
    };
    tracing::info!(?times, "the guest agent answers");
    Ok(Booted { bridge, log, times })
}

/// A listener fails because the hypervisor has let go of the streams, a moment before its process has ended: how that
/// ended says more.
async fn not_accepted(backend: &Arc<dyn Backend>, source: std::io::Error) -> BootError {
    match tokio::time::timeout(DEATH_LIMIT, backend.exited()).await {
        Ok(exit) => BootError::Died(exit),
        Err(_) => BootError::Accept(source),
    }
}

/// Follows every log stream the guest opens; an agent that re-executes itself opens another.
async fn follow_logs(mut listener: BoxListener, log: GuestLog) {
    while let Ok(stream) = listener.accept().await {
        tokio::spawn(log.clone().follow(stream));
    }
}

/// Gives a guest that asks for it 512 random bytes, then closes (GCS bridge protocol §1, port 1).
async fn give_entropy(mut listener: BoxListener) {
    while let Ok(stream) = listener.accept().await {
        if let Err(error) = send_entropy(stream).await {
            tracing::warn!(%error, "giving the guest entropy");
        }
    }
}

async fn send_entropy(mut stream: BoxStream) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut bytes = [0; 512];
    let mut source = tokio::fs::File::open("/dev/urandom").await?;
    source.read_exact(&mut bytes).await?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}
