//! The VM goes away, or its guest talks nonsense.

use cofferdam_backend::fake::{FakeProgram, FaultPoint, GuestStep};
use cofferdam_pod::{Endpoints, ProcessName};
use serde_json::json;

use crate::scene::Scene;

#[tokio::test]
async fn a_vm_that_dies_ends_every_process_as_by_a_kill_and_all_can_be_deleted() {
    let mut scene = Scene::new().await;
    let (one, two) = (scene.running("one").await, scene.running("two").await);
    scene.command("sleep", FakeProgram::runs());
    let exec = ProcessName::exec("one", "e");
    scene
        .pod
        .exec(&exec, json!({ "args": ["sleep"] }), Endpoints::default())
        .unwrap();
    scene.pod.start(&exec).await.unwrap();
    scene.create("never").await.unwrap();
    scene.backend.kill_vm();
    for name in [&one, &two, &exec] {
        assert_eq!(scene.exit(name).await, 128 + 9, "{name}");
    }
    assert!(scene.create("late").await.is_err());
    for name in [exec, one, two, ProcessName::init("never")] {
        scene.pod.delete(&name).await.unwrap();
    }
    let exits = scene
        .told()
        .iter()
        .filter(|line| line.starts_with("exited"))
        .count();
    assert_eq!(exits, 3);
    assert_eq!(scene.pod.names(), Vec::<String>::new());
    assert!(scene.pod.vm().driver().ledger().view().slots.is_empty());
}

#[tokio::test]
async fn a_vm_that_dies_during_any_step_of_a_creation_leaves_nothing() {
    for step in [
        GuestStep::MountShare,
        GuestStep::Create,
        GuestStep::ExecuteProcess,
    ] {
        let scene = Scene::new().await;
        scene.backend.faults().die(FaultPoint::Guest(step), 0);
        let name = ProcessName::init("c");
        let created = scene.create("c").await;
        assert_eq!(created.is_ok(), step == GuestStep::ExecuteProcess, "{step:?}");
        if created.is_ok() {
            assert!(scene.pod.start(&name).await.is_err());
            scene.pod.delete(&name).await.unwrap();
        }
        assert_eq!(scene.pod.names(), Vec::<String>::new());
        assert!(scene.pod.vm().driver().ledger().view().slots.is_empty());
    }
}
