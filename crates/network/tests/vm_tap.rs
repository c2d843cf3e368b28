//! A real VM in the place of a pod's interface.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod pod;

use std::{path::PathBuf, sync::Arc};

use cofferdam_network::Tap;
use cofferdam_protocol::settings::{ModificationRequest, RequestType, Resource};
use cofferdam_qemu::{Nic, NicLink, QemuBackend, QemuConfig};
use cofferdam_vm::{BootOptions, UtilityVm};
use pod::{NODE, POD, Pod};

fn boot_dir() -> PathBuf {
    let dir = std::env::var_os("COFFERDAM_BOOT_DIR");
    PathBuf::from(dir.expect("COFFERDAM_BOOT_DIR is not set: run `cargo xtask test vm`"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_guest_answers_in_the_pods_name_until_it_is_told_to_stop() {
    let pod = Pod::new();
    let tap = Tap::join(&pod.path(), "eth0").unwrap();
    assert!(!pod.answers(), "nobody answers yet");
    let dir = boot_dir();
    let mut config = QemuConfig::new(dir.join("kernel"), dir.join("initramfs.cpio"));
    let told = tap.description();
    config.network.push(Nic {
        mac: told.mac.0,
        mtu: u16::try_from(told.mtu).ok(),
        link: NicLink::Tap(tap.device()),
    });
    let backend = Arc::new(QemuBackend::new(config).unwrap());
    let vm = UtilityVm::boot(backend, &BootOptions::default()).await.unwrap();
    let change = |request_type| ModificationRequest {
        request_type,
        resource: Resource::Network(told.settings("pod")),
    };
    // Repeating it is harmless.
    for _again in 0..2 {
        vm.bridge().modify(change(RequestType::Add)).await.unwrap();
    }
    assert!(pod.answers_soon(), "the guest");
    let all = pod.node(&format!("busybox ping -c 3 -W 2 -s 1422 {POD}"));
    assert!(all.status.success(), "packets as large as the MTU: {all:?}");
    let sixth = pod.node("ip -6 addr add fd00:99::1/64 dev veth0 nodad");
    assert!(sixth.status.success(), "{sixth:?}");
    let sixth = pod.node("busybox ping -c 5 -W 5 fd00:99::2");
    assert!(sixth.status.success(), "{sixth:?}");
    vm.bridge().modify(change(RequestType::Remove)).await.unwrap();
    assert!(!pod.answers(), "the adapter is down");
    vm.bridge().modify(change(RequestType::Add)).await.unwrap();
    assert!(pod.answers_soon(), "and up again");
    vm.shut_down().await.unwrap();
    assert!(!pod.answers(), "the guest is gone");
    tap.remove().unwrap();
    assert!(pod.answers_soon(), "the pod's own kernel again");
    drop(vm);
    assert!(!pod.inside("ip link show").contains("tapcoff"));
    assert!(
        pod.inside("ip route show")
            .contains(&format!("default via {NODE}"))
    );
}
