//! PID 1 of the VM: from the kernel's first program to the bridge.

mod entropy;
mod mounts;
mod root;

use std::{
    fs::{self, OpenOptions},
    os::fd::OwnedFd,
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cofferdam_protocol::ports;

use crate::{
    agent::Agent,
    args::KernelOptions,
    bridge,
    error::{During, Result},
    log, modules, network, power,
    transport::{DIAL_INTERVAL, Dialer},
};

/// How long a lost host may take to listen again before the VM ends.
const LOST_LIMIT: Duration = Duration::from_secs(30);
/// How long the log's listener is looked for.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// Runs as PID 1. Never returns while the VM lives.
pub(crate) fn main() -> ExitCode {
    if let Err(error) = boot() {
        eprintln!("cofferdam-agent: the VM cannot start: {error}");
        power::off();
    }
    ExitCode::SUCCESS
}

fn boot() -> Result<()> {
    if !root::is_prepared() {
        // The kernel's own messages tell of the boot until here; there is no log yet.
        for failure in modules::load(Path::new(modules::AT_BOOT)) {
            eprintln!("cofferdam-agent: {failure}");
        }
        return Err(root::prepare_and_restart());
    }
    let failures = mounts::mount_all()?;
    let line = fs::read_to_string("/proc/cmdline").during(|| "reading /proc/cmdline".into())?;
    let options = KernelOptions::parse(&line);
    let dialer = Dialer::Vsock;
    log::start(options.level, options.bridge.is_none());
    for failure in failures {
        tracing::warn!("{failure}");
    }
    if let Err(error) = network::loopback_up() {
        tracing::warn!(%error, "the loopback interface stays down");
    }
    if options.entropy
        && let Err(error) = dialer
            .dial(ports::ENTROPY)
            .and_then(|stream| entropy::credit(&stream))
    {
        tracing::warn!(%error, "no entropy came from the host");
    }
    let agent = Agent::start(dialer.clone())?;
    match options.bridge {
        Some(device) => serve_device(&agent, &device),
        None => {
            let for_log = dialer;
            let dialling = thread::Builder::new()
                .name("log dial".into())
                .stack_size(crate::process::STACK_BYTES);
            if let Err(error) = dialling.spawn(move || dial_log(&for_log)) {
                tracing::warn!(%error, "the log stays on the console");
            }
            serve_host(&agent)
        }
    }
}

fn dial_log(dialer: &Dialer) {
    let start = Instant::now();
    while start.elapsed() < LOG_LIMIT {
        if let Ok(stream) = dialer.dial(ports::LOG) {
            log::use_stream(stream);
            return;
        }
        thread::sleep(DIAL_INTERVAL);
    }
}

/// Serves hosts one after the other. A host that goes away has some time to come back; then the VM is of no use.
fn serve_host(agent: &Arc<Agent>) -> ! {
    let mut lost: Option<Instant> = None;
    loop {
        match dial_bridge(&agent.dialer) {
            Ok((reader, writer)) => {
                bridge::serve(agent, reader, writer);
                lost = Some(Instant::now());
            }
            Err(_) if lost.is_some_and(|since| since.elapsed() > LOST_LIMIT) => {
                tracing::error!("the host did not come back");
                power::off();
            }
            Err(_) => {}
        }
        thread::sleep(DIAL_INTERVAL);
    }
}

fn dial_bridge(dialer: &Dialer) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let reader = dialer.dial(ports::BRIDGE)?;
    let writer = reader.try_clone()?;
    Ok((reader, writer))
}

fn serve_device(agent: &Arc<Agent>, device: &Path) -> Result<()> {
    let open = || -> std::io::Result<_> {
        let file = OpenOptions::new().read(true).write(true).open(device)?;
        if let Ok(mut settings) = rustix::termios::tcgetattr(&file) {
            settings.make_raw();
            rustix::termios::tcsetattr(&file, rustix::termios::OptionalActions::Now, &settings)?;
        }
        Ok((OwnedFd::from(file.try_clone()?), OwnedFd::from(file)))
    };
    let (reader, writer) = open().during(|| format!("opening {}", device.display()))?;
    bridge::serve(agent, reader, writer);
    power::off();
}
