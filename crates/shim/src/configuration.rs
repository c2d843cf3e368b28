//! How VMs are made: from the environment, which a shim has from containerd.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};
use cofferdam_owner::Root;
use cofferdam_pod::PodLimits;
use cofferdam_qemu::{Accelerator, BootFiles, QemuConfig};

use crate::sizing::{self, Size};

/// The VM's memory where nothing else is said, and what it has at least, in MiB.
const MEMORY_MIB: u64 = 512;

/// The records of owners: `COFFERDAM_ROOT`, or this user's.
pub(crate) fn root() -> Root {
    env::var_os("COFFERDAM_ROOT").map_or_else(Root::for_this_user, Root::new)
}

/// A VM as `COFFERDAM_BOOT_DIR`, `COFFERDAM_QEMU` and `COFFERDAM_ACCEL` say, with room for what its containers may use:
/// `COFFERDAM_MEMORY_MIB` and `COFFERDAM_CPUS` at least, and for them at most `COFFERDAM_MAX_MEMORY_MIB` and the host's
/// processors.
pub(crate) fn machine(limits: &PodLimits) -> Result<QemuConfig> {
    let boot_dir = env::var_os("COFFERDAM_BOOT_DIR").map(PathBuf::from);
    let boot = BootFiles::find(boot_dir.as_deref())?;
    let mut config = QemuConfig::new(boot.kernel, boot.initramfs);
    if let Some(program) = env::var_os("COFFERDAM_QEMU") {
        config.program = program;
    }
    let least = Size {
        memory_bytes: number("COFFERDAM_MEMORY_MIB", MEMORY_MIB)? << 20,
        cpus: u32::try_from(number("COFFERDAM_CPUS", 1)?).context("COFFERDAM_CPUS")?,
    };
    let size = sizing::size(limits, least, most()?);
    tracing::info!(
        memory_mib = size.memory_bytes >> 20,
        cpus = size.cpus,
        ?limits,
        "the VM's size"
    );
    config.memory_bytes = size.memory_bytes;
    config.cpus = size.cpus;
    config.accelerator = match env::var("COFFERDAM_ACCEL").as_deref() {
        Err(_) | Ok("auto") => Accelerator::Auto,
        Ok("kvm") => Accelerator::Kvm,
        Ok("tcg") => Accelerator::Tcg,
        Ok(other) => bail!("COFFERDAM_ACCEL={other}: it is auto, kvm or tcg"),
    };
    Ok(config)
}

/// What no pod's limits make a VM exceed.
fn most() -> Result<Size> {
    let of_host = rustix::system::sysinfo();
    let bytes = of_host
        .totalram
        .saturating_mul(u64::from(of_host.mem_unit.max(1)));
    let cpus = std::thread::available_parallelism().context("counting the host's processors")?;
    Ok(Size {
        memory_bytes: number("COFFERDAM_MAX_MEMORY_MIB", (bytes >> 20).max(1))? << 20,
        cpus: u32::try_from(cpus.get()).unwrap_or(u32::MAX),
    })
}

fn number(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => match text.parse() {
            Ok(number @ 1..=1_048_576) => Ok(number),
            _ => bail!("{name}={text}: it is a number from 1 to 1048576"),
        },
    }
}
