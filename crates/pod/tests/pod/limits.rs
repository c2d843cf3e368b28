//! What a pod's containers may use together.

use cofferdam_backend::fake::{FaultPoint, GuestStep};
use cofferdam_plan::Spec;
use cofferdam_pod::{Endpoints, NewContainer, PodLimits, ProcessName};
use serde_json::{Value, json};

use crate::scene::Scene;

const LIMITS: PodLimits = PodLimits {
    memory_bytes: Some(1 << 30),
    cpu_quota_us: Some(50_000),
    cpu_period_us: Some(100_000),
    cpu_shares: None,
};

async fn create(scene: &Scene, id: &str, resources: Value) -> Result<(), String> {
    let spec = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "args": ["init"], "cwd": "/" },
        "linux": { "resources": resources },
    });
    let spec = Spec::parse(&spec.to_string()).unwrap();
    let new = NewContainer {
        id,
        spec: &spec,
        bundle: scene.dir.path(),
        endpoints: Endpoints::default(),
        check_image: &|_| Ok(()),
    };
    scene.pod.create(new).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_limit_holds_until_a_container_comes_that_has_none_of_its_own() {
    let scene = Scene::new().await;
    scene.pod.limit(LIMITS).await.unwrap();
    let cpu = json!({ "quota": 50_000, "period": 100_000 });
    let held = || scene.backend.pod_limits();
    assert_eq!(held(), json!({ "memory": { "limit": 1 << 30 }, "cpu": cpu }));
    let own = json!({ "memory": { "limit": 1 << 20 }, "cpu": { "quota": 10_000 } });
    create(&scene, "limited", own).await.unwrap();
    assert_eq!(held(), json!({ "memory": { "limit": 1 << 30 }, "cpu": cpu }));
    create(&scene, "partly", json!({ "memory": { "limit": 1 << 20 } }))
        .await
        .unwrap();
    let lifted = json!({ "quota": -1, "period": 100_000 });
    assert_eq!(held(), json!({ "memory": { "limit": 1 << 30 }, "cpu": lifted }));
    create(&scene, "not", json!({})).await.unwrap();
    assert_eq!(held(), json!({ "memory": { "limit": -1 }, "cpu": lifted }));
    for id in ["limited", "partly", "not"] {
        scene.pod.delete(&ProcessName::init(id)).await.unwrap();
    }
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_pod_without_limits_asks_nothing_of_its_guest() {
    let scene = Scene::new().await;
    let asked = FaultPoint::Guest(GuestStep::UpdatePod);
    scene.backend.faults().fail(asked, 1, "it was asked");
    scene.pod.limit(PodLimits::default()).await.unwrap();
    create(&scene, "a", json!({})).await.unwrap();
    assert_eq!(scene.backend.pod_limits(), json!(null));
    // The fault is where a limit would have been asked for.
    let refused = scene.pod.limit(LIMITS).await.unwrap_err().to_string();
    assert!(refused.contains("it was asked"), "{refused}");
}
