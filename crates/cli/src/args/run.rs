//! Running a container.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use cofferdam_runspec::WantedMount;

use super::{
    NetworkArgs, RegistryArgs, StoreArgs, VmArgs,
    values::{container_id, log_bytes, size_bytes},
};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The image, by name or by the start of its digest, and the command that is run instead of its own. With --bundle
    /// the container's name. What follows IMAGE, options too, belongs to the command.
    #[arg(value_name = "IMAGE [CMD]...", trailing_var_arg = true)]
    pub(crate) words: Vec<String>,

    /// Run the container of a bundle, not of an image: a directory with config.json. Relative paths in it start here.
    /// Without an image, the current directory if it is a bundle.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,

    /// The container's name; made up when absent.
    #[arg(long, value_name = "ID", value_parser = container_id)]
    pub(crate) name: Option<String>,

    /// Leave the container to a process of its own, and print its name. Its output goes to `cofferdam logs` and to
    /// whoever is attached; with --interactive its input comes from those.
    #[arg(short, long, conflicts_with_all = ["no_vm", "keep_on_failure", "timings"])]
    pub(crate) detach: bool,

    /// What a detached container's log takes at most. Of what was written last at least half as much is kept.
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = log_bytes)]
    pub(crate) log_max_size: u64,

    /// Give the container a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Give the container of an image this standard input; without it there is nothing to read. That of a bundle always
    /// has it.
    #[arg(short, long)]
    pub(crate) interactive: bool,

    /// Process isolation: no utility VM. Layers are mounted on this host, and an OCI runtime of the host runs the
    /// container.
    #[arg(long)]
    pub(crate) no_vm: bool,

    /// The OCI runtime for --no-vm; the first there is of runc, crun and youki when absent.
    #[arg(long, value_name = "PROGRAM", requires = "no_vm")]
    pub(crate) runtime: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) image: ImageRunArgs,

    #[command(flatten)]
    pub(crate) network: NetworkArgs,

    #[command(flatten)]
    pub(crate) vm: VmArgs,
}

/// What of `docker run` says how an image is run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Container of an image")]
pub(crate) struct ImageRunArgs {
    /// Run this instead of the image's entrypoint; "" takes that away. The image's command goes with it.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "bundle")]
    pub(crate) entrypoint: Option<String>,

    /// Set a variable: NAME=VALUE, or NAME for the value it has here.
    #[arg(short, long, value_name = "VARIABLE", conflicts_with = "bundle")]
    pub(crate) env: Vec<String>,

    /// Set the variables of a file, one a line. --env comes after it.
    #[arg(long, value_name = "FILE", conflicts_with = "bundle")]
    pub(crate) env_file: Vec<PathBuf>,

    /// The working directory; made if it is missing.
    #[arg(short, long, value_name = "PATH", conflicts_with = "bundle")]
    pub(crate) workdir: Option<String>,

    /// As whom: `USER[:GROUP]`, names of the image's passwd and group files or numbers.
    #[arg(short, long, value_name = "USER", conflicts_with = "bundle")]
    pub(crate) user: Option<String>,

    /// The host name; the container's name when absent.
    #[arg(long, value_name = "NAME", conflicts_with = "bundle")]
    pub(crate) hostname: Option<String>,

    /// Mount a host path or a volume: `SOURCE:DESTINATION[:ro]`. SOURCE is an absolute path, one that begins with `./`, made a
    /// directory if it is missing, or the name of a volume, which outlives the container. Without SOURCE, a volume of this
    /// container only.
    #[arg(short, long, value_name = "VOLUME", value_parser = cofferdam_runspec::volume, conflicts_with = "bundle")]
    pub(crate) volume: Vec<WantedMount>,

    /// Mount something: `type=TYPE,source=PATH,destination=PATH[,readonly]`. Types are bind, volume, tmpfs, virtual-disk,
    /// automanage-virtual-disk and physical-disk.
    #[arg(long, value_name = "MOUNT", value_parser = WantedMount::parse, conflicts_with = "bundle")]
    pub(crate) mount: Vec<WantedMount>,

    /// Mount memory: `DESTINATION[:OPTIONS]`, options such as size=64m.
    #[arg(long, value_name = "TMPFS", value_parser = cofferdam_runspec::tmpfs, conflicts_with = "bundle")]
    pub(crate) tmpfs: Vec<WantedMount>,

    /// Nothing but volumes and mounts can be written to.
    #[arg(long, conflicts_with = "bundle")]
    pub(crate) read_only: bool,

    /// Give the container a further capability, or ALL.
    #[arg(long, value_name = "CAPABILITY", conflicts_with = "bundle")]
    pub(crate) cap_add: Vec<String>,

    /// Take a capability away, or ALL.
    #[arg(long, value_name = "CAPABILITY", conflicts_with = "bundle")]
    pub(crate) cap_drop: Vec<String>,

    /// What the container can write, at most. It takes the room it uses only, below the store, and goes with the container.
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = size_bytes, conflicts_with = "bundle")]
    pub(crate) scratch_size: u64,

    /// Whether the image is pulled from its registry.
    #[arg(long, value_enum, default_value_t = Pull::Missing, conflicts_with = "bundle")]
    pub(crate) pull: Pull,

    /// The platform that is pulled, where the image is for several: this host's when absent.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "bundle")]
    pub(crate) platform: Option<cofferdam_store::Platform>,

    /// Remove a detached container when it ends; others always are.
    #[arg(long)]
    pub(crate) rm: bool,

    #[command(flatten, next_help_heading = "Images")]
    pub(crate) registry: RegistryArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

impl ImageRunArgs {
    /// Whether anything is wished of the container.
    pub(crate) fn says_something(&self) -> bool {
        let texts = [&self.entrypoint, &self.workdir, &self.user, &self.hostname];
        let lists = [&self.env, &self.cap_add, &self.cap_drop];
        let mounts = [&self.volume, &self.mount, &self.tmpfs];
        self.read_only
            || !self.env_file.is_empty()
            || texts.into_iter().any(Option::is_some)
            || lists.into_iter().any(|list| !list.is_empty())
            || mounts.into_iter().any(|list| !list.is_empty())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pull {
    /// Where it is not in the store.
    Missing,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The container of a bundle's directory.
    Bundle {
        /// The directory.
        dir: PathBuf,
        /// The container's name.
        id: Option<String>,
    },
    /// An image.
    Image {
        /// Its name, or the start of its digest.
        image: String,
        /// Instead of its command.
        command: Vec<String>,
    },
}

impl RunArgs {
    /// Tells a bundle from an image.
    pub(crate) fn target(&self) -> Result<Target> {
        match (&self.bundle, self.words.as_slice()) {
            (Some(dir), []) => Ok(self.of_bundle(dir.clone(), None)),
            (Some(dir), [id]) => {
                if self.name.is_some() {
                    bail!("the container has two names: --name and `{id}`");
                }
                Ok(self.of_bundle(dir.clone(), Some(container_id(id).map_err(anyhow::Error::msg)?)))
            }
            (Some(_), [_, further, ..]) => {
                bail!("unexpected argument `{further}`: with --bundle there is only the container's name")
            }
            (None, []) if PathBuf::from("config.json").exists() => {
                Ok(self.of_bundle(PathBuf::from("."), None))
            }
            (None, []) => bail!("nothing to run: name an IMAGE, or a bundle with --bundle DIR"),
            (None, [image, command @ ..]) => Ok(Target::Image {
                image: image.clone(),
                command: command.to_vec(),
            }),
        }
    }

    fn of_bundle(&self, dir: PathBuf, id: Option<String>) -> Target {
        Target::Bundle {
            dir,
            id: id.or_else(|| self.name.clone()),
        }
    }
}
