//! Each call against a scripted guest: what goes over the wire, and what comes of each answer.

mod peer;

use std::time::Duration;

use cofferdam_bridge::{Bridge, BridgeError, Options};
use cofferdam_protocol::{HResult, NULL_CONTAINER_ID, message::*, settings::*};
use peer::{connected, connected_with, ends, linux};
use serde_json::json;

#[tokio::test]
async fn connecting_negotiates_version_4_and_keeps_the_capabilities() {
    let (host, mut peer) = ends(4096);
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, request) = peer.expect::<NegotiateProtocol>().await;
        assert_eq!(
            (request.payload.minimum_version, request.payload.maximum_version),
            (4, 4)
        );
        peer.succeed::<NegotiateProtocol>(id, linux(true)).await;
    });
    let (bridge, negotiated) = connected.unwrap();
    assert_eq!((negotiated.version, negotiated.runtime_os.as_str()), (4, "linux"));
    assert!(
        bridge
            .capabilities()
            .guest_defined_capabilities
            .dump_stacks_supported
    );
}

#[tokio::test]
async fn a_guest_of_another_version_is_refused() {
    let (host, mut peer) = ends(4096);
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, _) = peer.expect::<NegotiateProtocol>().await;
        peer.succeed::<NegotiateProtocol>(
            id,
            NegotiateProtocolReply {
                version: 3,
                ..linux(true)
            },
        )
        .await;
    });
    assert!(matches!(
        connected.unwrap_err(),
        BridgeError::WrongVersion { version: 3, .. }
    ));

    let (host, mut peer) = ends(4096);
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, _) = peer.expect::<NegotiateProtocol>().await;
        peer.fail::<NegotiateProtocol>(id, HResult::UNSUPPORTED_PROTOCOL_VERSION, "too old")
            .await;
    });
    assert_eq!(
        connected.unwrap_err().result(),
        Some(HResult::UNSUPPORTED_PROTOCOL_VERSION)
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_guest_fails_the_connection_after_the_limit() {
    let (host, _peer) = ends(4096);
    let error = Bridge::connect(host, Options::default()).await.unwrap_err();
    assert!(matches!(error, BridgeError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn a_guest_that_asks_for_it_gets_create_and_start_for_the_vm() {
    let (host, mut peer) = ends(4096);
    let mut reply = linux(true);
    reply.capabilities.send_host_create_message = true;
    reply.capabilities.send_host_start_message = true;
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, _) = peer.expect::<NegotiateProtocol>().await;
        peer.succeed::<NegotiateProtocol>(id, reply).await;
        let (id, request) = peer.expect::<Create>().await;
        assert_eq!(request.base.container_id, NULL_CONTAINER_ID);
        assert_eq!(request.payload.container_config.0.system_type, "Container");
        peer.succeed::<Create>(id, Empty {}).await;
        let (id, request) = peer.expect::<Start>().await;
        assert_eq!(request.base.container_id, NULL_CONTAINER_ID);
        peer.succeed::<Start>(id, Empty {}).await;
    });
    connected.unwrap();
}

#[tokio::test]
async fn a_container_lives_through_the_calls_and_its_exit_is_noticed() {
    let (bridge, mut peer) = connected().await;
    let host = async {
        let exited = bridge.container_exited("c1");
        let config = ContainerConfig {
            oci_bundle_path: "/b".into(),
            ..Default::default()
        };
        bridge.create("c1", config).await.unwrap();
        bridge.start("c1").await.unwrap();
        let stdio = VsockStdioRelaySettings {
            std_out: Some(0x4000_0001),
            ..Default::default()
        };
        let parameters = ProcessParameters {
            create_std_out_pipe: true,
            ..Default::default()
        };
        let pid = bridge.execute_process("c1", parameters, stdio).await.unwrap();
        bridge.resize_console("c1", pid, 24, 80).await.unwrap();
        assert!(bridge.signal_process("c1", pid, Some(15)).await.unwrap());
        let properties = bridge
            .get_properties("c1", &[PropertyType::ProcessList])
            .await
            .unwrap();
        assert_eq!(properties.process_list, [ProcessDetails { process_id: 41 }]);
        let exit_code = bridge.wait_for_process("c1", pid).await.unwrap();
        let notification = exited.await.unwrap();
        bridge.delete_container_state("c1").await.unwrap();
        (pid, exit_code, notification.container_id)
    };
    let guest = async {
        let (id, request) = peer.expect::<Create>().await;
        assert_eq!(request.payload.container_config.0.oci_bundle_path, "/b");
        peer.succeed::<Create>(id, Empty {}).await;
        let (id, _) = peer.expect::<Start>().await;
        peer.succeed::<Start>(id, Empty {}).await;
        let (id, request) = peer.expect::<ExecuteProcess>().await;
        assert_eq!(request.base.container_id, "c1");
        assert!(request.payload.settings.process_parameters.0.create_std_out_pipe);
        assert_eq!(
            request.payload.settings.vsock_stdio_relay_settings.std_out,
            Some(0x4000_0001)
        );
        peer.succeed::<ExecuteProcess>(id, ExecuteProcessReply { process_id: 41 })
            .await;
        let (id, request) = peer.expect::<ResizeConsole>().await;
        assert_eq!(
            request.payload,
            ResizeConsole {
                process_id: 41,
                height: 24,
                width: 80
            }
        );
        peer.succeed::<ResizeConsole>(id, Empty {}).await;
        let (id, request) = peer.expect::<SignalProcess>().await;
        assert_eq!(request.payload, SignalProcess::with_signal(41, 15));
        peer.succeed::<SignalProcess>(id, Empty {}).await;
        let (id, request) = peer.expect::<GetProperties>().await;
        assert_eq!(
            request.payload.query.0.property_types,
            [PropertyType::ProcessList]
        );
        let properties = Properties {
            process_list: vec![ProcessDetails { process_id: 41 }],
            ..Default::default()
        };
        let properties = cofferdam_protocol::json::InString(properties);
        peer.succeed::<GetProperties>(id, GetPropertiesReply { properties })
            .await;
        let (id, request) = peer.expect::<WaitForProcess>().await;
        assert_eq!(request.payload.timeout_in_ms, u32::MAX);
        peer.notify("c1").await;
        peer.succeed::<WaitForProcess>(id, WaitForProcessReply { exit_code: 143 })
            .await;
        let (id, _) = peer.expect::<DeleteContainerState>().await;
        peer.succeed::<DeleteContainerState>(id, Empty {}).await;
    };
    let ((pid, exit_code, container_id), ()) = tokio::join!(host, guest);
    assert_eq!((pid, exit_code, container_id.as_str()), (41, 143, "c1"));
    assert_eq!(bridge.waiting(), (0, 0));
}

#[tokio::test]
async fn the_vm_tells_its_mounts_those_that_did_not_fit_counted_and_its_agents_memory() {
    let (bridge, mut peer) = connected().await;
    let mount = GuestMount {
        path: "/run/layers/p0".into(),
        source: "/dev/pmem0".into(),
        fs_type: "ext4".into(),
        read_only: true,
    };
    let answers = [
        json!({"Mounts": [mount], "MountsOmitted": 7}),
        json!({"Mounts": []}),
        json!({"AgentMemory": {"RssBytes": 4096}}),
        json!({"AgentMemory": {"RssBytes": null}}),
        json!({}),
    ];
    let guest = async {
        let mut asked = Vec::new();
        for answer in answers {
            let (id, request) = peer.expect::<GetProperties>().await;
            assert_eq!(request.base.container_id, NULL_CONTAINER_ID);
            asked.extend(request.payload.query.0.property_types);
            let properties = serde_json::from_value(answer).unwrap();
            let properties = cofferdam_protocol::json::InString(properties);
            peer.succeed::<GetProperties>(id, GetPropertiesReply { properties })
                .await;
        }
        asked
    };
    let host = async {
        let some = bridge.guest_mounts().await.unwrap();
        assert_eq!((&some.listed[..], some.omitted), (&[mount.clone()][..], 7));
        assert!(!some.is_empty());
        assert!(bridge.guest_mounts().await.unwrap().is_empty());
        assert_eq!(bridge.agent_memory_bytes().await.unwrap(), 4096);
        // An answer that leaves out what was asked for is not taken for an empty table.
        bridge.agent_memory_bytes().await.unwrap_err();
        bridge.guest_mounts().await.unwrap_err();
    };
    let (asked, ()) = tokio::join!(guest, host);
    use PropertyType::{AgentMemory, Mounts};
    assert_eq!(asked, [Mounts, Mounts, AgentMemory, AgentMemory, Mounts]);
}

#[tokio::test]
async fn a_guest_that_never_said_it_could_is_not_asked_for_its_mounts() {
    let (bridge, mut peer) = connected_with(linux(false)).await;
    let error = bridge.guest_mounts().await.unwrap_err();
    assert!(matches!(error, BridgeError::Unsupported { .. }), "{error}");
    drop(bridge);
    assert!(peer.try_next().await.is_none());
}

#[tokio::test]
async fn a_refused_modification_names_the_step_the_code_and_the_guests_words() {
    let (bridge, mut peer) = connected().await;
    let disk = MappedVirtualDisk {
        mount_path: "/m".into(),
        lun: 3,
        ..Default::default()
    };
    let request = ModificationRequest::add(Resource::MappedVirtualDisk(disk));
    let (answer, ()) = tokio::join!(bridge.modify(request.clone()), async {
        let (id, sent) = peer.expect::<ModifySettings>().await;
        assert_eq!(
            (sent.base.container_id.as_str(), sent.payload.request),
            (NULL_CONTAINER_ID, request)
        );
        peer.fail::<ModifySettings>(id, HResult::FAIL, "mount: \u{1b}[31mno such device")
            .await;
    });
    let error = answer.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ModifySettings (Add MappedVirtualDisk 0:3 on /m) in the utility VM: the guest failed with 0x80004005 \
         (unspecified failure): mount: \\u{1b}[31mno such device"
    );
    let BridgeError::Guest { failure, .. } = error else {
        panic!("not the guest's failure")
    };
    assert_eq!(failure.records.len(), 1);
}

#[tokio::test]
async fn a_signal_to_a_process_that_has_gone_is_not_an_error() {
    let (bridge, mut peer) = connected().await;
    let (delivered, ()) = tokio::join!(bridge.signal_process("c", 7, None), async {
        let (id, request) = peer.expect::<SignalProcess>().await;
        assert_eq!(request.payload.options, None);
        peer.fail::<SignalProcess>(id, HResult::NOT_FOUND, "gone").await;
    });
    assert!(!delivered.unwrap());
}

#[tokio::test]
async fn a_mount_of_a_container_is_sent_to_that_container() {
    let (bridge, mut peer) = connected().await;
    bridge.check_container_mounts().unwrap();
    let request = ModificationRequest::add(Resource::ContainerMount(ContainerMount {
        source: "/m".into(),
        destination: "/d".into(),
        read_only: true,
    }));
    let (done, ()) = tokio::join!(bridge.modify_container("c", request.clone()), async {
        let (id, got) = peer.expect::<ModifySettings>().await;
        assert_eq!(
            (got.base.container_id.as_str(), &got.payload.request),
            ("c", &request)
        );
        peer.succeed::<ModifySettings>(id, Empty {}).await;
    });
    done.unwrap();
}

#[tokio::test]
async fn shutting_down_what_has_stopped_or_powering_off_is_no_error() {
    let (bridge, mut peer) = connected().await;
    let (done, ()) = tokio::join!(bridge.shutdown_graceful("c"), async {
        let (id, _) = peer.expect::<ShutdownGraceful>().await;
        peer.fail::<ShutdownGraceful>(id, HResult::CONTAINER_NOT_FOUND, "gone")
            .await;
    });
    done.unwrap();
    let (done, ()) = tokio::join!(bridge.shutdown_forced("c"), async {
        let (id, _) = peer.expect::<ShutdownForced>().await;
        peer.fail::<ShutdownForced>(id, HResult::FAIL, "no").await;
    });
    assert_eq!(done.unwrap_err().result(), Some(HResult::FAIL));
    let (done, ()) = tokio::join!(bridge.shutdown_graceful(NULL_CONTAINER_ID), async move {
        peer.expect::<ShutdownGraceful>().await;
        drop(peer);
    });
    done.unwrap();
}

#[tokio::test]
async fn what_the_guest_cannot_do_is_refused_before_anything_is_sent() {
    let (bridge, mut peer) = connected_with(linux(false)).await;
    assert!(matches!(
        bridge.dump_stacks().await,
        Err(BridgeError::Unsupported { .. })
    ));
    assert!(matches!(
        bridge.delete_container_state("c").await,
        Err(BridgeError::Unsupported { .. })
    ));
    assert!(matches!(
        bridge.signal_process("c", 1, Some(10)).await,
        Err(BridgeError::Unsupported { .. })
    ));
    let mount = Resource::ContainerMount(ContainerMount::default());
    let refused = bridge
        .modify_container("c", ModificationRequest::add(mount))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with("this guest cannot change the mounts of a running container"),
        "{refused}"
    );
    bridge.check_container_mounts().unwrap_err();
    drop(bridge);
    assert_eq!(peer.try_next().await, None);
}

#[tokio::test]
async fn a_request_above_the_limit_is_refused_before_anything_is_sent() {
    let (bridge, mut peer) = connected().await;
    let config = ContainerConfig {
        oci_bundle_path: "x".repeat(5 << 20),
        ..Default::default()
    };
    let error = bridge.create("c", config).await.unwrap_err();
    assert!(matches!(error, BridgeError::NotSent { .. }), "{error}");
    assert_eq!(bridge.waiting(), (0, 0));
    // The bridge goes on.
    let (started, ()) = tokio::join!(bridge.start("c"), async {
        let (id, _) = peer.expect::<Start>().await;
        peer.succeed::<Start>(id, Empty {}).await;
    });
    started.unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_process_has_no_limit_but_other_calls_have() {
    let (bridge, mut peer) = connected().await;
    let wait = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.wait_for_process("c", 1).await }
    });
    let (id, _) = peer.expect::<WaitForProcess>().await;
    let error = bridge.start("c").await.unwrap_err();
    assert!(
        matches!(error, BridgeError::TimedOut { limit, .. } if limit == Duration::from_secs(30)),
        "{error}"
    );
    tokio::time::sleep(Duration::from_secs(7 * 24 * 3600)).await;
    peer.succeed::<WaitForProcess>(id, WaitForProcessReply { exit_code: 5 })
        .await;
    assert_eq!(wait.await.unwrap().unwrap(), 5);
}
