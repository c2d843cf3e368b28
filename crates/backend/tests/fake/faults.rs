//! Faults, and the fake VM's end.

use std::time::Duration;

use cofferdam_backend::{Backend, BackendError, fake::*};
use cofferdam_bridge::{Bridge, CloseReason, Options};
use cofferdam_protocol::{HResult, NULL_CONTAINER_ID, json::InString, message::*, ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    containers::create,
    rig::{DISK, OTHER, boot},
};

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
            // In this order, so that the first is the first step.
            biased;
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
        // As the end of the stream, or as a write that found it ended.
        assert!(matches!(
            exited.await,
            Err(CloseReason::Ended | CloseReason::Io(_))
        ));
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
