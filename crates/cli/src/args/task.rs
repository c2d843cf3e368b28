//! Commands for containers that run, each told to the process that owns it.

use clap::{ArgAction, Args};

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

/// The keys that docker and podman have.
const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on.
    #[arg(long)]
    pub(crate) no_stdin: bool,

    /// Pass signals on to the container; otherwise they end the command only.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) sig_proxy: bool,

    /// The keys that let go of the container's terminal, one after the other; "" for none.
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    pub(crate) detach_keys: String,

    /// The container.
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Show what the container writes until it has ended, pass signals on to it, and exit with its status.
    #[arg(short, long)]
    pub(crate) attach: bool,

    /// Leave standard input to it too, where it was created with --interactive.
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// The keys that let go of the container's terminal, one after the other; "" for none.
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    pub(crate) detach_keys: String,

    /// The containers.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
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
    /// Once, after a second; as it also is where standard output is no terminal, and with JSON.
    #[arg(long)]
    pub(crate) no_stream: bool,

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

/// How many lines of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    All,
    Last(u64),
}

fn lines(text: &str) -> Result<Lines, String> {
    match text {
        "all" => Ok(Lines::All),
        number => number
            .parse()
            .map(Lines::Last)
            .map_err(|_| "it is a number of lines, or all".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on with what comes, until the container has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Only the last lines of what there is: so many, or all.
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = lines)]
    pub(crate) tail: Lines,

    /// Only what was written since then: a time of RFC 3339, seconds since 1970, or how long ago (10m, 2h30m).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

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
