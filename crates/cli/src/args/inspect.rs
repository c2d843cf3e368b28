//! Looking at containers, and at what happens to them.

use clap::Args;

use super::Format;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub(crate) format: Format,

    /// The containers; of containerd's, the owner of their VM, as `cofferdam ps` lists it.
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// The container.
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,

    /// What has happened since then too, as far as living owners keep it: a time of RFC 3339, seconds since 1970, or how long
    /// ago (10m, 2h30m).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Only these: `type=` with create, start, exec-added, exec-started, exit, oom, paused, resumed, delete or lost. May be
    /// repeated: any of them.
    #[arg(long = "filter", short, value_name = "FILTER")]
    pub(crate) filters: Vec<String>,

    /// The containers, or owners of VMs; all when absent. They may come later.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
}
