//! Commands for containers that run: each asks the process that owns the container, over containerd's task API.

mod client;
mod copy;
mod exec;
mod list;
mod logs;
mod remove;
mod serve;
mod signal;

use std::future::Future;

use anyhow::{Context as _, Result, anyhow};
use cofferdam_owner::Root;
use containerd_shim::{
    api::{KillRequest, PauseRequest, ResumeRequest, WaitRequest},
    protos::ttrpc::context::Context,
};

use self::client::{Task, told};
pub(crate) use self::serve::serve;
use crate::{
    args::{CpArgs, ExecArgs, IdsArgs, KillArgs, LogsArgs, PsArgs, RmArgs, StatsArgs, StopArgs},
    exit::Exit,
};

/// The socket of the task API, in an owner's directory.
const SOCKET: &str = "task.sock";

/// `cofferdam exec`.
pub(crate) fn exec(root: &Root, args: &ExecArgs) -> Exit {
    let ran = blocking(async { exec::execute(&Task::find(root, &args.id)?, args).await });
    match ran {
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
    ended(blocking(copy.perform(root)))
}

/// `cofferdam kill`.
pub(crate) fn kill(root: &Root, args: &KillArgs) -> Exit {
    let signal = match signal::number(&args.signal) {
        Ok(signal) => signal,
        Err(error) => return Exit::usage(format!("{error:#}")),
    };
    each(root, &args.ids, async |task: Task| {
        let request = KillRequest {
            id: task.id,
            signal,
            ..KillRequest::default()
        };
        told(task.client.kill(Context::default(), &request).await).map(drop)
    })
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
    each(root, &args.ids, async |task: Task| {
        let request = WaitRequest {
            id: task.id,
            ..WaitRequest::default()
        };
        let exit = told(task.client.wait(Context::default(), &request).await)?;
        println!("{}", exit.exit_status);
        Ok(())
    })
}

/// `cofferdam logs`.
pub(crate) fn logs(root: &Root, args: &LogsArgs) -> Exit {
    ended(logs::show(root, args))
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
    ended(blocking(remove::remove(root, args)))
}

/// `cofferdam ps`.
pub(crate) fn ps(root: &Root, args: &PsArgs) -> Exit {
    ended(blocking(list::ps(root, args)))
}

/// `cofferdam stats`.
pub(crate) fn stats(root: &Root, args: &StatsArgs) -> Exit {
    ended(blocking(list::stats(root, args)))
}

/// Does it for each, and tells every failure.
fn each<F>(root: &Root, ids: &[String], ask: impl Fn(Task) -> F) -> Exit
where
    F: Future<Output = Result<()>>,
{
    ended(blocking(async {
        let mut failures = Vec::new();
        for id in ids {
            let done = match Task::find(root, id) {
                Ok(task) => ask(task).await,
                Err(error) => Err(error),
            };
            failures.extend(done.err().map(|error| format!("{error:#}")));
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(anyhow!("{}", failures.join("\n"))),
        }
    }))
}

fn ended(outcome: Result<()>) -> Exit {
    match outcome {
        Ok(()) => Exit::success(),
        Err(error) => Exit::refused(format!("{error:#}")),
    }
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
