//! The bodies and headers of the protocol's worked examples (GCS bridge protocol §5, §11), byte for byte.

use cofferdam_protocol::{
    HResult, NULL_CONTAINER_ID,
    frame::{self, MAX_HOST_FRAME_BYTES},
    json::InString,
    message::*,
    settings::*,
};
use serde_json::{Value, json};

/// Checks that `request` is written as `text` and that `text` reads as `request`; `Z` stands for the null id.
fn exactly<P: Payload + PartialEq + std::fmt::Debug>(request: Request<P>, text: &str) {
    let text = text.replace("\"Z\"", &format!("\"{NULL_CONTAINER_ID}\""));
    assert_eq!(
        String::from_utf8(request.to_body()).expect("the message converts"),
        text
    );
    assert_eq!(
        Request::<P>::from_body(text.as_bytes()).expect("the message converts"),
        request
    );
    let with_newline = format!("{text}\n");
    assert_eq!(
        Request::<P>::from_body(with_newline.as_bytes()).expect("the message converts"),
        request
    );
}

fn modify(request: ModificationRequest) -> Request<ModifySettings> {
    Request::to_vm(ModifySettings { request })
}

#[test]
fn a_scratch_disk_on_controller_0_lun_1() {
    exactly(
        modify(ModificationRequest::add(Resource::MappedVirtualDisk(
            MappedVirtualDisk {
                mount_path: "/run/gcs/c/1/scratch".into(),
                lun: 1,
                ..Default::default()
            },
        ))),
        concat!(
            r#"{"ContainerId":"Z","ActivityId":"Z","Request":{"RequestType":"Add","#,
            r#""ResourceType":"MappedVirtualDisk","#,
            r#""Settings":{"MountPath":"/run/gcs/c/1/scratch","Lun":1}}}"#
        ),
    );
}

#[test]
fn a_layer_on_persistent_memory_0() {
    exactly(
        modify(ModificationRequest::add(Resource::VpmemDevice(VpmemDevice {
            mount_path: "/tmp/p0".into(),
            ..Default::default()
        }))),
        concat!(
            r#"{"ContainerId":"Z","ActivityId":"Z","Request":{"RequestType":"Add","#,
            r#""ResourceType":"VPMemDevice","Settings":{"MountPath":"/tmp/p0"}}}"#
        ),
    );
}

#[test]
fn an_overlay_of_two_layers_and_a_scratch() {
    let layer = |path: &str| Layer {
        path: path.into(),
        ..Default::default()
    };
    exactly(
        modify(ModificationRequest::add(Resource::CombinedLayers(
            CombinedLayers {
                container_root_path: "/run/gcs/c/1/rootfs".into(),
                layers: vec![layer("/tmp/p1"), layer("/tmp/p0")],
                scratch_path: "/run/gcs/c/1/scratch".into(),
                ..Default::default()
            },
        ))),
        concat!(
            r#"{"ContainerId":"Z","ActivityId":"Z","Request":{"RequestType":"Add","#,
            r#""ResourceType":"CombinedLayers","Settings":{"ContainerRootPath":"/run/gcs/c/1/rootfs","#,
            r#""Layers":[{"Path":"/tmp/p1"},{"Path":"/tmp/p0"}],"ScratchPath":"/run/gcs/c/1/scratch"}}}"#
        ),
    );
}

#[test]
fn a_plan_9_share() {
    exactly(
        modify(ModificationRequest::add(Resource::MappedDirectory(
            MappedDirectory {
                mount_path: "/run/gcs/c/1/m0".into(),
                port: 564,
                share_name: "3".into(),
                read_only: true,
            },
        ))),
        concat!(
            r#"{"ContainerId":"Z","ActivityId":"Z","Request":{"RequestType":"Add","#,
            r#""ResourceType":"MappedDirectory","#,
            r#""Settings":{"MountPath":"/run/gcs/c/1/m0","Port":564,"ShareName":"3","ReadOnly":true}}}"#
        ),
    );
}

#[test]
fn a_network_adapter_of_a_newer_host() {
    exactly(
        modify(ModificationRequest::add(Resource::Network(Network {
            namespace_id: "ns".into(),
            id: "nic".into(),
            mac_address: "00-15-5D-00-00-01".into(),
            ip_configs: vec![IpConfig {
                ip_address: "10.0.0.2".into(),
                prefix_length: 24,
            }],
            routes: vec![Route {
                next_hop: "10.0.0.1".into(),
                destination_prefix: "0.0.0.0/0".into(),
                ..Default::default()
            }],
            ..Default::default()
        }))),
        concat!(
            r#"{"ContainerId":"Z","ActivityId":"Z","Request":{"RequestType":"Add","ResourceType":"Network","#,
            r#""Settings":{"NamespaceID":"ns","ID":"nic","MacAddress":"00-15-5D-00-00-01","#,
            r#""IPConfigs":[{"IPAddress":"10.0.0.2","PrefixLength":24}],"#,
            r#""Routes":[{"NextHop":"10.0.0.1","DestinationPrefix":"0.0.0.0/0"}]}}}"#
        ),
    );
}

#[test]
fn starting_init_with_output_and_error_streams() {
    let parameters = ProcessParameters {
        create_std_out_pipe: true,
        create_std_err_pipe: true,
        ..Default::default()
    };
    let stdio = VsockStdioRelaySettings {
        std_out: Some(1_073_741_825),
        std_err: Some(1_073_741_826),
        ..Default::default()
    };
    exactly(
        Request::new("<cid>", ExecuteProcess::new(parameters, stdio)),
        concat!(
            r#"{"ContainerId":"<cid>","ActivityId":"Z","Settings":{"ProcessParameters":"#,
            r#""{\"CreateStdOutPipe\":true,\"CreateStdErrPipe\":true}","#,
            r#""VsockStdioRelaySettings":{"StdOut":1073741825,"StdErr":1073741826}}}"#
        ),
    );
}

#[test]
fn a_failure_reply() {
    let text = concat!(
        r#"{"Result":-1070137074,"ActivityId":"Z","ErrorMessage":"...","ErrorRecords":[{"Result":-1070137074,"#,
        r#""Message":"...","ModuleName":"gcs","FileName":"","Line":4294967295}]}"#
    )
    .replace("\"Z\"", &format!("\"{NULL_CONTAINER_ID}\""));
    let reply = Response::failure(NULL_CONTAINER_ID, HResult::CONTAINER_NOT_FOUND, "...");
    assert_eq!(String::from_utf8(reply.to_body()).unwrap(), text);
    // It reads as a failure of any operation.
    let read = Response::<WaitForProcessReply>::from_body(text.as_bytes()).unwrap();
    assert_eq!(read.base, reply.base);
}

#[test]
fn the_negotiation_of_version_4() {
    exactly(
        Request::new("", NegotiateProtocol::version_4()),
        r#"{"ContainerId":"","ActivityId":"Z","MinimumVersion":4,"MaximumVersion":4}"#,
    );
    let body = [b' '; 120];
    let bytes = frame::encode(NEGOTIATE_PROTOCOL, 0, &body, MAX_HOST_FRAME_BYTES).unwrap();
    assert_eq!(
        bytes[..16],
        [0x01, 0x0b, 0x10, 0x10, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn only_a_range_that_holds_version_4_is_accepted() {
    let range = |minimum_version, maximum_version| NegotiateProtocol {
        minimum_version,
        maximum_version,
    };
    assert_eq!(range(4, 4).select(), Some(4));
    assert_eq!(range(0, 9).select(), Some(4));
    assert_eq!(range(0, 3).select(), None);
    assert_eq!(range(5, 9).select(), None);
    assert_eq!(range(9, 0).select(), None);
}

#[test]
fn a_mount_of_a_running_container_names_the_container_in_the_request() {
    let mount = ContainerMount {
        source: "/run/gcs/c/1/mounts/m7".into(),
        destination: "/data".into(),
        read_only: true,
    };
    let request = ModificationRequest::remove(Resource::ContainerMount(mount));
    let request = Request::new("c1", ModifySettings { request });
    let text = String::from_utf8(request.to_body()).unwrap();
    assert!(text.starts_with(r#"{"ContainerId":"c1","#), "{text}");
    let settings = concat!(
        r#""Request":{"RequestType":"Remove","ResourceType":"CofferdamContainerMount","#,
        r#""Settings":{"Source":"/run/gcs/c/1/mounts/m7","Destination":"/data","ReadOnly":true}}"#
    );
    assert!(text.contains(settings), "{text}");
    assert_eq!(
        Request::<ModifySettings>::from_body(text.as_bytes()).unwrap(),
        request
    );
}

#[test]
fn the_capabilities_of_a_linux_guest() {
    let reply = Response::success(
        NULL_CONTAINER_ID,
        NegotiateProtocolReply {
            version: 4,
            capabilities: Capabilities {
                supported_schema_versions: vec![SchemaVersion::V2_1],
                runtime_os_type: "Linux".into(),
                guest_defined_capabilities: GuestDefinedCapabilities {
                    namespace_add_request_supported: true,
                    signal_process_supported: true,
                    dump_stacks_supported: true,
                    delete_container_state_supported: true,
                    cofferdam_container_mounts: false,
                    ..Default::default()
                },
                ..Default::default()
            },
        },
    );
    let text = String::from_utf8(reply.to_body()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"Result":0,"ActivityId":"00000000-0000-0000-0000-000000000000","Version":4,"Capabilities":"#,
            r#"{"SupportedSchemaVersions":[{"Major":2,"Minor":1}],"RuntimeOsType":"Linux","#,
            r#""GuestDefinedCapabilities":{"NamespaceAddRequestSupported":true,"SignalProcessSupported":true,"#,
            r#""DumpStacksSupported":true,"DeleteContainerStateSupported":true}}}"#
        )
    );
    let read = Response::<NegotiateProtocolReply>::from_body(text.as_bytes()).unwrap();
    assert_eq!(read, reply);
    assert_eq!(read.payload.capabilities.runtime_os(), "linux");
    assert_eq!(Capabilities::default().runtime_os(), "windows");
}

#[test]
fn create_carries_the_spec_as_text_and_leaves_its_keys_alone() {
    let spec = json!({"ociVersion": "1.0.2", "process": {"args": ["sh"]}, "linux": {"Path": 1, "path": 2}});
    let request = Request::new(
        "c1",
        Create {
            container_config: InString(ContainerConfig {
                schema_version: Some(SchemaVersion::V2_1),
                oci_bundle_path: "/run/gcs/c/1".into(),
                oci_specification: Some(spec.clone()),
                ..Default::default()
            }),
        },
    );
    let body: Value = serde_json::from_slice(&request.to_body()).unwrap();
    let inner: Value = serde_json::from_str(body["ContainerConfig"].as_str().unwrap()).unwrap();
    assert_eq!(inner["SchemaVersion"], json!({"Major": 2, "Minor": 1}));
    assert_eq!(inner["OciBundlePath"], "/run/gcs/c/1");
    assert_eq!(inner["OciSpecification"], spec);
    assert_eq!(Request::<Create>::from_body(&request.to_body()).unwrap(), request);
}

#[test]
fn a_mangled_request_reads_as_the_original_would_read_it() {
    let text = concat!(
        r#"{"containerid":"Z","ACTIVITYID":"A1","ocsc":{"TraceID":"ff"},"v2request":{"requesttype":"","#,
        r#""resourcetype":"MappedVirtualDisk","settings":{"mountpath":"/m","LUN":7,"readonly":true,"Size":1}}}"#
    );
    let request = Request::<ModifySettings>::from_body(text.as_bytes()).unwrap();
    assert_eq!(
        (
            request.base.container_id.as_str(),
            request.base.activity_id.as_str()
        ),
        ("Z", "A1")
    );
    let disk = MappedVirtualDisk {
        mount_path: "/m".into(),
        lun: 7,
        read_only: true,
        ..Default::default()
    };
    assert_eq!(
        request.payload.request,
        ModificationRequest::add(Resource::MappedVirtualDisk(disk))
    );
}

#[test]
fn a_resource_without_a_type_is_kept_not_refused() {
    let text = r#"{"Request":{"RequestType":"Update","ResourceType":"PodCgroupMemoryLimit"}}"#;
    let request = Request::<ModifySettings>::from_body(text.as_bytes())
        .unwrap()
        .payload
        .request;
    assert_eq!(request.request_type, RequestType::Update);
    let expected = Resource::Unknown {
        resource_type: "PodCgroupMemoryLimit".into(),
        settings: Value::Null,
    };
    assert_eq!(request.resource, expected);
}

#[test]
fn settings_that_do_not_fit_are_refused_with_the_resource_and_the_value() {
    let text = r#"{"Request":{"ResourceType":"SCSIDevice","Settings":{"Lun":256}}}"#;
    let error = Request::<ModifySettings>::from_body(text.as_bytes()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("ModifySettings") && error.contains("SCSIDevice") && error.contains("256"),
        "{error}"
    );
    // The activity id can still be echoed.
    let text = r#"{"ActivityId":"A2","Request":7}"#;
    assert!(Request::<ModifySettings>::from_body(text.as_bytes()).is_err());
    assert_eq!(RequestBase::from_body(text.as_bytes()).unwrap().activity_id, "A2");
}

#[test]
fn a_signal_of_zero_or_none_is_sigkill() {
    assert_eq!(SignalProcess::kill(3).signal(), 9);
    assert_eq!(SignalProcess::with_signal(3, 0).signal(), 9);
    exactly(
        Request::new("c", SignalProcess::with_signal(3, 15)),
        r#"{"ContainerId":"c","ActivityId":"Z","ProcessId":3,"Options":{"Signal":15}}"#,
    );
    exactly(
        Request::new("c", SignalProcess::kill(3)),
        r#"{"ContainerId":"c","ActivityId":"Z","ProcessId":3}"#,
    );
}

#[test]
fn an_empty_query_and_unknown_property_names_are_accepted() {
    let request = Request::<GetProperties>::from_body(br#"{"ContainerId":"c","Query":""}"#).unwrap();
    assert!(request.payload.query.0.property_types.is_empty());
    let text = br#"{"Query":"{\"PropertyTypes\":[\"ProcessList\",\"Memory\",\"Statistics\"]}"}"#;
    let request = Request::<GetProperties>::from_body(text).unwrap();
    use PropertyType::*;
    assert_eq!(
        request.payload.query.0.property_types,
        [ProcessList, Unknown, Statistics]
    );
}

#[test]
fn a_notification_has_the_members_of_the_protocol() {
    let notification = ContainerNotification {
        container_id: "c".into(),
        r#type: NotificationType::ForcedExit,
        ..Default::default()
    };
    let text = concat!(
        r#"{"ContainerId":"c","ActivityId":"00000000-0000-0000-0000-000000000000","Type":"ForcedExit","#,
        r#""Operation":"None","Result":0}"#
    );
    assert_eq!(String::from_utf8(notification.to_body()).unwrap(), text);
    assert_eq!(
        ContainerNotification::from_body(text.as_bytes()).unwrap(),
        notification
    );
    let other = ContainerNotification::from_body(br#"{"ContainerId":"c","Type":"Paused"}"#).unwrap();
    assert_eq!(other.r#type, NotificationType::Unknown);
}
