//! The fake VM's refusals, its guest over the real bridge, and its faults.

use std::{path::PathBuf, sync::Arc, time::Duration};

use cofferdam_backend::{Backend, BackendError, BoxListener, fake::*, guest_settings};
use cofferdam_bridge::{Bridge, BridgeError, CloseReason, Options};
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{DiskKind, GuestRequest, HostRequest, ShareId},
};
use cofferdam_protocol::{HResult, NULL_CONTAINER_ID, json::InString, message::*, ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DISK: ScsiAddress = ScsiAddress {
    controller: 0,
    lun: 0,
};
const OTHER: ScsiAddress = ScsiAddress {
    controller: 3,
    lun: 63,
};

struct Booted {
    vm: FakeBackend,
    bridge: Arc<Bridge>,
    _port: BoxListener,
}

async fn boot() -> Booted {
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
    async fn host(&self, request: HostRequest) -> Result<(), BackendError> {
        self.vm.perform(&request).await
    }

    async fn guest(&self, request: GuestRequest) -> Result<(), BridgeError> {
        self.bridge.modify(guest_settings(&request)).await
    }

    async fn attach(&self, address: ScsiAddress, path: &str) -> Result<(), BackendError> {
        self.host(HostRequest::AttachScsi {
            address,
            path: path.into(),
            kind: DiskKind::Virtual,
            read_only: false,
        })
        .await
    }

    async fn detach(&self, address: ScsiAddress) -> Result<(), BackendError> {
        self.host(HostRequest::DetachScsi { address }).await
    }

    async fn mount(&self, address: ScsiAddress, path: &str) -> Result<(), BridgeError> {
        self.guest(GuestRequest::MountScsi {
            address,
            guest_path: path.into(),
            read_only: false,
        })
        .await
    }

    async fn unmount(&self, address: ScsiAddress, path: &str) -> Result<(), BridgeError> {
        self.guest(GuestRequest::UnmountScsi {
            address,
            guest_path: path.into(),
            read_only: false,
        })
        .await
    }

    async fn eject(&self, address: ScsiAddress) -> Result<(), BridgeError> {
        self.guest(GuestRequest::EjectScsi { address }).await
    }

    /// The number of violations since the last call.
    fn new_violations(&self, seen: &mut usize) -> usize {
        let all = self.vm.violations().len();
        all - std::mem::replace(seen, all)
    }
}

#[tokio::test]
async fn a_disk_lives_through_attach_mount_unmount_eject_detach() {
    let b = boot().await;
    b.attach(DISK, "/a").await.unwrap();
    b.mount(DISK, "/m").await.unwrap();
    assert_eq!(b.vm.guest_mounts()["/m"].source, MountSource::Scsi(DISK));
    assert_eq!(b.vm.devices().await.unwrap().scsi.len(), 1);
    b.unmount(DISK, "/m").await.unwrap();
    b.eject(DISK).await.unwrap();
    b.detach(DISK).await.unwrap();
    // Every removal is harmless when repeated.
    b.unmount(DISK, "/m").await.unwrap();
    b.eject(DISK).await.unwrap();
    b.detach(DISK).await.unwrap();
    assert!(b.vm.guest_mounts().is_empty() && b.vm.host_devices().is_empty());
    assert_eq!((b.vm.attach_count(), b.vm.detach_count()), (1, 1));
    assert_eq!(b.vm.violations(), [""; 0]);
    assert!(b.vm.steps().iter().all(|step| step.outcome == Outcome::Done));
}

#[tokio::test]
async fn the_host_refuses_what_a_hypervisor_would_and_notes_it() {
    let b = boot().await;
    let mut seen = 0;
    b.attach(DISK, "/a").await.unwrap();
    b.attach(DISK, "/b").await.unwrap_err();
    b.attach(
        ScsiAddress {
            controller: 4,
            lun: 0,
        },
        "/b",
    )
    .await
    .unwrap_err();
    b.attach(
        ScsiAddress {
            controller: 0,
            lun: 64,
        },
        "/b",
    )
    .await
    .unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 3);
    // A locked image is bad luck, not a broken rule.
    b.attach(OTHER, "/a").await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 0);

    b.mount(DISK, "/m").await.unwrap();
    b.detach(DISK).await.unwrap_err();
    b.unmount(DISK, "/m").await.unwrap();
    b.detach(DISK).await.unwrap_err();
    assert_eq!(
        b.new_violations(&mut seen),
        2,
        "mounted, then unmounted but not ejected"
    );

    let share = |share| HostRequest::AddShare {
        share: ShareId(share),
        path: "/s".into(),
        read_only: true,
        allowed_names: None,
    };
    b.host(share(1)).await.unwrap();
    b.host(HostRequest::RemoveShare { share: ShareId(1) })
        .await
        .unwrap();
    b.host(share(1)).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 1, "a share's name never comes back");

    let vpmem = |index| HostRequest::AttachVpmem {
        index,
        path: "/v".into(),
    };
    b.host(vpmem(0)).await.unwrap();
    b.host(vpmem(0)).await.unwrap_err();
    b.host(vpmem(64)).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 2);
}

#[tokio::test]
async fn the_guest_refuses_what_a_kernel_would_and_notes_it() {
    let b = boot().await;
    let mut seen = 0;
    b.mount(DISK, "/m").await.unwrap_err();
    assert_eq!(
        b.new_violations(&mut seen),
        0,
        "an absent disk may be a fault's doing"
    );
    b.attach(DISK, "/a").await.unwrap();
    b.attach(OTHER, "/b").await.unwrap();
    b.mount(DISK, "/m").await.unwrap();
    b.mount(OTHER, "/m").await.unwrap_err();
    b.unmount(OTHER, "/m").await.unwrap_err();
    b.eject(DISK).await.unwrap_err();
    b.mount(OTHER, "relative").await.unwrap_err();
    b.mount(OTHER, "/a/../b").await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 5);
    // One disk in two places is fine, and then ejected only when both are gone.
    b.mount(DISK, "/n").await.unwrap();
    b.unmount(DISK, "/m").await.unwrap();
    b.eject(DISK).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 1);
    b.unmount(DISK, "/n").await.unwrap();
    b.eject(DISK).await.unwrap();
    b.mount(DISK, "/m").await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 0, "an ejected disk is not there");
}

#[tokio::test]
async fn an_overlay_needs_its_layers_and_keeps_them() {
    let b = boot().await;
    let mut seen = 0;
    let combine = || GuestRequest::CombineLayers {
        root: "/r/rootfs".into(),
        layers: vec!["/l".into()],
        scratch: "/r/scratch".into(),
    };
    b.host(HostRequest::AttachVpmem {
        index: 0,
        path: "/v".into(),
    })
    .await
    .unwrap();
    b.attach(DISK, "/a").await.unwrap();
    b.mount(DISK, "/r/scratch").await.unwrap();
    b.guest(combine()).await.unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 1, "the layer is missing");
    b.guest(GuestRequest::MountVpmem {
        index: 0,
        guest_path: "/l".into(),
    })
    .await
    .unwrap();
    b.guest(combine()).await.unwrap();
    b.unmount(DISK, "/r/scratch").await.unwrap_err();
    b.guest(GuestRequest::UnmountVpmem {
        index: 0,
        guest_path: "/l".into(),
    })
    .await
    .unwrap_err();
    assert_eq!(b.new_violations(&mut seen), 2, "the overlay is above both");
    b.guest(GuestRequest::RemoveCombinedLayers {
        root: "/r/rootfs".into(),
    })
    .await
    .unwrap();
    b.unmount(DISK, "/r/scratch").await.unwrap();
    b.guest(GuestRequest::UnmountVpmem {
        index: 0,
        guest_path: "/l".into(),
    })
    .await
    .unwrap();
    assert_eq!(b.new_violations(&mut seen), 0);
}

#[tokio::test]
async fn a_file_is_really_deleted_once_it_is_unplugged_even_without_a_vm() {
    let b = boot().await;
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("disk.vhdx");
    std::fs::write(&path, b"x").unwrap();
    b.attach(DISK, path.to_str().unwrap()).await.unwrap();
    b.host(HostRequest::DeleteFile { path: path.clone() })
        .await
        .unwrap_err();
    assert!(path.exists());
    b.vm.kill_vm();
    assert!(matches!(b.detach(DISK).await, Err(BackendError::Gone(_))));
    b.host(HostRequest::DeleteFile { path: path.clone() })
        .await
        .unwrap();
    assert!(!path.exists());
    b.host(HostRequest::DeleteFile { path }).await.unwrap();
}

#[tokio::test]
async fn a_container_runs_with_its_streams_and_is_notified_after_they_are_drained() {
    let b = boot().await;
    let program = FakeProgram::exits(7)
        .stdout("out\n")
        .stderr("err\n")
        .echoes_stdin();
    b.vm.set_program(ProgramFor::Init("c".into()), program);
    let exited = b.bridge.container_exited("c");
    create(&b, "c").await.unwrap();
    assert_eq!(
        create(&b, "c").await.unwrap_err().result(),
        Some(HResult::CONTAINER_EXISTS)
    );
    b.bridge.start("c").await.unwrap();

    let mut listeners = Vec::new();
    for port in 1..=3 {
        listeners.push(b.vm.listen(ports::BRIDGE + port).await.unwrap());
    }
    let stdio = VsockStdioRelaySettings {
        std_in: Some(ports::BRIDGE + 1),
        std_out: Some(ports::BRIDGE + 2),
        std_err: Some(ports::BRIDGE + 3),
    };
    let parameters = ProcessParameters {
        create_std_in_pipe: true,
        create_std_out_pipe: true,
        create_std_err_pipe: true,
        ..Default::default()
    };
    let pid = b.bridge.execute_process("c", parameters, stdio).await.unwrap();
    let mut streams = Vec::new();
    for listener in &mut listeners {
        streams.push(listener.accept().await.unwrap());
    }
    drop(listeners);
    let [stdin, stdout, stderr] = &mut streams[..] else {
        panic!("three streams")
    };
    let properties = b
        .bridge
        .get_properties("c", &[PropertyType::ProcessList])
        .await
        .unwrap();
    assert_eq!(properties.process_list, [ProcessDetails { process_id: pid }]);
    stdin.write_all(b"echo\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    let (mut output, mut errors) = (String::new(), String::new());
    stdout.read_to_string(&mut output).await.unwrap();
    stderr.read_to_string(&mut errors).await.unwrap();
    assert_eq!((output.as_str(), errors.as_str()), ("out\necho\n", "err\n"));
    assert_eq!(b.bridge.wait_for_process("c", pid).await.unwrap(), 7);

    // The host has not closed its ends: the notification is held back.
    let mut exited = std::pin::pin!(exited);
    let early = tokio::time::timeout(Duration::from_millis(20), exited.as_mut()).await;
    assert!(early.is_err(), "notified before the streams were closed");
    drop(streams);
    assert_eq!(exited.await.unwrap().container_id, "c");
    assert!(!b.bridge.signal_process("c", pid, None).await.unwrap());
    b.bridge.delete_container_state("c").await.unwrap();
    assert!(b.vm.guest_containers().is_empty());
    assert_eq!(b.vm.violations(), [""; 0]);
}

async fn create(b: &Booted, id: &str) -> Result<(), BridgeError> {
    let config = ContainerConfig {
        schema_version: Some(SchemaVersion::V2_1),
        ..Default::default()
    };
    b.bridge.create(id, config).await
}

#[tokio::test]
async fn signals_and_shutdowns_end_a_container_as_the_protocol_says() {
    let b = boot().await;
    b.vm.set_program(ProgramFor::Anything, FakeProgram::runs().ignores_term());
    for (id, end) in [
        ("killed", NotificationType::ForcedExit),
        ("signalled", NotificationType::UnexpectedExit),
    ] {
        let exited = b.bridge.container_exited(id);
        create(&b, id).await.unwrap();
        let pid = b
            .bridge
            .execute_process(id, Default::default(), Default::default())
            .await
            .unwrap();
        assert_eq!(
            b.bridge.delete_container_state(id).await.unwrap_err().result(),
            Some(HResult::INVALID_STATE)
        );
        if id == "killed" {
            b.bridge.shutdown_graceful(id).await.unwrap();
            b.bridge.shutdown_forced(id).await.unwrap();
            assert_eq!(b.bridge.wait_for_process(id, pid).await.unwrap(), 137);
        } else {
            b.bridge.signal_process(id, pid, Some(28)).await.unwrap();
            b.bridge.signal_process(id, pid, Some(2)).await.unwrap();
            assert_eq!(b.bridge.wait_for_process(id, pid).await.unwrap(), 130);
        }
        assert_eq!(exited.await.unwrap().r#type, end);
        b.bridge.shutdown_forced(id).await.unwrap();
    }
    // One that was created and never ran is notified too.
    let exited = b.bridge.container_exited("unborn");
    create(&b, "unborn").await.unwrap();
    b.bridge.shutdown_forced("unborn").await.unwrap();
    assert_eq!(exited.await.unwrap().r#type, NotificationType::ForcedExit);
}

#[tokio::test]
async fn a_container_needs_its_root_and_keeps_it_while_it_runs() {
    let b = boot().await;
    b.vm.set_program(ProgramFor::Command("sleep".into()), FakeProgram::runs());
    let config = || ContainerConfig {
        schema_version: Some(SchemaVersion::V2_1),
        oci_bundle_path: "/run/gcs/c/1".into(),
        oci_specification: Some(serde_json::json!({
            "root": {"path": "/run/gcs/c/1/rootfs"},
            "process": {"args": ["sleep", "1"]},
        })),
        ..Default::default()
    };
    b.bridge.create("c", config()).await.unwrap_err();
    assert_eq!(b.vm.violations().len(), 1);
    b.attach(DISK, "/a").await.unwrap();
    b.mount(DISK, "/run/gcs/c/1/rootfs").await.unwrap();
    b.bridge.create("c", config()).await.unwrap();
    let pid = b
        .bridge
        .execute_process("c", Default::default(), Default::default())
        .await
        .unwrap();
    b.unmount(DISK, "/run/gcs/c/1/rootfs").await.unwrap_err();
    assert_eq!(b.vm.violations().len(), 2, "unmounted below a running container");
    b.bridge.signal_process("c", pid, None).await.unwrap();
    b.bridge.wait_for_process("c", pid).await.unwrap();
    tokio::task::yield_now().await;
    b.bridge.delete_container_state("c").await.unwrap_err();
    assert_eq!(b.vm.violations().len(), 3, "deleted before its mounts");
    b.unmount(DISK, "/run/gcs/c/1/rootfs").await.unwrap();
    b.bridge.delete_container_state("c").await.unwrap();
}

#[tokio::test]
async fn a_stream_nobody_listens_for_fails_the_start() {
    let b = boot().await;
    create(&b, "c").await.unwrap();
    let stdio = VsockStdioRelaySettings {
        std_out: Some(77),
        ..Default::default()
    };
    let parameters = ProcessParameters {
        create_std_out_pipe: true,
        ..Default::default()
    };
    let error = b
        .bridge
        .execute_process("c", parameters, stdio)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("port 77"), "{error}");
    // It can be tried again.
    b.bridge
        .execute_process("c", Default::default(), Default::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn faults_strike_by_kind_and_count() {
    let b = boot().await;
    let faults = b.vm.faults();
    faults.fail(FaultPoint::Host(HostStep::AttachScsi), 2, "no more disks");
    faults.fail(FaultPoint::Guest(GuestStep::MountScsi), 1, "bad superblock");
    faults.inject(
        FaultPoint::AnyHost,
        3,
        Fault::FailAfter("the answer was lost".into()),
    );
    b.attach(DISK, "/a").await.unwrap();
    let error = b.attach(OTHER, "/b").await.unwrap_err().to_string();
    assert_eq!(error, "attaching /b at SCSI 3:63: no more disks");
    let error = b.mount(DISK, "/m").await.unwrap_err();
    assert!(error.to_string().contains("bad superblock"), "{error}");
    assert!(b.vm.guest_mounts().is_empty());
    b.attach(OTHER, "/b").await.unwrap_err();
    assert_eq!(
        b.vm.host_devices().scsi.len(),
        2,
        "done, though reported as failed"
    );
    assert_eq!(faults.pending(), 0);
    b.mount(DISK, "/m").await.unwrap();

    faults.inject_always(FaultPoint::AnyGuest, Fault::Fail("always".into()));
    for _ in 0..3 {
        b.unmount(DISK, "/m").await.unwrap_err();
    }
    faults.clear();
    b.unmount(DISK, "/m").await.unwrap();
    assert_eq!(b.vm.violations(), [""; 0]);
}

#[tokio::test]
async fn a_step_that_hangs_goes_on_when_released_and_is_abandoned_when_dropped() {
    let b = boot().await;
    b.vm.faults().hang(FaultPoint::Host(HostStep::AttachScsi), 1);
    b.vm.faults().hang(FaultPoint::Host(HostStep::AttachScsi), 1);
    {
        let mut first = Box::pin(b.attach(DISK, "/a"));
        let mut second = Box::pin(b.attach(OTHER, "/b"));
        tokio::select! {
            _ = &mut first => panic!("it should hang"),
            _ = &mut second => panic!("it should hang"),
            () = b.vm.faults().hanging(2) => {}
        }
        drop(second);
        b.vm.faults().release();
        first.await.unwrap();
    }
    assert_eq!(b.vm.host_devices().scsi.into_iter().collect::<Vec<_>>(), [DISK]);
    let outcomes: Vec<_> =
        b.vm.steps()
            .into_iter()
            .rev()
            .take(2)
            .map(|step| step.outcome)
            .collect();
    assert_eq!(outcomes, [Outcome::Abandoned, Outcome::Done]);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_step_takes_its_time() {
    let b = boot().await;
    b.vm.faults()
        .delay(FaultPoint::Guest(GuestStep::Create), 1, Duration::from_secs(60));
    let start = tokio::time::Instant::now();
    create(&b, "c").await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test]
async fn a_vm_that_dies_at_a_step_takes_everything_with_it() {
    for point in [
        FaultPoint::Host(HostStep::AttachScsi),
        FaultPoint::Guest(GuestStep::MountScsi),
    ] {
        let b = boot().await;
        let exited = b.bridge.container_exited("c");
        b.vm.faults().die(point, 1);
        let attached = b.attach(DISK, "/a").await;
        if point == FaultPoint::Host(HostStep::AttachScsi) {
            assert!(matches!(attached, Err(BackendError::Gone(_))));
        } else {
            attached.unwrap();
        }
        assert!(b.mount(DISK, "/m").await.unwrap_err().is_closed());
        assert!(matches!(exited.await, Err(CloseReason::Ended)));
        let exit = b.vm.exited().await;
        assert!(!exit.expected);
        assert_eq!(b.vm.stop().await.unwrap(), exit, "stopping a dead VM is harmless");
        assert!(b.vm.host_devices().is_empty() && b.vm.guest_mounts().is_empty());
        assert!(matches!(b.vm.devices().await, Err(BackendError::Gone(_))));
    }
}

#[tokio::test]
async fn powering_off_ends_the_vm_as_asked() {
    let b = boot().await;
    b.bridge.shutdown_graceful(NULL_CONTAINER_ID).await.unwrap();
    assert!(b.vm.exited().await.expected);
}

#[tokio::test]
async fn the_guest_boots_through_entropy_and_log_and_comes_back_after_a_lost_bridge() {
    let vm = FakeBackend::new(FakeOptions::default());
    let mut entropy = vm.listen(ports::ENTROPY).await.unwrap();
    let mut log = vm.listen(ports::LOG).await.unwrap();
    let mut port = vm.listen(ports::BRIDGE).await.unwrap();
    assert!(
        matches!(vm.listen(ports::BRIDGE).await, Err(BackendError::Io { .. })),
        "one listener a port"
    );
    vm.start().await.unwrap();
    let mut stream = entropy.accept().await.unwrap();
    stream.write_all(&[7; 512]).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(20), port.accept()).await;
    assert!(early.is_err(), "the guest waits for the end of the entropy");
    drop(stream);
    let mut lines = log.accept().await.unwrap();
    drop(port.accept().await.unwrap());
    let stream = port.accept().await.unwrap();
    Bridge::connect(stream, Options::default()).await.unwrap();
    vm.guest_logs("panic\n");
    vm.stop().await.unwrap();
    let mut text = String::new();
    lines.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("{\"time\""), "{text}");
    port.accept().await.map(drop).unwrap_err();
}

#[tokio::test]
async fn an_old_schema_and_a_broken_body_have_their_codes() {
    let b = boot().await;
    let error = b
        .bridge
        .create("c", ContainerConfig::default())
        .await
        .unwrap_err();
    assert_eq!(error.result(), Some(HResult::INVALID_JSON));
    let config = InString(ContainerConfig {
        schema_version: Some(SchemaVersion::V2_1),
        ..Default::default()
    });
    b.bridge.create("c", config.0).await.unwrap();
    let stacks = b.bridge.dump_stacks().await.unwrap();
    assert!(!stacks.is_empty());
}
