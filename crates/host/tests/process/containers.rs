//! Whole allocations, through plan, ledger and driver, as `cofferdam run --no-vm` makes them.

use std::{fs, time::Instant};

use crate::scene::{Scene, plan_of};

#[tokio::test]
async fn layers_are_stacked_in_order_and_writes_go_to_the_scratch() {
    let scene = Scene::new();
    let upper = scene.layer("upper", &[("both", "upper"), ("only-upper", "")]);
    let base = scene.layer("base", &[("both", "base"), ("only-base", "")]);
    let plan = scene.plan(&[upper, base, scene.scratch()]);
    let root = scene.path("bundle/rootfs");
    assert_eq!(plan.spec["root"]["path"], root.to_str().unwrap());
    let driver = scene.driver();

    let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
    assert_eq!(fs::read_to_string(root.join("both")).unwrap(), "upper");
    assert!(root.join("only-upper").exists() && root.join("only-base").exists());
    fs::write(root.join("both"), "changed").unwrap();
    fs::remove_file(root.join("only-base")).unwrap();
    allocation.release().await.unwrap();
    allocation.release().await.unwrap();
    scene.assert_nothing_left();
    assert!(scene.replay().held.is_empty());
    assert!(driver.ledger().view().slots.is_empty());

    let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
    assert_eq!(fs::read_to_string(root.join("both")).unwrap(), "changed");
    assert!(!root.join("only-base").exists());
    allocation.release().await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn two_owners_share_a_layer_and_have_a_scratch_each() {
    let (one, two) = (Scene::new(), Scene::new());
    let base = one.layer("base", &[("there", "t")]);
    let (first, second) = (one.driver(), two.driver());
    let mut of_one = one
        .allocate(&first, &one.plan(&[base.clone(), one.scratch()]))
        .await
        .unwrap();
    let mut of_two = two
        .allocate(&second, &two.plan(&[base, two.scratch()]))
        .await
        .unwrap();
    fs::write(one.path("bundle/rootfs/mine"), "").unwrap();
    assert!(two.path("bundle/rootfs/there").exists() && !two.path("bundle/rootfs/mine").exists());
    of_one.release().await.unwrap();
    assert!(two.path("bundle/rootfs/there").exists());
    of_two.release().await.unwrap();
    one.assert_nothing_left();
    two.assert_nothing_left();
}

#[tokio::test]
async fn more_layers_than_a_page_of_mount_options_names_are_stacked() {
    let scene = Scene::new();
    const LAYERS: usize = 100;
    let mut folders: Vec<_> = (0..LAYERS)
        .map(|n| {
            let own = format!("l{n}");
            scene.layer(&own, &[("top", &own), (&own, "")])
        })
        .collect();
    folders.push(scene.scratch());
    let plan = scene.plan(&folders);
    let driver = scene.driver();
    let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
    let root = scene.path("bundle/rootfs");
    assert_eq!(fs::read_to_string(root.join("top")).unwrap(), "l0");
    for n in 0..LAYERS {
        assert!(root.join(format!("l{n}")).exists(), "{n}");
    }
    allocation.release().await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn paths_too_long_for_the_newer_mount_interface_are_mounted_in_the_classic_way() {
    let scene = Scene::new();
    let folders = [
        scene.layer("upper", &[("f", "upper")]),
        scene.layer("base", &[("f", "base")]),
        scene.scratch(),
    ];
    // Longer than one value of fsconfig(2).
    let bundle = scene.path("images").join("x".repeat(200)).join("y".repeat(100));
    fs::create_dir_all(&bundle).unwrap();
    let driver = scene.driver();
    let plan = plan_of(&bundle, &folders);
    let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
    assert_eq!(fs::read_to_string(bundle.join("rootfs/f")).unwrap(), "upper");
    fs::write(bundle.join("rootfs/f"), "changed").unwrap();
    assert_eq!(
        fs::read_to_string(bundle.join("scratch/upper/f")).unwrap(),
        "changed"
    );
    allocation.release().await.unwrap();
    scene.assert_nothing_left();
    assert!(!scene.path("state/l").exists());
}

#[tokio::test]
async fn fifty_cycles_leave_nothing() {
    let scene = Scene::new();
    let base = scene.layer("base", &[("there", "t")]);
    let plan = scene.plan(&[base, scene.scratch()]);
    let driver = scene.driver();
    let start = Instant::now();
    for n in 0..50 {
        let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
        fs::write(scene.path("bundle/rootfs").join(format!("f{n}")), "").unwrap();
        allocation.release().await.unwrap();
    }
    println!("50 cycles in {:?}", start.elapsed());
    scene.assert_nothing_left();
    assert!(scene.replay().held.is_empty());
    assert!(driver.ledger().view().slots.is_empty());
}
