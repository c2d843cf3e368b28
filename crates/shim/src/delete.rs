//! `delete`: clears up after a process that was killed. containerd calls it when it has lost one.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use cofferdam_owner::{Entry, OwnerError, remains};
use cofferdam_task::timestamp;
use containerd_shim::{Flags, api::DeleteResponse, protos::protobuf::Message};
use std::io::Write;

use crate::{configuration, machine, rootfs};

/// How long an owner that is just ending may take.
const END_LIMIT: Duration = Duration::from_secs(10);

/// The status of what ran in a VM that was killed.
const KILLED: u32 = 128 + 9;

/// Frees what the owner left, unmounts the root, and tells how the container ended.
pub(crate) fn delete(flags: &Flags) -> Result<()> {
    let cleared = cleared(&machine::owner_name(&flags.namespace, &flags.id));
    let bundle = match flags.bundle.as_str() {
        "" => Path::new("."),
        bundle => Path::new(bundle),
    };
    let unmounted = rootfs::unmount(bundle);
    cleared?;
    unmounted?;
    let mut response = DeleteResponse::new();
    response.exit_status = KILLED;
    response.exited_at = Some(timestamp(SystemTime::now())).into();
    let bytes = response.write_to_bytes()?;
    std::io::stdout()
        .write_all(&bytes)
        .context("answering containerd")
}

fn cleared(name: &str) -> Result<()> {
    let entry = match configuration::root().entry(name) {
        // A container of a pod is its sandbox's, and whoever owned only this has freed everything.
        Err(OwnerError::Absent { .. }) => return Ok(()),
        other => other?,
    };
    let begun = Instant::now();
    loop {
        if let Some(adopted) = entry.adopt()? {
            free(&entry)?;
            adopted.close()?;
            return Ok(());
        }
        if begun.elapsed() > END_LIMIT {
            let process = entry.record().map_or(0, |record| record.owner.pid);
            bail!("process {process} still owns {name}; end it, or wait until it has");
        }
        if !entry.dir().exists() {
            return Ok(());
        }
        sleep(Duration::from_millis(20));
    }
}

fn free(entry: &Entry) -> Result<()> {
    let found = remains::find(entry);
    for remain in found.remains {
        if let Some(remedy) = &remain.remedy {
            remains::free(remedy).with_context(|| format!("freeing {}", remain.what))?;
        }
    }
    found.replay.context("reading the journal").map(drop)
}
