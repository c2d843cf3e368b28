//! Documents that are none, or far too large.

use cofferdam_backend::fake::{FaultPoint, GuestStep};
use containerd_shim::{
    api::{StartRequest, UpdateTaskRequest},
    protos::{protobuf::well_known_types::any::Any, ttrpc::Code},
};

use crate::scene::{Scene, answer, context, execution, refused};

/// What is no object in JSON.
fn garbage() -> Vec<Vec<u8>> {
    let deep = "{\"a\":".repeat(100_000);
    [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"17",
        b"\"text\"",
        b"\xff\xfe",
        b"{\"args\":[\"\xff\"]}",
        b"{} {}",
        deep.as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_or_limits_that_are_no_object_are_refused_with_the_place() {
    let scene = Scene::new().await;
    scene.running("c").await;
    for bytes in garbage() {
        let exec = execution("c", "e", bytes.clone());
        let answered = answer(scene.client.exec(context(), &exec)).await;
        refused(answered, Code::INVALID_ARGUMENT, "the process to be executed: ");
        let mut resources = Any::new();
        resources.value = bytes;
        let update = UpdateTaskRequest {
            id: "c".to_owned(),
            resources: Some(resources).into(),
            ..UpdateTaskRequest::default()
        };
        let answered = answer(scene.client.update(context(), &update)).await;
        refused(answered, Code::INVALID_ARGUMENT, "the new limits: ");
    }
    // Without any document.
    let mut exec = execution("c", "e", "");
    exec.spec = None.into();
    let answered = answer(scene.client.exec(context(), &exec)).await;
    refused(answered, Code::INVALID_ARGUMENT, "the process to be executed: ");
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_the_guest_cannot_be_told_is_the_error_of_its_start() {
    let scene = Scene::new().await;
    scene.running("c").await;
    let start = StartRequest {
        id: "c".to_owned(),
        exec_id: "huge".to_owned(),
        ..StartRequest::default()
    };
    // Just below what a message may have, and above it as a text inside of another document.
    let huge = format!("{{\"args\":[{:?}],\"cwd\":\"/\"}}", "\"".repeat((2 << 20) - 100));
    let answered = answer(
        scene
            .client
            .exec(context(), &execution("c", "huge", huge.into_bytes())),
    )
    .await;
    answered.unwrap();
    let started = answer(scene.client.start(context(), &start)).await;
    refused(started, Code::UNKNOWN, "the request cannot be sent: ");
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_guest_arrives_in_its_words() {
    let scene = Scene::new().await;
    scene.running("c").await;
    let asked = FaultPoint::Guest(GuestStep::UpdateContainer);
    scene
        .backend
        .faults()
        .fail(asked, 1, "linux.resources.memory.limit: no");
    let mut resources = Any::new();
    resources.value = br#"{"memory":{"limit":"much"}}"#.to_vec();
    let update = UpdateTaskRequest {
        id: "c".to_owned(),
        resources: Some(resources).into(),
        ..UpdateTaskRequest::default()
    };
    let (_, message) = answer(scene.client.update(context(), &update)).await.unwrap_err();
    assert!(message.contains("linux.resources.memory.limit: no"), "{message}");
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_without_a_spec_is_named_and_leaves_the_name_free() {
    let scene = Scene::new().await;
    let mut creation = scene.creation("c");
    for bundle in ["", "/no/such/bundle", "a\0b"] {
        bundle.clone_into(&mut creation.bundle);
        assert!(answer(scene.client.create(context(), &creation)).await.is_err());
    }
    let config = scene.dir.path().join("config.json");
    let whole = std::fs::read(&config).unwrap();
    for text in ["", "[]", "{\"root\":7}", "{\"mounts\":[[]]}"] {
        std::fs::write(&config, text).unwrap();
        let answered = answer(scene.client.create(context(), &scene.creation("c"))).await;
        assert!(answered.is_err(), "{text}");
    }
    std::fs::write(&config, whole).unwrap();
    scene.running("c").await;
    scene.end("c").await;
    scene.assert_nothing_left();
}
