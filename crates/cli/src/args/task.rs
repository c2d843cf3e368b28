//! Commands for containers that run, each told to the process that owns it.

use clap::Args;

use super::Format;

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Leave standard input to the process.
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Give it a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Its working directory, which is absolute.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// Whom it runs as, by name or number, as the container's /etc/passwd and /etc/group have them.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// A further environment variable; without a value, that of this command's own.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// The container.
    pub(crate) id: String,

    /// The program and its arguments.
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal, by name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: String,

    /// The containers.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Those that have ended too.
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Names only.
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The containers; all that run when absent.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,

    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct IdsArgs {
    /// The containers.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what comes, until the container has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Say when each line was written.
    #[arg(short, long)]
    pub(crate) timestamps: bool,

    /// The container.
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until a container that was asked to end is killed.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) time: u64,

    /// The containers.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill those that run.
    #[arg(short, long)]
    pub(crate) force: bool,

    /// The containers.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}
