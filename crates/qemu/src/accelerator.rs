//! KVM or TCG?
//!
//! `/dev/kvm` alone proves nothing: inside some virtual machines it opens and creates VMs, and then ordinary
//! guests hang. The CPU flags `vmx` or `svm` tell whether the processor can really do it.

use std::{fs::OpenOptions, io};

use crate::config::Accelerator;

/// The accelerator a VM runs with, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Whether it is KVM; else TCG.
    pub kvm: bool,
    /// Why, for a person.
    pub reason: String,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", if self.kvm { "KVM" } else { "TCG" }, self.reason)
    }
}

/// Looks at this host and chooses.
pub fn choose(wanted: Accelerator) -> Choice {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(drop)
    };
    decide(wanted, &cpuinfo, open)
}

/// The decision itself. `open_kvm` is called only where its answer matters.
fn decide(wanted: Accelerator, cpuinfo: &str, open_kvm: impl FnOnce() -> io::Result<()>) -> Choice {
    let choice = |kvm, reason: &str| Choice {
        kvm,
        reason: reason.to_owned(),
    };
    match wanted {
        Accelerator::Kvm => return choice(true, "as asked for"),
        Accelerator::Tcg => return choice(false, "as asked for"),
        Accelerator::Auto => {}
    }
    let flags = cpuinfo
        .lines()
        .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == "flags"))
        .map_or("", |(_, flags)| flags);
    let Some(flag) = flags
        .split_ascii_whitespace()
        .find(|flag| matches!(*flag, "vmx" | "svm"))
    else {
        return choice(false, "the CPU flags hold neither vmx nor svm");
    };
    match open_kvm() {
        Ok(()) => choice(true, &format!("the CPU has {flag}, and /dev/kvm opens")),
        Err(error) => choice(false, &format!("the CPU has {flag}, but /dev/kvm: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "processor\t: 0\nflags\t\t: fpu vme vmx ssse3\n";
    const AMD: &str = "processor\t: 0\nflags\t\t: fpu svm\n";
    const NESTED: &str = "processor\t: 0\nflags\t\t: fpu hypervisor svm_lock xvmx\nvmx flags\t: vnmi\n";

    fn refused() -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn kvm_needs_both_the_flag_and_the_device() {
        assert!(decide(Accelerator::Auto, INTEL, || Ok(())).kvm);
        assert!(decide(Accelerator::Auto, AMD, || Ok(())).kvm);
        let without_flag = decide(Accelerator::Auto, NESTED, || Ok(()));
        assert!(!without_flag.kvm && without_flag.reason.contains("neither vmx nor svm"));
        let without_device = decide(Accelerator::Auto, INTEL, refused);
        assert!(
            !without_device.kvm && without_device.reason.contains("denied"),
            "{without_device}"
        );
    }

    #[test]
    fn a_users_word_decides_over_the_host() {
        assert!(decide(Accelerator::Kvm, "", refused).kvm);
        assert!(!decide(Accelerator::Tcg, INTEL, || Ok(())).kvm);
    }
}
