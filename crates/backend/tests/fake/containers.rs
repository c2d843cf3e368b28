//! Containers of the fake's guest: streams, signals, roots, notifications.

use std::time::Duration;

use cofferdam_backend::{Backend, fake::*};
use cofferdam_bridge::BridgeError;
use cofferdam_protocol::{HResult, message::*, ports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{Booted, DISK, boot};

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

pub(crate) async fn create(b: &Booted, id: &str) -> Result<(), BridgeError> {
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
