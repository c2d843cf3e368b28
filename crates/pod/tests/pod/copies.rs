//! Copies of files: processes of the VM that are a container's.

use std::time::{Duration, Instant};

use cofferdam_backend::fake::FakeProgram;
use cofferdam_pod::{Endpoints, ProcessName, Status};

use crate::scene::Scene;

/// The agent's own program, as which a copy runs.
const AGENT: &str = "/proc/self/exe";

async fn copied(scene: &Scene, name: &str) -> Result<u8, String> {
    let name = ProcessName::exec("c", name);
    let refused = |error: cofferdam_pod::PodError| error.to_string();
    scene
        .pod
        .copy(&name, "{}".to_owned(), Endpoints::default())
        .map_err(refused)?;
    scene.pod.start(&name).await.map_err(refused)?;
    let status = scene.exit(&name).await;
    scene.pod.delete(&name).await.map_err(refused)?;
    Ok(status)
}

#[tokio::test]
async fn files_are_copied_while_the_containers_root_is_there() {
    let scene = Scene::new().await;
    scene.command(AGENT, FakeProgram::exits(7));
    scene.program("c", FakeProgram::runs());
    scene.create("c").await.unwrap();
    let init = ProcessName::init("c");
    assert_eq!(copied(&scene, "created").await, Ok(7));
    scene.pod.start(&init).await.unwrap();
    assert_eq!(copied(&scene, "running").await, Ok(7));
    scene.pod.pause("c").await.unwrap();
    assert_eq!(copied(&scene, "paused").await, Ok(7));
    scene.pod.resume("c").await.unwrap();
    scene.pod.kill(&init, 9, false).await.unwrap();
    scene.exit(&init).await;
    assert_eq!(
        copied(&scene, "stopped").await.unwrap_err(),
        "container c has stopped: files are copied while its root is there, which goes with it"
    );
    scene.pod.delete(&init).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_copy_under_way_does_not_keep_a_container_from_being_deleted() {
    let scene = Scene::new().await;
    scene.command(AGENT, FakeProgram::runs());
    let init = scene.running("c").await;
    let copy = ProcessName::exec("c", "endless");
    scene
        .pod
        .copy(&copy, "{}".to_owned(), Endpoints::default())
        .unwrap();
    scene.pod.start(&copy).await.unwrap();
    scene.pod.kill(&init, 9, false).await.unwrap();
    scene.exit(&init).await;
    assert_eq!(scene.status(&copy), Status::Running);
    let began = Instant::now();
    scene.pod.delete(&init).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "it was waited for");
    scene.assert_nothing_left();
}
