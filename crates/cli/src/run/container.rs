//! The container of a `run`, in a VM that answers, until the VM holds nothing of it any more.

use anyhow::{Context as _, Result, anyhow};
use cofferdam_container::{Stdio, left_behind};
use cofferdam_plan::Spec;
use cofferdam_pod::{Endpoints, Exit as ProcessExit, NewContainer, Pod, PodError, ProcessName, Streams};
use cofferdam_vm::UtilityVm;

use super::{Answering, Stopped, Wanted, told, with_clean_up};
use crate::{
    detached,
    signals::{Event, Signals},
    terminal::{self, RawTerminal},
    timings::Timings,
};

/// Creates it, sees it through, and gives back what it held.
pub(super) async fn in_vm(
    wanted: &Wanted<'_>,
    answering: &mut Answering,
    signals: &mut Signals,
    timings: &mut Timings,
) -> Result<u8, Stopped> {
    let pod = answering.pod.clone();
    let new = NewContainer {
        id: wanted.id,
        spec: wanted.spec,
        bundle: wanted.bundle,
        endpoints: Endpoints {
            terminal: wants_terminal(wanted.spec),
            ..Endpoints::default()
        },
        check_image: &cofferdam_image::check,
    };
    tokio::select! {
        created = pod.create(new) => created.map_err(Stopped::of)?,
        signal = signals.interrupted() => return Err(Stopped::Interrupted(signal)),
    }
    timings.reached("created");
    let name = ProcessName::init(wanted.id);
    let ended = match ended(wanted, answering, &name, signals, timings).await {
        Ok(exit) if exit.lost => Err(Stopped::Lost(died(pod.vm()).await)),
        Ok(exit) => Ok(exit.status),
        Err(stopped) => Err(stopped),
    };
    timings.reached("exited");
    let released = release(&pod, &name).await;
    timings.reached("released");
    with_clean_up(ended, released)
}

pub(super) fn wants_terminal(spec: &Spec) -> bool {
    let wish = spec.document().pointer("/process/terminal");
    wish.and_then(serde_json::Value::as_bool).unwrap_or(false)
}

/// What to say of a container whose VM or agent went away.
async fn died(vm: &UtilityVm) -> anyhow::Error {
    match vm.died().await {
        Some(exit) => anyhow!("the utility VM died while the container was running: {exit}"),
        None => anyhow!("the guest agent went away while the container was running"),
    }
}

/// From its creation to its exit, with all of its output handed over.
async fn ended(
    wanted: &Wanted<'_>,
    answering: &mut Answering,
    name: &ProcessName,
    signals: &mut Signals,
    timings: &mut Timings,
) -> Result<ProcessExit, Stopped> {
    let pod = answering.pod.clone();
    let copying = answering.copying.take();
    let exit = match &wanted.detached {
        None => in_foreground(&pod, name, wanted, signals, timings).await,
        Some(detached) => {
            if !detached.held {
                let streams = answering.pending.take().unwrap_or_default();
                pod.start_with(name, streams).await.map_err(Stopped::of)?;
                timings.reached("started");
            }
            detached::announce(wanted.id, detached.dir)?;
            attended(&pod, name, signals).await.map_err(Stopped::of)
        }
    };
    // Where it was never started they are still here.
    drop(answering.pending.take());
    if let Some(copying) = copying {
        copying.finish().await;
    }
    exit
}

/// With this process's own streams and terminal.
async fn in_foreground(
    pod: &Pod,
    name: &ProcessName,
    wanted: &Wanted<'_>,
    signals: &mut Signals,
    timings: &mut Timings,
) -> Result<ProcessExit, Stopped> {
    let has_terminal = wants_terminal(wanted.spec);
    if let (true, Some((rows, columns))) = (has_terminal, terminal::size()) {
        pod.resize(name, rows, columns).await.map_err(Stopped::of)?;
    }
    // Without a terminal of ours there is nothing to make raw, and nothing is lost if it cannot be.
    let raw = (has_terminal && terminal::is_interactive()).then(RawTerminal::enter);
    let streams = Streams {
        stdio: Stdio {
            stdin: wanted.interactive.then(|| Box::new(tokio::io::stdin()) as _),
            stdout: Some(Box::new(tokio::io::stdout())),
            stderr: Some(Box::new(tokio::io::stderr())),
        },
        keeps_input: None,
    };
    pod.start_with(name, streams).await.map_err(Stopped::of)?;
    timings.reached("started");
    let exit = attended(pod, name, signals).await;
    drop(raw);
    exit.map_err(Stopped::of)
}

/// Waits for the container while passing signals and sizes on.
async fn attended(pod: &Pod, name: &ProcessName, signals: &mut Signals) -> Result<ProcessExit, PodError> {
    let waiting = pod.wait(name);
    tokio::pin!(waiting);
    loop {
        let event = tokio::select! {
            exit = &mut waiting => return exit,
            event = signals.next() => event,
        };
        let passed_on = match event {
            Event::Signal(number) => pod.kill(name, number, false).await,
            Event::Resized => match terminal::size() {
                Some((rows, columns)) => pod.resize(name, rows, columns).await,
                None => Ok(()),
            },
        };
        match passed_on {
            // It ended at the same moment, or it has no terminal to be resized.
            Ok(()) | Err(PodError::Finished(_) | PodError::NoTerminal(_)) => {}
            Err(error) => tracing::warn!(%error, "not passed on to the container"),
        }
    }
}

/// Gives everything back and proves it.
async fn release(pod: &Pod, name: &ProcessName) -> Result<()> {
    pod.delete(name)
        .await
        .context("releasing what the container held")?;
    let vm = pod.vm();
    if vm.is_gone().await {
        return Ok(());
    }
    let left = left_behind(vm)
        .await
        .map_err(told)
        .context("asking what is left in the VM")?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(anyhow!("left behind: {}", left.join(", ")))
    }
}
