//! The spec as a document, its paths, and what a refusal carries.

use std::{io, path::Path};

use cofferdam_plan::{PlanRequest, Spec, plan, wanted};
use serde_json::json;

use crate::host::{ROOT, host, mount, one, planned, shares_of_mounts};

#[test]
fn relative_paths_start_at_the_bundle() {
    let spec = json!({
        "windows": {"layerFolders": ["l1", "ls"]},
        "mounts": [mount("bind", "data", &[])],
    });
    let paths = wanted(&Spec::parse(&spec.to_string()).unwrap(), Path::new("/bundle"));
    let expected = ["/bundle/l1/layer.vhd", "/bundle/ls/sandbox.vhdx", "/bundle/data"];
    assert_eq!(paths, expected.map(Path::new));
    let plan = planned(&spec).unwrap();
    assert_eq!(shares_of_mounts(&plan)[0].host_path, Path::new("/bundle/data"));
}

#[test]
fn members_nobody_knows_survive_in_their_order() {
    let text = r#"{"z":1,"root":{"x-a":[],"path":"rootfs"},"a":{"big":18446744073709551615},
        "mounts":[{"uidMappings":[{"hostID":1}],"destination":"/d","type":"bind","source":"/srv/data"}]}"#;
    let spec = Spec::parse(text).unwrap();
    let request = PlanRequest {
        spec: &spec,
        bundle: Path::new("/bundle"),
        container_root: ROOT,
        process_isolation: false,
    };
    let plan = plan(request, &host().facts()).unwrap();
    let expected = r#"{"z":1,"root":{"x-a":[],"path":"/run/gcs/c/1/rootfs"},"a":{"big":18446744073709551615},"mounts":[{"uidMappings":[{"hostID":1}],"destination":"/d","type":"bind","source":"/run/gcs/c/1/mounts/m0"}]}"#;
    assert_eq!(plan.spec.to_string(), expected);
}

#[test]
fn what_is_no_json_or_no_spec_is_refused_with_line_and_column() {
    for text in [
        "",
        "{",
        "{\n\"root\": ,}",
        "[]",
        "7",
        "[{\"path\": \"/x\"}]",
        "{\"root\": [\"/x\"]}",
        "{\"root\": {\"path\": 7}}",
        "{\"mounts\": {}}",
        "{\"mounts\": [[\"/m\", \"bind\", \"/srv/data\"]]}",
        "{\"mounts\": [{\"destination\": \"/m\", \"options\": \"ro\"}]}",
        "{\"windows\": {\"layerFolders\": \"/l\"}}",
        "{\"root\": {}, \"root\": {}}",
    ] {
        let error = Spec::parse(text).unwrap_err().to_string();
        assert!(
            error.contains(" at line ") && error.contains(" column "),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_error_keeps_its_cause_and_names_its_mount() {
    let error = one("bind", "/gone", &[]).unwrap_err();
    assert!(
        error.to_string().starts_with("mount 1: could not open"),
        "{error}"
    );
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let system = cause.downcast_ref::<io::Error>().unwrap();
    assert_eq!(system.kind(), io::ErrorKind::NotFound);
}
