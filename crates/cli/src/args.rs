//! The command line: what can be asked, with help and an example for each command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// Run the container of a bundle in a new utility VM, or with --no-vm on this host, in the foreground.
    ///
    /// Standard input, output and error are the container's; the exit status is its exit status. cofferdam's own
    /// failures exit with 125, an executable that cannot be run with 126, one that is not found with 127.
    /// SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; the third SIGINT or SIGTERM kills.
    #[command(
        after_help = "Examples:\n  cofferdam run --bundle ./busybox --memory 256M demo\n  \
                            cofferdam run --bundle ./busybox --no-vm"
    )]
    Run(RunArgs),
    /// Show what running a bundle would take, without starting or touching anything.
    #[command(
        after_help = "Examples:\n  cofferdam plan --bundle ./busybox --format json | jq .limits\n  \
                            cofferdam plan --bundle ./web --bundle ./db"
    )]
    Plan(PlanArgs),
    /// Compare what owners have written down with what is there, and free what nobody owns.
    ///
    /// A living owner compares its ledger, its VM's devices and its guest's mounts. What a dead one left is found by its
    /// journal. Exits with 1 if something is wrong, or is left after --repair.
    #[command(after_help = "Examples:\n  cofferdam fsck\n  cofferdam fsck --repair web")]
    Fsck(FsckArgs),
    /// Add mounts to a running container, remove them, and list them.
    #[command(
        subcommand,
        after_help = "Examples:\n  cofferdam mount add web --mount type=bind,source=/srv/data,destination=/data,readonly\n  \
                            cofferdam mount remove web /data"
    )]
    Mount(MountCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum MountCommand {
    /// Attach a directory, a file or a disk, and mount it in the running container.
    #[command(
        after_help = "Example:\n  cofferdam mount add web --mount type=virtual-disk,source=data.vhdx,destination=/data"
    )]
    Add(MountAddArgs),
    /// Unmount it, and give back what it took. One that is in use stays.
    #[command(after_help = "Example:\n  cofferdam mount remove web /data")]
    Remove {
        /// The container.
        #[arg(value_name = "ID")]
        id: String,
        /// Where it is in the container.
        #[arg(value_name = "DESTINATION")]
        destination: String,
    },
    /// The mounts that were added.
    #[command(after_help = "Example:\n  cofferdam mount list web --format json")]
    List {
        /// The container.
        #[arg(value_name = "ID")]
        id: String,
        /// What to print.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MountAddArgs {
    /// The container.
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// The mount, as docker writes it: `type=bind,source=DIR,destination=PATH[,readonly]`. Types are those of a
    /// bundle: bind (the default), virtual-disk, automanage-virtual-disk, physical-disk.
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: String,
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Utility VM")]
pub(crate) struct VmArgs {
    /// The VM's memory, in bytes or with K, M or G (powers of 1024).
    #[arg(short, long, value_name = "SIZE", default_value = "512M", value_parser = size_bytes)]
    pub(crate) memory: u64,

    /// The VM's processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,

    /// Where the kernel and the initramfs are: a directory with `small/` or `debian/` in it, or with the two files
    /// themselves. Looked for beside the program when absent.
    #[arg(long, value_name = "DIR", env = "COFFERDAM_BOOT_DIR")]
    pub(crate) boot_dir: Option<PathBuf>,

    /// The kernel: an uncompressed vmlinux with a PVH entry, or a bzImage.
    #[arg(long, value_name = "FILE", requires = "initramfs")]
    pub(crate) kernel: Option<PathBuf>,

    /// The initramfs with the guest agent as /init.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(crate) initramfs: Option<PathBuf>,

    /// How the VM's processors run: auto takes KVM where it really works.
    #[arg(long, value_enum, default_value_t = Accelerator::Auto, env = "COFFERDAM_ACCEL")]
    pub(crate) accel: Accelerator,

    /// The QEMU program.
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,

    /// Persistent-memory devices for read-only layers; the rest, and by default all, go on SCSI.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=128))]
    pub(crate) vpmem_count: u32,

    /// When something fails, leave the VM running and say how to look at it.
    #[arg(long)]
    pub(crate) keep_on_failure: bool,

    /// Say on standard error how long each phase took.
    #[arg(long)]
    pub(crate) timings: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The bundle: a directory with config.json. Relative paths in it start here. Without one, and without --spec,
    /// the current directory. Several are the containers of one pod: planned for one VM, they share what they have in
    /// common, and all of them fit or none.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) bundle: Vec<PathBuf>,

    /// The spec's file, instead of a bundle, or after the bundles of a pod. Relative paths in it start in its
    /// directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Vec<PathBuf>,

    /// What to print: a table, one JSON object, or the HCS documents in the order they would be sent.
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub(crate) format: PlanFormat,

    /// Where the container lives inside the VM; /run/gcs/c/1 by default. Those of a pod live in /run/gcs/c/1,
    /// /run/gcs/c/2 and so on, in hexadecimal.
    #[arg(long, value_name = "PATH")]
    pub(crate) container_root: Option<String>,

    /// Plan for process isolation: no utility VM. For a single container only.
    #[arg(long)]
    pub(crate) no_vm: bool,

    /// Persistent-memory devices of the VM.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=128))]
    pub(crate) vpmem_count: u32,

    /// Largest file, in bytes, for a persistent-memory device.
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    pub(crate) vpmem_size: u64,

    /// SCSI controllers of the VM, 64 disks each.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) scsi_controllers: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people.
    Table,
    /// For scripts.
    Json,
    /// `ModifySettingRequest` documents of the Host Compute Service.
    Hcs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accelerator {
    /// KVM if the processor and /dev/kvm allow it, emulation otherwise.
    Auto,
    /// KVM, or fail.
    Kvm,
    /// Emulation.
    Tcg,
}

/// A size as docker and QEMU read it: bytes, or K, M, G, T in powers of 1024, with an optional `i` and `B`.
fn size_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` does not start with a whole number"))?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("`{unit}` is no unit; use K, M, G or T")),
    };
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes >= 64 << 20)
        .ok_or_else(|| format!("`{text}` is not between 64M and what 64 bits hold"))
}

/// A container's name, by the rule runc keeps: letters, digits, `_`, `+`, `-` and `.`, not `.` or `..`.
fn container_id(text: &str) -> Result<String, String> {
    let well_formed = !text.is_empty()
        && text.len() <= 128
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err("a container's name has 1 to 128 letters, digits, `_`, `+`, `-` or `.`".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size_bytes("512M"), Ok(512 << 20));
        assert_eq!(size_bytes("2gib"), Ok(2 << 30));
        assert_eq!(size_bytes("134217728"), Ok(128 << 20));
        for bad in ["", "M", "12", "1X", "99999999999T", "-1G"] {
            assert!(size_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        assert!(container_id("web-1.a_b+c").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(container_id(bad).is_err(), "{bad}");
        }
    }
}
