//! Running a container.

use std::path::PathBuf;

use clap::Args;

use super::{VmArgs, values::container_id};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The bundle: a directory with config.json. Relative paths in it start here.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,

    /// The container's name; made up when absent.
    #[arg(value_name = "ID", value_parser = container_id)]
    pub(crate) id: Option<String>,

    /// Give the container a terminal, as if the spec said `process.terminal`.
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Process isolation: no utility VM. Layers are mounted on this host, and an OCI runtime of the host runs the
    /// container.
    #[arg(long)]
    pub(crate) no_vm: bool,

    /// The OCI runtime for --no-vm; the first there is of runc, crun and youki when absent.
    #[arg(long, value_name = "PROGRAM", requires = "no_vm")]
    pub(crate) runtime: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) vm: VmArgs,
}

impl RunArgs {
    /// The container's name, or one made up from this process's number.
    pub(crate) fn container_name(&self) -> String {
        let made_up = || format!("cofferdam-{}", std::process::id());
        self.id.clone().unwrap_or_else(made_up)
    }
}
