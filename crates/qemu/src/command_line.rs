//! QEMU's command line: a pure function of the settings.
//!
//! What each choice costs at boot is in docs/decisions/0062-qemu-machine.md.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::{config::QemuConfig, network};

/// What was found out about the host before the command line is made.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// KVM, else TCG.
    pub kvm: bool,
    /// Firmware image; `None` is QEMU's default.
    pub firmware: Option<PathBuf>,
    /// The vhost-user device's socket; `None` leaves vsock out.
    pub vsock_socket: Option<PathBuf>,
}

/// PCI slot of SCSI controller 0; controller N has slot `SCSI_SLOT + N`. The guest takes the N-th virtio-scsi
/// function in ascending PCI address order as controller N.
const SCSI_SLOT: u8 = 0x02;
const VSOCK_SLOT: u8 = 0x10;
const RNG_SLOT: u8 = 0x11;
/// More queues than this bring nothing for a container's disks.
const MAX_SCSI_QUEUES: u32 = 4;
const MIB: u64 = 1 << 20;
/// Translated code QEMU keeps when it emulates, in MiB. It fills up while programs come and go in the VM, by default to
/// an eighth of the host's memory or 1 GiB: more than the VM itself has. Containers start no faster with more than
/// this.
const TRANSLATION_CACHE_MIB: u32 = 128;

/// Our part of the kernel's command line.
///
/// `scsi_mod.scan=manual`: without it the kernel asks each of 4 × 255 targets at boot whether it is there,
/// 0.2 s; disks announced by hot-plug events are added all the same. `panic=-1`: reboot at once, which ends QEMU.
/// `dummy.numdummies=0`: a kernel with that driver built in makes an interface of it that nobody asked for.
pub const KERNEL_ARGS: &str = "console=ttyS0 quiet panic=-1 scsi_mod.scan=manual dummy.numdummies=0";

/// The name of SCSI controller `index` for `device_add`.
pub(crate) fn controller_id(index: u8) -> String {
    format!("scsi{index}")
}

/// The arguments after the program's name. QMP speaks over file descriptor 0, the console goes to standard output.
pub fn command_line(config: &QemuConfig, resolved: &Resolved) -> Vec<OsString> {
    let memory_mib = config.memory_bytes.div_ceil(MIB).max(1);
    let mut line = Line(Vec::new());
    line.flag("-nodefaults")
        .flag("-no-user-config")
        .flag("-no-reboot");
    line.option("-display", "none");
    line.option("-name", "cofferdam,debug-threads=on");
    let nvdimm = if config.limits.vpmem_devices > 0 {
        ",nvdimm=on"
    } else {
        ""
    };
    line.option(
        "-machine",
        format!(
            "q35,memory-backend=ram,hpet=off,smbus=off,sata=off,usb=off,i8042=off,vmport=off,graphics=off,\
             dump-guest-core=off{nvdimm}"
        ),
    );
    if resolved.kvm {
        line.option("-accel", "kvm").option("-cpu", "host");
    } else {
        let accelerator = format!("tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}");
        line.option("-accel", accelerator).option("-cpu", "max");
    }
    line.option("-smp", config.cpus.max(1).to_string());
    line.option("-m", memory_size(config, memory_mib));
    line.option(
        "-object",
        format!("memory-backend-memfd,id=ram,size={memory_mib}M,share=on"),
    );
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    line.option("-chardev", "socket,id=qmp,fd=0")
        .option("-mon", "chardev=qmp,mode=control");
    line.option("-chardev", "file,id=console,path=/dev/stdout")
        .option("-serial", "chardev:console");
    if let Some(firmware) = &resolved.firmware {
        line.flag("-bios").flag(firmware);
    }
    if let Some(kernel) = &config.kernel {
        line.flag("-kernel").flag(kernel);
        let mut arguments = KERNEL_ARGS.to_owned();
        for argument in &config.kernel_args {
            arguments.push(' ');
            arguments.push_str(argument);
        }
        line.option("-append", arguments);
    } else {
        line.flag("-S");
    }
    if let Some(initramfs) = &config.initramfs {
        line.flag("-initrd").flag(initramfs);
    }
    let queues = config.cpus.clamp(1, MAX_SCSI_QUEUES);
    for index in 0..config.limits.scsi_controllers {
        line.option(
            "-device",
            format!(
                "virtio-scsi-pci,id={},bus=pcie.0,addr={:#04x},disable-legacy=on,num_queues={queues}",
                controller_id(index),
                SCSI_SLOT + index
            ),
        );
    }
    if let Some(socket) = &resolved.vsock_socket {
        let mut chardev = OsString::from("socket,id=vsock,path=");
        chardev.push(escaped(socket));
        line.flag("-chardev").flag(chardev);
        line.option(
            "-device",
            format!("vhost-user-vsock-pci,id=vsock,chardev=vsock,bus=pcie.0,addr={VSOCK_SLOT:#04x}"),
        );
    }
    line.option(
        "-device",
        format!("virtio-rng-pci,id=rng,bus=pcie.0,addr={RNG_SLOT:#04x},disable-legacy=on"),
    );
    for (index, nic) in config.network.iter().enumerate() {
        for (name, value) in network::options(index, nic) {
            line.option(name, value);
        }
    }
    line.0
}

/// With persistent memory: room for every device at its largest, beside the ordinary memory.
fn memory_size(config: &QemuConfig, memory_mib: u64) -> String {
    let devices = u64::from(config.limits.vpmem_devices);
    if devices == 0 {
        return format!("{memory_mib}M");
    }
    let pmem_mib = config
        .limits
        .vpmem_max_bytes
        .div_ceil(MIB)
        .saturating_mul(devices);
    format!(
        "{memory_mib}M,slots={devices},maxmem={}M",
        memory_mib.saturating_add(pmem_mib)
    )
}

/// A value inside a comma-separated option: QEMU takes two commas for one.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: impl Into<OsString>) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
        self.flag(name).flag(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved() -> Resolved {
        Resolved {
            kvm: false,
            firmware: None,
            vsock_socket: Some("/run/c/vsock".into()),
        }
    }

    fn joined(config: &QemuConfig, resolved: &Resolved) -> String {
        let arguments = command_line(config, resolved);
        let lossy: Vec<_> = arguments
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect();
        lossy
            .join("\n")
            .replace("\n-", " \n-")
            .replace('\n', " ")
            .replace("  -", "\n-")
    }

    #[test]
    fn default_machine_is_the_golden_one() {
        let config = QemuConfig::new("/k/vmlinux", "/k/initramfs");
        assert_eq!(
            joined(&config, &resolved()),
            "-nodefaults
-no-user-config
-no-reboot
-display none
-name cofferdam,debug-threads=on
-machine q35,memory-backend=ram,hpet=off,smbus=off,sata=off,usb=off,i8042=off,vmport=off,graphics=off,\
dump-guest-core=off
-accel tcg,thread=multi,tb-size=128
-cpu max
-smp 1
-m 512M
-object memory-backend-memfd,id=ram,size=512M,share=on
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-chardev socket,id=qmp,fd=0
-mon chardev=qmp,mode=control
-chardev file,id=console,path=/dev/stdout
-serial chardev:console
-kernel /k/vmlinux
-append console=ttyS0 quiet panic=-1 scsi_mod.scan=manual dummy.numdummies=0
-initrd /k/initramfs
-device virtio-scsi-pci,id=scsi0,bus=pcie.0,addr=0x02,disable-legacy=on,num_queues=1
-device virtio-scsi-pci,id=scsi1,bus=pcie.0,addr=0x03,disable-legacy=on,num_queues=1
-device virtio-scsi-pci,id=scsi2,bus=pcie.0,addr=0x04,disable-legacy=on,num_queues=1
-device virtio-scsi-pci,id=scsi3,bus=pcie.0,addr=0x05,disable-legacy=on,num_queues=1
-chardev socket,id=vsock,path=/run/c/vsock
-device vhost-user-vsock-pci,id=vsock,chardev=vsock,bus=pcie.0,addr=0x10
-device virtio-rng-pci,id=rng,bus=pcie.0,addr=0x11,disable-legacy=on"
        );
    }

    #[test]
    fn kvm_uses_the_hosts_processor() {
        let line = joined(
            &QemuConfig::default(),
            &Resolved {
                kvm: true,
                ..resolved()
            },
        );
        assert!(line.contains("-accel kvm\n-cpu host\n"), "{line}");
    }

    #[test]
    fn persistent_memory_reserves_room_for_every_device() {
        let mut config = QemuConfig::default();
        config.limits.vpmem_devices = 64;
        let line = joined(&config, &resolved());
        assert!(
            line.contains(",nvdimm=on\n") && line.contains("-m 512M,slots=64,maxmem=262656M\n"),
            "{line}"
        );
    }

    #[test]
    fn comma_in_a_path_is_no_new_option() {
        let line = joined(
            &QemuConfig::default(),
            &Resolved {
                vsock_socket: Some("/run/a,server=on".into()),
                ..resolved()
            },
        );
        assert!(line.contains("path=/run/a,,server=on\n"), "{line}");
    }
}
