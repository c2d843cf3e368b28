//! `cofferdam stop` and `cofferdam rm`.

use std::time::Duration;

use anyhow::{Result, bail};
use cofferdam_owner::{Entry, Root};
use containerd_shim::{
    api::{KillRequest, WaitRequest},
    protos::ttrpc::context::Context,
};
use tokio::time::{sleep, timeout};

use super::client::{Task, told};
use crate::args::RmArgs;

const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;
/// For an owner to give everything back once its container has ended.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Asks to end, and kills after `limit`; returns when the owner is gone.
pub(super) async fn stop(task: &Task, limit: Duration) -> Result<()> {
    kill(task, SIGTERM).await?;
    let request = WaitRequest {
        id: task.id.clone(),
        ..WaitRequest::default()
    };
    // An owner that is gone meanwhile is what is waited for.
    if timeout(limit, task.client.wait(Context::default(), &request))
        .await
        .is_err()
    {
        kill(task, SIGKILL).await?;
    }
    gone(&task.entry).await
}

async fn kill(task: &Task, signal: u32) -> Result<()> {
    let request = KillRequest {
        id: task.id.clone(),
        signal,
        ..KillRequest::default()
    };
    told(task.client.kill(Context::default(), &request).await).map(drop)
}

async fn gone(entry: &Entry) -> Result<()> {
    let ended = async {
        while entry.is_alive() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(END_LIMIT, ended).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("{} has ended, but its owner has not", entry.id()),
    }
}

pub(super) async fn remove(root: &Root, args: &RmArgs) -> Result<()> {
    let mut failures = Vec::new();
    for id in &args.ids {
        let removed = async {
            let entry = root.entry(id)?;
            if entry.is_alive() {
                if !args.force {
                    bail!("{id} runs: stop it first, or use --force");
                }
                let task = Task::of(entry.clone())?;
                kill(&task, SIGKILL).await?;
                gone(&entry).await?;
            }
            // Its owner may have removed it itself.
            if !entry.dir().exists() {
                return Ok(());
            }
            if entry.ended().is_none() {
                bail!("{id}: its owner was killed; `cofferdam fsck --repair {id}` frees what it left");
            }
            match entry.adopt()? {
                Some(adopted) => Ok(adopted.close()?),
                None => bail!("{id} is being removed by somebody else"),
            }
        };
        failures.extend(removed.await.err().map(|error| format!("{error:#}")));
    }
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{}", failures.join("\n")),
    }
}
