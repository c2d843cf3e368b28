//! The table of states, walked.

use cofferdam_backend::fake::{FakeProgram, FaultPoint, GuestStep};
use cofferdam_pod::{Endpoints, PodError, ProcessName, Status};
use serde_json::json;

use crate::scene::Scene;

#[tokio::test]
async fn a_container_is_created_started_ended_and_deleted_and_each_is_told_once() {
    let mut scene = Scene::new().await;
    scene.program("c", FakeProgram::exits(3));
    scene.create("c").await.unwrap();
    let name = ProcessName::init("c");
    assert_eq!(scene.status(&name), Status::Created);
    scene.pod.start(&name).await.unwrap();
    assert_eq!(scene.exit(&name).await, 3);
    let exit = scene.pod.delete(&name).await.unwrap();
    assert_eq!(exit.status, 3);
    assert_eq!(
        scene.told(),
        [
            "created c",
            "started container c",
            "exited container c: 3",
            "deleted container c: 3"
        ]
    );
    scene.assert_nothing_left();
}

#[tokio::test]
async fn what_a_state_does_not_allow_is_refused_and_changes_nothing() {
    let scene = Scene::new().await;
    scene.program("c", FakeProgram::runs());
    scene.create("c").await.unwrap();
    let name = ProcessName::init("c");
    let exec = ProcessName::exec("c", "e");
    let added = |scene: &Scene| {
        scene
            .pod
            .exec(&exec, json!({ "args": ["x"] }), Endpoints::default())
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        added(&scene).unwrap_err(),
        "container c is created: only in a running container can a process be executed"
    );
    let refused = scene.pod.kill(&name, 10, false).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "container c is created: it takes signals once it runs"
    );

    scene.pod.start(&name).await.unwrap();
    let twice = scene.pod.start(&name).await.unwrap_err();
    assert_eq!(
        twice.to_string(),
        "container c is running: only a process that was never started can be started"
    );
    let early = scene.pod.delete(&name).await.unwrap_err();
    assert_eq!(early.to_string(), "container c is running: stop it first");
    assert!(matches!(scene.create("c").await, Err(PodError::Exists(_))));
    assert_eq!(scene.status(&name), Status::Running);

    scene.pod.kill(&name, 9, false).await.unwrap();
    assert_eq!(scene.exit(&name).await, 128 + 9);
    assert_eq!(
        added(&scene).unwrap_err(),
        "container c has stopped: only in a running container can a process be executed"
    );
    let late = scene.pod.kill(&name, 9, false).await.unwrap_err();
    assert_eq!(late.to_string(), "container c: process already finished");
    assert!(matches!(
        scene.pod.start(&name).await,
        Err(PodError::State { .. })
    ));
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn unknown_names_are_told_as_such() {
    let scene = Scene::new().await;
    let nobody = ProcessName::init("nobody");
    let refused = [
        scene.pod.start(&nobody).await.unwrap_err(),
        scene.pod.kill(&nobody, 9, false).await.unwrap_err(),
        scene.pod.wait(&nobody).await.unwrap_err(),
        scene.pod.delete(&nobody).await.unwrap_err(),
        scene.pod.pids("nobody").await.unwrap_err(),
        scene.pod.close_stdin(&nobody).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.to_string(), "container nobody does not exist");
    }
    let name = scene.running("c").await;
    let exec = ProcessName::exec("c", "e");
    let error = scene.pod.start(&exec).await.unwrap_err();
    assert_eq!(error.to_string(), "process e of container c does not exist");
    scene.pod.kill(&name, 9, false).await.unwrap();
    scene.exit(&name).await;
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn further_processes_come_and_go_beside_the_init() {
    let mut scene = Scene::new().await;
    let init = scene.running("c").await;
    scene.command("quick", FakeProgram::exits(5));
    scene.command("slow", FakeProgram::runs());
    let (quick, slow) = (ProcessName::exec("c", "q"), ProcessName::exec("c", "s"));
    for (name, program) in [(&quick, "quick"), (&slow, "slow")] {
        let process = json!({ "args": [program] });
        scene
            .pod
            .exec(name, process.clone(), Endpoints::default())
            .unwrap();
        let again = scene.pod.exec(name, process, Endpoints::default());
        assert!(matches!(again, Err(PodError::Exists(_))));
        scene.pod.start(name).await.unwrap();
    }
    assert_eq!(scene.exit(&quick).await, 5);
    scene.pod.delete(&quick).await.unwrap();
    assert!(scene.pod.state(&quick).is_err());
    scene.pod.kill(&slow, 15, false).await.unwrap();
    assert_eq!(scene.exit(&slow).await, 128 + 15);
    assert_eq!(scene.status(&init), Status::Running);
    scene.pod.kill(&init, 15, false).await.unwrap();
    scene.exit(&init).await;
    scene.pod.delete(&init).await.unwrap();
    let told = scene.told();
    let of = |words: &str| told.iter().filter(|line| line.contains(words)).count();
    assert_eq!(of("exited process q of container c: 5"), 1);
    assert_eq!(of("exited"), 3);
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_container_that_was_never_started_can_be_killed_and_deleted() {
    let mut scene = Scene::new().await;
    for (id, kill) in [("killed", true), ("deleted", false)] {
        scene.program(id, FakeProgram::runs());
        scene.create(id).await.unwrap();
        let name = ProcessName::init(id);
        if kill {
            scene.pod.kill(&name, 9, false).await.unwrap();
            assert_eq!(scene.exit(&name).await, 128 + 9);
        }
        scene.pod.delete(&name).await.unwrap();
    }
    assert!(scene.told().contains(&"exited container killed: 137".to_owned()));
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_creation_that_fails_leaves_nothing_and_gives_its_name_back() {
    let scene = Scene::new().await;
    scene
        .backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::Create), 0, "not today");
    let error = scene.create("c").await.unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    scene.assert_nothing_left();
    let name = scene.running("c").await;
    scene.pod.kill(&name, 9, false).await.unwrap();
    scene.exit(&name).await;
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_start_that_fails_ends_the_process_and_it_can_be_deleted() {
    let scene = Scene::new().await;
    scene.create("c").await.unwrap();
    let name = ProcessName::init("c");
    scene
        .backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::ExecuteProcess), 0, "no such program");
    let error = scene.pod.start(&name).await.unwrap_err();
    assert!(error.to_string().contains("no such program"), "{error}");
    assert!(matches!(scene.status(&name), Status::Stopped(exit) if exit.status == 127));
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_deletion_that_fails_can_be_tried_again() {
    let scene = Scene::new().await;
    let name = scene.running("c").await;
    scene.pod.kill(&name, 9, false).await.unwrap();
    scene.exit(&name).await;
    scene
        .backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::DeleteContainerState), 0, "busy");
    let error = scene.pod.delete(&name).await.unwrap_err();
    assert!(error.to_string().contains("busy"), "{error}");
    assert!(matches!(scene.status(&name), Status::Stopped(_)));
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}
