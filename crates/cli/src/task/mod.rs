//! Commands for containers that run: each asks the process that owns the container, over containerd's task API.

mod attach;
mod client;
mod copy;
mod detach_keys;
mod exec;
mod input;
mod list;
mod logs;
mod pipes;
mod remove;
mod serve;
mod signal;
mod stats;

use std::future::Future;

use anyhow::{Context as _, Result, anyhow};
use cofferdam_owner::{Entry, Root};
use containerd_shim::{
    api::{PauseRequest, ResumeRequest},
    protos::ttrpc::context::Context,
};

pub(crate) use self::serve::serve;
use self::{
    attach::Wishes,
    client::{Task, told},
    detach_keys::DetachKeys,
};
use crate::{
    args::{
        AttachArgs, CpArgs, ExecArgs, IdsArgs, KillArgs, LogsArgs, PsArgs, RmArgs, StartArgs, StatsArgs,
        StopArgs,
    },
    exit::Exit,
};

/// The socket of the task API, in an owner's directory.
const SOCKET: &str = "task.sock";

/// `cofferdam exec`.
pub(crate) fn exec(root: &Root, args: &ExecArgs) -> Exit {
    let ran = blocking(async { exec::execute(&Task::find(root, &args.id)?, args).await });
    match ran {
        Ok(status) => Exit::container(status),
        Err(error) => Exit::not_executed(format!("{error:#}")),
    }
}

/// `cofferdam attach`.
pub(crate) fn attach(root: &Root, args: &AttachArgs) -> Exit {
    let keys = match DetachKeys::parse(&args.detach_keys) {
        Ok(keys) => keys,
        Err(error) => return Exit::usage(format!("--detach-keys: {error:#}")),
    };
    let wishes = Wishes {
        input: !args.no_stdin,
        signals: args.sig_proxy,
        keys,
        start: false,
    };
    attached(root, &args.id, wishes)
}

/// `cofferdam start`.
pub(crate) fn start(root: &Root, args: &StartArgs) -> Exit {
    let keys = match DetachKeys::parse(&args.detach_keys) {
        Ok(keys) => keys,
        Err(error) => return Exit::usage(format!("--detach-keys: {error:#}")),
    };
    match args.ids.as_slice() {
        [id] if args.attach || args.interactive => {
            let wishes = Wishes {
                input: args.interactive,
                signals: true,
                keys,
                start: true,
            };
            attached(root, id, wishes)
        }
        [_, _, ..] if args.attach || args.interactive => {
            Exit::usage("only one container can be attached to: name one, or leave --attach out")
        }
        ids => each(root, ids, async |task: Task| {
            task.init().start().await?;
            println!("{}", task.id);
            Ok(())
        }),
    }
}

fn attached(root: &Root, id: &str, wishes: Wishes) -> Exit {
    match blocking(async { attach::attach(&Task::find(root, id)?, wishes).await }) {
        Ok(status) => Exit::container(status),
        Err(error) => Exit::not_started(format!("{error:#}")),
    }
}

/// `cofferdam cp`.
pub(crate) fn cp(root: &Root, args: &CpArgs) -> Exit {
    let copy = match copy::Copy::of(args) {
        Ok(copy) => copy,
        Err(error) => return Exit::usage(format!("{error:#}")),
    };
    Exit::of(blocking(copy.perform(root)))
}

/// `cofferdam kill`.
pub(crate) fn kill(root: &Root, args: &KillArgs) -> Exit {
    let signal = match signal::number(&args.signal) {
        Ok(signal) => signal,
        Err(error) => return Exit::usage(format!("{error:#}")),
    };
    each(root, &args.ids, async |task: Task| task.init().kill(signal).await)
}

/// `cofferdam pause`.
pub(crate) fn pause(root: &Root, args: &IdsArgs) -> Exit {
    each(root, &args.ids, async |task: Task| {
        let request = PauseRequest {
            id: task.id,
            ..PauseRequest::default()
        };
        told(task.client.pause(Context::default(), &request).await).map(drop)
    })
}

/// `cofferdam resume`.
pub(crate) fn resume(root: &Root, args: &IdsArgs) -> Exit {
    each(root, &args.ids, async |task: Task| {
        let request = ResumeRequest {
            id: task.id,
            ..ResumeRequest::default()
        };
        told(task.client.resume(Context::default(), &request).await).map(drop)
    })
}

/// `cofferdam wait`: the status of each, when it has ended.
pub(crate) fn wait(root: &Root, args: &IdsArgs) -> Exit {
    each_of(&args.ids, async |id: &str| {
        let entry = root.entry(id)?;
        println!("{}", status_of(&entry).await?);
        // Whoever waited finds nothing of it any more.
        remove::gone(&entry).await
    })
}

/// The exit status, which is waited for.
async fn status_of(entry: &Entry) -> Result<u32> {
    if let Some(ended) = entry.ended() {
        return Ok(ended.status.into());
    }
    let asked = async {
        let task = Task::of(entry.clone())?;
        Ok::<_, anyhow::Error>(told(task.init().wait().await)?.exit_status)
    };
    match asked.await {
        Ok(status) => Ok(status),
        // An owner that is about to end does not answer any more.
        Err(error) => {
            remove::ends(entry).await;
            entry.ended().map(|ended| ended.status.into()).ok_or(error)
        }
    }
}

/// `cofferdam logs`.
pub(crate) fn logs(root: &Root, args: &LogsArgs) -> Exit {
    Exit::of(logs::show(root, args))
}

/// `cofferdam stop`.
pub(crate) fn stop(root: &Root, args: &StopArgs) -> Exit {
    let limit = std::time::Duration::from_secs(args.time);
    each(root, &args.ids, async |task: Task| {
        remove::stop(&task, limit).await
    })
}

/// `cofferdam rm`.
pub(crate) fn rm(root: &Root, args: &RmArgs) -> Exit {
    Exit::of(blocking(remove::remove(root, args)))
}

/// `cofferdam ps`.
pub(crate) fn ps(root: &Root, args: &PsArgs) -> Exit {
    Exit::of(blocking(list::ps(root, args)))
}

/// `cofferdam stats`.
pub(crate) fn stats(root: &Root, args: &StatsArgs) -> Exit {
    Exit::of(blocking(stats::show(root, args)))
}

/// Does it for each that runs, and tells every failure.
fn each(root: &Root, ids: &[String], ask: impl AsyncFn(Task) -> Result<()>) -> Exit {
    each_of(ids, async |id: &str| ask(Task::find(root, id)?).await)
}

/// Does it for each, and tells every failure.
fn each_of(ids: &[String], ask: impl AsyncFn(&str) -> Result<()>) -> Exit {
    Exit::of(blocking(async {
        let mut failures = Vec::new();
        for id in ids {
            failures.extend(ask(id).await.err().map(|error| format!("{error:#}")));
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(anyhow!("{}", failures.join("\n"))),
        }
    }))
}

fn blocking<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting")?;
    let done = runtime.block_on(work);
    // A read of the terminal cannot be cut short.
    runtime.shutdown_background();
    done
}
