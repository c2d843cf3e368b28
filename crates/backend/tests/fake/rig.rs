//! A booted fake VM, and its guest over the real bridge.

use std::sync::Arc;

use cofferdam_backend::{Backend, BackendError, BoxListener, fake::*, guest_settings};
use cofferdam_bridge::{Bridge, BridgeError, Options};
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{DiskKind, GuestRequest, HostRequest},
};
use cofferdam_protocol::ports;

pub(crate) const DISK: ScsiAddress = ScsiAddress {
    controller: 0,
    lun: 0,
};
pub(crate) const OTHER: ScsiAddress = ScsiAddress {
    controller: 3,
    lun: 63,
};

pub(crate) struct Booted {
    pub(crate) vm: FakeBackend,
    pub(crate) bridge: Arc<Bridge>,
    _port: BoxListener,
}

pub(crate) async fn boot() -> Booted {
    let vm = FakeBackend::new(FakeOptions::default());
    let mut port = vm.listen(ports::BRIDGE).await.expect("the port is free");
    vm.start().await.expect("it starts");
    let stream = port.accept().await.expect("the guest dials");
    let (bridge, negotiated) = Bridge::connect(stream, Options::default())
        .await
        .expect("it speaks version 4");
    assert_eq!(negotiated.runtime_os, "linux");
    Booted {
        vm,
        bridge,
        _port: port,
    }
}

impl Booted {
    pub(crate) async fn host(&self, request: HostRequest) -> Result<(), BackendError> {
        self.vm.perform(&request).await
    }

    pub(crate) async fn guest(&self, request: GuestRequest) -> Result<(), BridgeError> {
        self.bridge.modify(guest_settings(&request)).await
    }

    pub(crate) async fn attach(&self, address: ScsiAddress, path: &str) -> Result<(), BackendError> {
        self.host(HostRequest::AttachScsi {
            address,
            path: path.into(),
            kind: DiskKind::Virtual,
            read_only: false,
        })
        .await
    }

    pub(crate) async fn detach(&self, address: ScsiAddress) -> Result<(), BackendError> {
        self.host(HostRequest::DetachScsi { address }).await
    }

    pub(crate) async fn mount(&self, address: ScsiAddress, path: &str) -> Result<(), BridgeError> {
        self.guest(GuestRequest::MountScsi {
            address,
            guest_path: path.into(),
            read_only: false,
        })
        .await
    }

    pub(crate) async fn unmount(&self, address: ScsiAddress, path: &str) -> Result<(), BridgeError> {
        self.guest(GuestRequest::UnmountScsi {
            address,
            guest_path: path.into(),
            read_only: false,
        })
        .await
    }

    pub(crate) async fn eject(&self, address: ScsiAddress) -> Result<(), BridgeError> {
        self.guest(GuestRequest::EjectScsi { address }).await
    }

    /// The number of violations since the last call.
    pub(crate) fn new_violations(&self, seen: &mut usize) -> usize {
        let all = self.vm.violations().len();
        all - std::mem::replace(seen, all)
    }
}
