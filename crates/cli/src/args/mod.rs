//! The command line: what can be asked, with help and an example for each command.

mod copy;
mod image;
mod inspect;
mod layer;
mod mount;
mod network;
mod order;
mod plan;
mod run;
mod task;
mod values;
mod vm;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    copy::CpArgs,
    image::{ImageArgs, ImageCommand, ImportArgs, PullArgs, RegistryArgs, StoreArgs, VariantArgs},
    inspect::{EventsArgs, InspectArgs, StateArgs},
    layer::{ConvertArgs, LayerCommand, LayerFormat, ScratchArgs},
    mount::{MountAddArgs, MountCommand},
    network::{NetworkArgs, NetworkKind},
    order::parse,
    plan::{PlanArgs, PlanFormat},
    run::{ImageRunArgs, Pull, RunArgs, Target},
    task::{
        AttachArgs, ExecArgs, IdsArgs, KillArgs, Lines, LogsArgs, PsArgs, RmArgs, StartArgs, StatsArgs,
        StopArgs,
    },
    vm::{Accelerator, VmArgs},
};

/// Linux containers, each in its own utility VM.
#[derive(Debug, Parser)]
#[command(
    name = "cofferdam",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// What is written to standard error while working: error, warn, info, debug or trace, or a filter such as
    /// `cofferdam_qemu=trace,info`.
    #[arg(
        long,
        global = true,
        default_value = "warn",
        value_name = "LEVEL",
        env = "COFFERDAM_LOG"
    )]
    pub(crate) log_level: String,

    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// Where owners of VMs are recorded, with their journals and control sockets: /run/cofferdam for root, else a
    /// directory of this user's.
    #[arg(long, global = true, value_name = "DIR", env = "COFFERDAM_ROOT")]
    pub(crate) root: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an image, or the container of a bundle, in a new utility VM, or with --no-vm on this host.
    ///
    /// Standard output and error are the container's, and so is standard input with --interactive or --bundle; the exit
    /// status is its exit status. cofferdam's own failures exit with 125, an executable that cannot be run with 126, one
    /// that is not found with 127. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; the third SIGINT or
    /// SIGTERM kills. When it ends nothing is kept of an image's container but its volumes with names, and of a detached one
    /// its log and exit status.
    #[command(
        override_usage = "cofferdam run [OPTIONS] IMAGE [CMD]...\n       cofferdam run [OPTIONS] --bundle DIR [ID]",
        after_help = "Examples:\n  cofferdam run -it debian bash\n  \
                            cofferdam run -e LANG=C -v ./src:/src:ro -w /src debian ls -l\n  \
                            cofferdam run -d --name web -p 8080:80 nginx\n  \
                            cofferdam run --bundle ./busybox --memory 256M demo\n  \
                            cofferdam run --bundle ./busybox --no-vm"
    )]
    Run(Box<RunArgs>),
    /// Make a container in a new utility VM, everything but started: `cofferdam start` starts it.
    ///
    /// It takes what `run` takes. What the container writes goes to `cofferdam logs`, and to whoever is attached.
    #[command(
        override_usage = "cofferdam create [OPTIONS] IMAGE [CMD]...\n       cofferdam create [OPTIONS] --bundle DIR [ID]",
        after_help = "Examples:\n  cofferdam create --name web -p 8080:80 nginx\n  \
                            cofferdam create -it --name shell debian bash && cofferdam start -ai shell\n  \
                            cofferdam create --bundle ./busybox demo"
    )]
    Create(Box<RunArgs>),
    /// Start containers that were created.
    #[command(
        after_help = "Examples:\n  cofferdam start web\n  cofferdam start --attach --interactive shell"
    )]
    Start(StartArgs),
    /// Connect to the streams of a detached container, until it has ended.
    ///
    /// What it writes from now on is shown, standard input and signals are passed on, and the exit status is its own. From
    /// a terminal, ctrl-p and ctrl-q let go of it.
    #[command(
        after_help = "Examples:\n  cofferdam attach web\n  cofferdam attach --no-stdin --sig-proxy=false web"
    )]
    Attach(AttachArgs),
    /// Show what running a bundle or an image would take, without starting or touching anything.
    #[command(
        after_help = "Examples:\n  cofferdam plan --bundle ./busybox --format json | jq .limits\n  \
                            cofferdam plan --bundle ./web --bundle ./db\n  \
                            cofferdam plan -v ./src:/src --image debian"
    )]
    Plan(Box<PlanArgs>),
    /// Compare what owners have written down with what is there, and free what nobody owns.
    ///
    /// A living owner compares its ledger, its VM's devices and its guest's mounts. What a dead one left is found by its
    /// journal. Exits with 1 if something is wrong, or is left after --repair.
    #[command(after_help = "Examples:\n  cofferdam fsck\n  cofferdam fsck --repair web")]
    Fsck(FsckArgs),
    /// Run a further process in a running container, with our standard streams.
    ///
    /// What is not said is the container's own: environment, user, working directory. The exit status is the process's.
    #[command(after_help = "Examples:\n  cofferdam exec web ls -l /\n  cofferdam exec -it web sh")]
    Exec(ExecArgs),
    /// Copy files and directories between this host and a container.
    ///
    /// One side is ID:PATH. A destination that is a directory is copied into, one that is not there is made; a source that
    /// ends in /. is copied without the directory itself. With `-` an archive (tar) is read from standard input, or written
    /// to standard output. Nothing in the container is needed for it. Owners are the caller's on the host and root in the
    /// container, unless --archive says otherwise.
    #[command(
        after_help = "Examples:\n  cofferdam cp ./site web:/srv\n  cofferdam cp web:/var/log/. ./logs\n  \
                            cofferdam cp web:/etc - | tar t\n  tar c . | cofferdam cp - web:/tmp"
    )]
    Cp(CpArgs),
    /// Send a signal to running containers.
    #[command(after_help = "Examples:\n  cofferdam kill web\n  cofferdam kill --signal HUP web db")]
    Kill(KillArgs),
    /// Make everything in running containers stand still.
    #[command(after_help = "Example:\n  cofferdam pause web")]
    Pause(IdsArgs),
    /// Let paused containers go on.
    #[command(after_help = "Example:\n  cofferdam resume web")]
    Resume(IdsArgs),
    /// Wait until containers have ended, and print the exit status of each.
    #[command(after_help = "Example:\n  cofferdam wait web")]
    Wait(IdsArgs),
    /// Show what a detached container has written.
    #[command(
        after_help = "Examples:\n  cofferdam logs web\n  cofferdam logs -f --timestamps web\n  cofferdam logs -n 20 --since 10m web"
    )]
    Logs(LogsArgs),
    /// Ask running containers to end, with SIGTERM, and kill those that do not.
    #[command(after_help = "Example:\n  cofferdam stop --time 30 web")]
    Stop(StopArgs),
    /// Remove containers that were not started, and what is kept of those that have ended: their logs and exit statuses.
    #[command(
        visible_alias = "delete",
        after_help = "Examples:\n  cofferdam rm web\n  cofferdam rm --force web"
    )]
    Rm(RmArgs),
    /// List containers: those that run, and those whose owner has died.
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  cofferdam ps\n  cofferdam ps --format json | jq '.[].id'"
    )]
    Ps(PsArgs),
    /// Show all that is known of containers: states, processes, network, and who holds which device of the VM.
    ///
    /// The device map is the ledger of the process that owns the VM: each SCSI disk, persistent-memory device and share with
    /// its path on the host, its mounts in the VM, and the containers that hold it, as layer, scratch, root or mount.
    #[command(
        after_help = "Examples:\n  cofferdam inspect web | jq '.[0].devices[] | {device, hostPath, heldBy}'\n  \
                            cofferdam inspect --format table web"
    )]
    Inspect(InspectArgs),
    /// Show a container's state as OCI runtimes do: the process is the hypervisor's, and 0 for one that has stopped.
    #[command(after_help = "Example:\n  cofferdam state web | jq -r .status")]
    State(StateArgs),
    /// Show what happens to containers in utility VMs, as it happens, until interrupted.
    ///
    /// A delete says that everything was given back; lost, that an owner was killed before it could say that.
    #[command(
        after_help = "Examples:\n  cofferdam events\n  cofferdam events --since 10m --filter type=exit --filter type=oom\n  \
                            cofferdam events web --format json | jq .attributes.exitStatus"
    )]
    Events(EventsArgs),
    /// Show what running containers use: on a terminal again each second.
    #[command(after_help = "Examples:\n  cofferdam stats\n  cofferdam stats web --format json")]
    Stats(StatsArgs),
    /// Add mounts to a running container, remove them, and list them.
    #[command(
        subcommand,
        after_help = "Examples:\n  cofferdam mount add web --mount type=bind,source=/srv/data,destination=/data,readonly\n  \
                            cofferdam mount remove web /data"
    )]
    Mount(MountCommand),
    /// Fetch, import, list and remove images.
    Image(ImageArgs),
    /// Make disks of layers: from archives, or empty.
    #[command(subcommand)]
    Layer(LayerCommand),
}

#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Whom to look at; everybody when absent.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,

    /// Free what nobody owns: processes, devices, mounts, auto-managed disks, directories and records.
    #[arg(long)]
    pub(crate) repair: bool,

    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
