//! The command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{bench, boot, demo, deny, fuzz, kernel, layering, layers, setup, testing, workspace};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Set-up, boot files, demo and checks of cofferdam",
    after_help = "Examples:\n  \
        cargo xtask demo              run a container in a utility VM, from a fresh Debian 12 machine\n  \
        cargo xtask test              run all checks and tests, the VM tests included\n  \
        cargo xtask kernel            build the small kernel: VMs then boot three times as fast\n\n\
        Programs' output is kept in target/xtask-logs; what is slow to make in ~/.cache/cofferdam."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the Debian packages that are missing (as root, or through sudo)
    #[command(
        after_help = "Example:\n  cargo xtask setup --kernel    also what building the small kernel needs"
    )]
    Setup {
        /// Also what `cargo xtask kernel` needs
        #[arg(long)]
        kernel: bool,
    },
    /// Build the small kernel from Debian's kernel source (about ten CPU minutes, once)
    #[command(
        after_help = "Example:\n  cargo xtask kernel --check    only check the configuration (a minute)"
    )]
    Kernel {
        /// Only check that the kernel keeps every option of kernel/uvm-kernel.fragment
        #[arg(long, conflicts_with = "refresh")]
        check: bool,
        /// Use the newest source package even if a kernel has been built
        #[arg(long)]
        refresh: bool,
    },
    /// Make the kernels and initramfs that VMs boot, in target/boot
    #[command(after_help = "Example:\n  cargo xtask boot --sizes")]
    Boot {
        /// Print the sizes of the kernels, the initramfs and the agent
        #[arg(long)]
        sizes: bool,
        /// Fetch the newest Debian kernel even if one is in the cache
        #[arg(long)]
        refresh: bool,
    },
    /// Make the layers that the demo and the VM tests use, and print their directory
    Layers {
        /// From the newest packages even if layers are in the cache
        #[arg(long)]
        refresh: bool,
    },
    /// Run a container in a utility VM, with layers, disks and shares, and show that nothing is left
    #[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --kernel debian --keep-bundle")]
    Demo {
        /// Boot this kernel; by default the small one if it has been built
        #[arg(long)]
        kernel: Option<KernelChoice>,
        /// Leave the bundle in target/demo to run it again by hand
        #[arg(long)]
        keep_bundle: bool,
    },
    /// Check the dependencies between the crates and the rules of layering.toml
    Layering,
    /// Check licences, sources and banned crates against deny.toml
    Deny,
    /// Run the checks and tests of all rings, or of one
    #[command(
        after_help = "Examples:\n  cargo xtask test                      everything\n  \
                            cargo xtask test pure                 unit tests only\n  \
                            cargo xtask test vm --kernel debian   VM tests with Debian's kernel\n  \
                            cargo xtask test vm -- hot_add        VM tests whose names contain `hot_add`"
    )]
    Test {
        /// The ring to run; all by default
        ring: Option<testing::Ring>,
        /// Kernels of the VM tests; by default every one that is there
        #[arg(long)]
        kernel: Option<testing::Kernels>,
        /// Only tests whose names contain one of these
        #[arg(last = true)]
        names: Vec<String>,
    },
    /// Measure what planning, hot-plugging and booting cost (minutes; no check depends on it)
    #[command(
        after_help = "Examples:\n  cargo xtask bench                        everything\n  \
                            cargo xtask bench plan --format json     one benchmark, for a script"
    )]
    Bench {
        /// What to measure; everything by default
        name: Option<bench::Bench>,
        /// How to print the figures
        #[arg(long, value_enum, default_value_t = bench::Format::Table)]
        format: bench::Format,
    },
    /// Throw hostile input at whatever reads archives, disks and image documents
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz                            all targets, 15 seconds each\n  \
                            cargo xtask fuzz layer --seconds 3600       one of them, for an hour"
    )]
    Fuzz {
        /// What to fuzz; everything by default
        target: Option<fuzz::Target>,
        /// How long, for each target
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// Print what was done as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the boot files
    Clean {
        /// Also remove ~/.cache/cofferdam: kernels, packages, layers
        #[arg(long)]
        cache: bool,
    },
}

/// One of the two kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelChoice {
    /// The one `cargo xtask kernel` builds
    Small,
    /// Debian's own
    Debian,
}

impl KernelChoice {
    /// The name of its directory below `target/boot`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KernelChoice::Small => "small",
            KernelChoice::Debian => "debian",
        }
    }
}

/// Parses the arguments and runs the command.
pub(crate) fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Setup { kernel } => setup::run(kernel)?,
        Command::Kernel { check: true, .. } => kernel::check_config()?,
        Command::Kernel { refresh, .. } => drop(kernel::build(refresh)?),
        Command::Boot { sizes, refresh } => {
            setup::run(false)?;
            let made = boot::prepare(refresh)?;
            if sizes {
                boot::print_sizes(&made)?;
            }
        }
        Command::Layers { refresh } => {
            setup::run(false)?;
            println!("{}", layers::obtain(refresh)?.dir.display());
        }
        Command::Demo { kernel, keep_bundle } => demo::run(kernel, keep_bundle)?,
        Command::Layering => layering::run(&workspace::root())?,
        Command::Deny => deny::run(&workspace::root())?,
        Command::Test { ring, kernel, names } => return testing::run(ring, kernel, &names),
        Command::Fuzz {
            target,
            seconds,
            json,
        } => fuzz::print(&fuzz::run(target, seconds)?, json),
        Command::Bench { name, format } => bench::run(name, format)?,
        Command::Clean { cache } => boot::clean(cache)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn test_names_follow_a_double_dash() {
        let parsed = Arguments::try_parse_from(["cargo xtask", "test", "vm", "--", "hot_add"]).unwrap();
        let Command::Test { ring, names, .. } = parsed.command else {
            panic!("not the command `test`")
        };
        assert_eq!(ring, Some(testing::Ring::Vm));
        assert_eq!(names, ["hot_add"]);
    }
}
