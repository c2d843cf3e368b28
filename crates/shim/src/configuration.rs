//! How VMs are made: from the environment, which a shim has from containerd.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};
use cofferdam_owner::Root;
use cofferdam_qemu::{Accelerator, BootFiles, QemuConfig};

/// The VM's memory where nothing else is said, in MiB.
const MEMORY_MIB: u64 = 512;

/// The records of owners: `COFFERDAM_ROOT`, or this user's.
pub(crate) fn root() -> Root {
    env::var_os("COFFERDAM_ROOT").map_or_else(Root::for_this_user, Root::new)
}

/// A VM as `COFFERDAM_BOOT_DIR`, `COFFERDAM_QEMU`, `COFFERDAM_ACCEL`, `COFFERDAM_MEMORY_MIB` and `COFFERDAM_CPUS` say.
pub(crate) fn machine() -> Result<QemuConfig> {
    let boot_dir = env::var_os("COFFERDAM_BOOT_DIR").map(PathBuf::from);
    let boot = BootFiles::find(boot_dir.as_deref())?;
    let mut config = QemuConfig::new(boot.kernel, boot.initramfs);
    if let Some(program) = env::var_os("COFFERDAM_QEMU") {
        config.program = program;
    }
    config.memory_bytes = number("COFFERDAM_MEMORY_MIB", MEMORY_MIB)? << 20;
    config.cpus = u32::try_from(number("COFFERDAM_CPUS", 1)?).context("COFFERDAM_CPUS")?;
    config.accelerator = match env::var("COFFERDAM_ACCEL").as_deref() {
        Err(_) | Ok("auto") => Accelerator::Auto,
        Ok("kvm") => Accelerator::Kvm,
        Ok("tcg") => Accelerator::Tcg,
        Ok(other) => bail!("COFFERDAM_ACCEL={other}: it is auto, kvm or tcg"),
    };
    Ok(config)
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
