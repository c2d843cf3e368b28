//! The `cofferdam` command: runs containers in utility VMs and shows what they would take.

mod about;
mod args;
mod detached;
mod events;
mod exit;
mod fsck;
mod image;
mod inspect;
mod layer;
mod log_file;
mod moment;
mod mount;
mod network;
mod output;
mod owned;
mod plan;
mod progress;
mod run;
mod run_image;
mod run_local;
mod signals;
mod streams;
mod task;
mod terminal;
mod timings;

use std::io::IsTerminal;

use cofferdam_owner::Root;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Cli, Command, LogFormat, RunArgs},
    exit::Exit,
    run::Mode,
    run_image::Subject,
};

fn main() -> ! {
    let cli = args::parse();
    let exit = match log_to_stderr(&cli) {
        Ok(()) => dispatch(cli),
        Err(exit) => exit,
    };
    // Not a return from main: a thread may still be blocked on reading standard input.
    std::process::exit(exit.announce())
}

fn dispatch(cli: Cli) -> Exit {
    let root = cli.root.map_or_else(Root::for_this_user, Root::new);
    match cli.command {
        Command::Plan(args) => plan::execute(&args),
        Command::Fsck(args) => fsck::execute(&root, &args),
        Command::Mount(command) => mount::execute(&root, &command),
        Command::Image(args) => image::execute(&args),
        Command::Layer(command) => layer::execute(&command),
        Command::Run(args) => run_command(&root, &args),
        Command::Create(args) => create_command(&root, &args),
        Command::Start(args) => task::start(&root, &args),
        Command::Attach(args) => task::attach(&root, &args),
        Command::Exec(args) => task::exec(&root, &args),
        Command::Cp(args) => task::cp(&root, &args),
        Command::Kill(args) => task::kill(&root, &args),
        Command::Pause(args) => task::pause(&root, &args),
        Command::Resume(args) => task::resume(&root, &args),
        Command::Wait(args) => task::wait(&root, &args),
        Command::Logs(args) => task::logs(&root, &args),
        Command::Stop(args) => task::stop(&root, &args),
        Command::Rm(args) => task::rm(&root, &args),
        Command::Ps(args) => task::ps(&root, &args),
        Command::Inspect(args) => inspect::execute(&root, &args),
        Command::State(args) => inspect::state(&root, &args),
        Command::Events(args) => events::execute(&root, &args),
        Command::Stats(args) => task::stats(&root, &args),
    }
}

fn run_command(root: &Root, args: &RunArgs) -> Exit {
    let mode = match args.detach {
        true => Mode::Detached,
        false => Mode::Foreground,
    };
    container_command(root, args, mode)
}

fn create_command(root: &Root, args: &RunArgs) -> Exit {
    let unfit = [
        ("--no-vm", args.no_vm),
        ("--keep-on-failure", args.vm.keep_on_failure),
        ("--timings", args.vm.timings),
    ];
    if let Some((option, _)) = unfit.into_iter().find(|(_, given)| *given) {
        return Exit::usage(format!(
            "{option} is for a container that is run at once: use cofferdam run"
        ));
    }
    container_command(root, args, Mode::Held)
}

fn container_command(root: &Root, args: &RunArgs, mode: Mode) -> Exit {
    let target = match args.target() {
        Ok(target) => target,
        Err(error) => return Exit::usage(format!("{error:#}")),
    };
    if let Err(error) = network::check(&args.network, args.no_vm) {
        return Exit::usage(format!("{error:#}"));
    }
    if mode != Mode::Foreground && !detached::is_detached() {
        return detached::start();
    }
    // Before signals are watched: nothing is taken yet, and a pull is just ended by one.
    let subject = match Subject::find(args, target) {
        Ok(subject) => subject,
        Err(error) => return Exit::failed(format!("{error:#}")),
    };
    // Two workers: one may be busy with a stream while the other answers the guest.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(async {
                if args.no_vm {
                    run_local::execute(root, args, subject).await
                } else {
                    run::execute(root, args, mode, subject).await
                }
            });
            runtime.shutdown_background();
            exit
        }
        Err(error) => Exit::failed(error),
    }
}

fn log_to_stderr(cli: &Cli) -> Result<(), Exit> {
    let filter = EnvFilter::try_new(&cli.log_level)
        .map_err(|error| Exit::usage(format!("--log-level {}: {error}", cli.log_level)))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    match cli.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
