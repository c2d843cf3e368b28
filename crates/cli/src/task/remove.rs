//! `cofferdam stop` and `cofferdam rm`.

use std::time::Duration;

use anyhow::{Result, bail};
use cofferdam_owner::{Entry, Root};
use containerd_shim::api::Status;
use tokio::time::{sleep, timeout};

use super::client::Task;
use crate::args::RmArgs;

const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;
/// For an owner to give everything back once its container has ended.
const END_LIMIT: Duration = Duration::from_secs(60);
/// For an owner that does not answer: it may be about to end.
const ENDING_LIMIT: Duration = Duration::from_secs(5);

/// Asks to end, and kills after `limit`; returns when the owner is gone.
pub(super) async fn stop(task: &Task, limit: Duration) -> Result<()> {
    task.init().kill(SIGTERM).await?;
    // An owner that is gone meanwhile is what is waited for.
    if timeout(limit, task.init().wait()).await.is_err() {
        task.init().kill(SIGKILL).await?;
    }
    gone(&task.entry).await
}

/// Ends a container that was never started, with which nothing is lost; with `force`, any.
async fn end(entry: &Entry, force: bool) -> Result<()> {
    let asked = async {
        let task = Task::of(entry.clone())?;
        let status = task.state().await?.status.enum_value_or_default();
        Ok::<_, anyhow::Error>((task, status))
    };
    match asked.await {
        // Its owner is about to end too.
        Ok((_, Status::STOPPED)) => Ok(()),
        Ok((task, Status::CREATED)) => task.init().kill(SIGKILL).await,
        Ok((task, _)) if force => task.init().kill(SIGKILL).await,
        Ok((task, _)) => bail!("{} runs: stop it first, or use --force", task.id),
        // An owner that is about to end does not answer any more.
        Err(error) => ends(entry).await.then_some(()).ok_or(error),
    }
}

/// Waits until everything that a container held was given back.
pub(super) async fn gone(entry: &Entry) -> Result<()> {
    match within(entry, END_LIMIT).await {
        true => Ok(()),
        false => bail!("{} has ended, but its owner has not", entry.id()),
    }
}

/// Whether an owner that does not answer is about to end, and has then ended.
pub(super) async fn ends(entry: &Entry) -> bool {
    within(entry, ENDING_LIMIT).await
}

/// Whether the owner is gone within this time.
async fn within(entry: &Entry, limit: Duration) -> bool {
    let ended = async {
        while entry.is_alive() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(limit, ended).await.is_ok()
}

pub(super) async fn remove(root: &Root, args: &RmArgs) -> Result<()> {
    let mut failures = Vec::new();
    for id in &args.ids {
        let removed = async {
            let entry = root.entry(id)?;
            if entry.is_alive() {
                end(&entry, args.force).await?;
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
