//! `cofferdam run --no-vm`: one container on the host itself, in the foreground, by an OCI runtime of the host.
//!
//! Layers and scratch are attached and mounted here through the same driver and ledger as in a VM. Everything that was
//! taken is given back on every way out; what could not be is said, and makes the command fail.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use cofferdam_backend::Backend;
use cofferdam_container::{Allocation, facts::planned};
use cofferdam_host::{LocalContainer, LocalHost, OciRuntime, Owner};
use cofferdam_ledger::Ledger;
use cofferdam_owner::{Isolation, Owned, Root};
use cofferdam_plan::{Plan, PlanRequest, Spec};
use cofferdam_vm::Driver;
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::process::{Child, Command};

use crate::{
    about,
    args::RunArgs,
    exit::Exit,
    run::told,
    run_image::Subject,
    signals::{Event, Signals},
    timings::Timings,
};

/// Mount types of utility VMs, which no OCI runtime of the host knows.
const DISKS: [&str; 3] = ["physical-disk", "virtual-disk", "automanage-virtual-disk"];

/// How a run ends.
enum Ended {
    /// The runtime ended with this status.
    Runtime(u8),
    /// The user asked to end before there was a container.
    Interrupted(i32),
}

/// Runs the command.
pub(crate) async fn execute(root: &Root, args: &RunArgs, subject: Subject) -> Exit {
    let mut timings = Timings::start();
    let ended = run(root, args, subject, &mut timings).await;
    if args.vm.timings {
        eprint!("{timings}");
    }
    match ended {
        Ok(Ended::Runtime(status)) => Exit::container(status),
        Ok(Ended::Interrupted(signal)) => Exit::signalled(signal),
        Err(error) => Exit::failed(format!("{error:#}")),
    }
}

async fn run(root: &Root, args: &RunArgs, subject: Subject, timings: &mut Timings) -> Result<Ended> {
    let mut signals = Signals::watch().context("watching for signals")?;
    let bundle = bundle_of(&subject)?;
    // Refusals come before anything is touched, where that can be.
    let early = match subject.is_there() {
        true => Some(local_plan(&subject.spec(&bundle)?, &bundle)?),
        false => None,
    };
    let runtime = OciRuntime::find(args.runtime.as_deref()).map_err(told)?;
    let mut local = Local::claim(root, &subject, &bundle)?;
    let made = match early {
        Some(plan) => Ok(plan),
        None => subject
            .make(&mut local.owned)
            .and_then(|()| local_plan(&subject.spec(&bundle)?, &bundle)),
    };
    let made = made.and_then(|plan| {
        about::note(local.owned.dir(), args, &subject.spec(&bundle)?, &bundle, None)?;
        Ok(plan)
    });
    let ended = match made {
        Ok(plan) => {
            warn_of_disks(&plan);
            timings.reached("planned");
            local.run(runtime, &plan, &mut signals, timings).await
        }
        Err(error) => Err(error),
    };
    let closed = local.close(subject).await;
    timings.reached("released");
    match (ended, closed) {
        (Err(first), Err(second)) => Err(anyhow!("{first:#}\nand afterwards: {second:#}")),
        (ended, closed) => ended.and_then(|ended| closed.map(|()| ended)),
    }
}

/// The bundle's directory as the mount table has it: no symbolic link leads to it.
fn bundle_of(subject: &Subject) -> Result<PathBuf> {
    if !subject.is_there() {
        return Ok(subject.dir().to_owned());
    }
    let bundle = subject
        .dir()
        .canonicalize()
        .with_context(|| format!("looking for the bundle {}", subject.dir().display()))?;
    // Another container's scratch may cover the folder with the image, which would be missing to the plan.
    LocalHost::check_bundle(&bundle).map_err(told)?;
    Ok(bundle)
}

fn local_plan(spec: &Spec, bundle: &Path) -> Result<Plan> {
    let request = PlanRequest {
        spec,
        bundle,
        container_root: "/run/gcs/c/1",
        process_isolation: true,
    };
    planned(request, &cofferdam_image::check).map_err(told)
}

/// Such mounts are left for the runtime (rule M10), whose own message may not say why it refuses them.
fn warn_of_disks(plan: &Plan) {
    let mounts = plan.spec.get("mounts").and_then(|mounts| mounts.as_array());
    for (index, mount) in mounts.into_iter().flatten().enumerate() {
        let kind = mount
            .get("type")
            .and_then(|kind| kind.as_str())
            .unwrap_or_default();
        if DISKS.contains(&kind) {
            tracing::warn!(
                "mount {index}: {kind} is left for the OCI runtime, which may not know it; disks are attached only \
                 with a utility VM"
            );
        }
    }
}

/// One container's hold on the host.
struct Local {
    id: String,
    interactive: bool,
    bundle: PathBuf,
    owned: Owned,
    host: LocalHost,
    driver: Driver,
}

impl Local {
    /// The one place where the name is claimed, its journal begun, and the driver made.
    fn claim(root: &Root, subject: &Subject, bundle: &Path) -> Result<Self> {
        let owned = Owned::claim(root, &subject.id, bundle, Isolation::Process)?;
        let owner = Owner::of(owned.dir()).map_err(told)?;
        let ledger = Ledger::new(LocalHost::limits()).with_layers_below(owner.layers_below().map_err(told)?);
        let host = LocalHost::new(owner);
        let party = Arc::new(host.clone());
        let driver = Driver::new(party.clone(), party, ledger, Some(owned.journal()));
        Ok(Self {
            id: subject.id.clone(),
            interactive: subject.interactive,
            bundle: bundle.to_owned(),
            owned,
            host,
            driver,
        })
    }

    /// Everything between the claim and a host that holds nothing.
    async fn run(
        &self,
        runtime: OciRuntime,
        plan: &Plan,
        signals: &mut Signals,
        timings: &mut Timings,
    ) -> Result<Ended> {
        let (mut allocation, interrupted) = {
            let allocating = Allocation::allocate(&self.driver, plan);
            tokio::pin!(allocating);
            // A signal does not cut it short: what it has begun must be undone by it.
            tokio::select! {
                allocated = &mut allocating => (allocated.map_err(told)?, None),
                signal = signals.interrupted() => (allocating.await.map_err(told)?, Some(signal)),
            }
        };
        timings.reached("allocated");
        let ended = match interrupted {
            Some(signal) => Ok(Ended::Interrupted(signal)),
            None => self.container(runtime, plan, signals).await.map(Ended::Runtime),
        };
        timings.reached("exited");
        let released = allocation
            .release()
            .await
            .context("releasing what the container held");
        match (ended, released) {
            (Err(first), Err(second)) => Err(anyhow!("{first:#}\nand afterwards: {second:#}")),
            (ended, released) => ended.and_then(|ended| released.map(|()| ended)),
        }
    }

    async fn container(&self, runtime: OciRuntime, plan: &Plan, signals: &mut Signals) -> Result<u8> {
        let container = runtime
            .prepare(self.host.owner(), &self.id, &plan.spec, &self.bundle)
            .map_err(told)?;
        let ended = attended(&container, self.interactive, signals).await;
        // The runtime may have been killed, and its container may run on.
        // It waits for the runtime's own command.
        let deleted = tokio::task::block_in_place(|| container.delete()).map_err(told);
        let status = ended?;
        deleted.context("removing the container")?;
        Ok(status)
    }

    /// Proves that nothing is left, and gives the name back. Where something is, the name and its journal stay.
    async fn close(self, subject: Subject) -> Result<()> {
        let devices = self.host.devices().await.map_err(told)?;
        let held = self.driver.ledger().view().slots.len();
        let mut left: Vec<String> = Vec::new();
        left.extend((held > 0).then(|| format!("{held} slots of the ledger")));
        left.extend(devices.scsi.iter().map(|address| address.to_string()));
        left.extend(devices.leftovers.iter().cloned());
        if !left.is_empty() {
            bail!("left behind: {}", left.join(", "));
        }
        self.host.owner().tidy().map_err(told)?;
        subject.remove()?;
        Ok(self.owned.close()?)
    }
}

/// The runtime from its start to its end. Its standard streams, and the terminal, are ours.
async fn attended(container: &LocalContainer, interactive: bool, signals: &mut Signals) -> Result<u8> {
    let mut command = container.run();
    if !interactive {
        command.stdin(std::process::Stdio::null());
    }
    let program = command.get_program().to_owned();
    let mut runtime = Command::from(command)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    loop {
        let event = tokio::select! {
            status = runtime.wait() => return Ok(status_of(status.context("waiting for the OCI runtime")?)),
            event = signals.next() => event,
        };
        let passed_on = match event {
            // It cannot be passed on by the runtime.
            Event::Signal(libc::SIGKILL) => tokio::task::block_in_place(|| container.kill()).map_err(told),
            Event::Signal(number) => pass_on(&runtime, number),
            // The runtime has the same terminal, and sees it itself.
            Event::Resized => Ok(()),
        };
        if let Err(error) = passed_on {
            tracing::warn!(%error, "not passed on to the container");
        }
    }
}

fn pass_on(runtime: &Child, number: i32) -> Result<()> {
    if is_from_the_terminal(number) {
        return Ok(());
    }
    // None once it has been waited for.
    let pid = runtime
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
        kill_process(pid, signal).context("signalling the OCI runtime")?;
    }
    Ok(())
}

/// Ctrl-C and Ctrl-\ go to every process in the terminal's foreground, so the runtime has had this one already.
fn is_from_the_terminal(number: i32) -> bool {
    matches!(number, libc::SIGINT | libc::SIGQUIT)
        && rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|foreground| foreground == getpgrp())
}

fn status_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|number| 128 + number))
        .unwrap_or(i32::from(u8::MAX));
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_runtime_has_the_status_of_a_shell() {
        assert_eq!(status_of(ExitStatus::from_raw(9)), 128 + 9);
        assert_eq!(status_of(ExitStatus::from_raw(7 << 8)), 7);
    }
}
