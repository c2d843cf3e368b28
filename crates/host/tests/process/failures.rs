//! Every step that fails is undone, and a release that fails can be repeated.

use std::{fs, path::Path, process::Command};

use crate::scene::{Scene, succeed};

/// Allocates what must fail, and returns the error after having seen that nothing is left of it.
async fn refused(scene: &Scene, folders: &[std::path::PathBuf]) -> String {
    let driver = scene.driver();
    let error = scene.allocate(&driver, &scene.plan(folders)).await.err().unwrap();
    assert_eq!(scene.left(), Vec::<String>::new(), "{error}");
    assert!(driver.ledger().view().slots.is_empty(), "{error}");
    assert!(scene.replay().held.values().all(|(_, known)| !known), "{error}");
    error.to_string()
}

#[tokio::test]
async fn an_image_that_vanishes_between_plan_and_attachment_is_named_and_the_rest_undone() {
    let scene = Scene::new();
    let (upper, base) = (scene.layer("upper", &[]), scene.layer("base", &[]));
    let plan = scene.plan(&[upper, base.clone(), scene.scratch()]);
    let driver = scene.driver();
    fs::remove_file(base.join("layer.vhd")).unwrap();
    let error = scene.allocate(&driver, &plan).await.err().unwrap().to_string();
    assert!(
        error.contains(&format!("layer {}", base.join("layer.vhd").display())),
        "{error}"
    );
    assert!(error.contains("No such file"), "{error}");
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_layer_without_a_file_system_is_undone() {
    let scene = Scene::new();
    let base = scene.layer("base", &[]);
    let broken = scene.path("images/broken");
    fs::create_dir(&broken).unwrap();
    succeed(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on"])
            .arg(broken.join("layer.vhd"))
            .arg("4M"),
    );
    let error = refused(&scene, &[broken, base, scene.scratch()]).await;
    assert!(error.contains("no file system known"), "{error}");
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_scratch_without_a_file_system_is_undone() {
    let scene = Scene::new();
    let base = scene.layer("base", &[]);
    let scratch = scene.path("images/empty");
    fs::create_dir(&scratch).unwrap();
    let image = scratch.join("sandbox.vhdx");
    succeed(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "vhdx"])
            .arg(&image)
            .arg("4M"),
    );
    let error = refused(&scene, &[base, scratch]).await;
    assert!(error.contains("no file system known"), "{error}");
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_scratch_somebody_else_writes_to_is_undone() {
    let (scene, other) = (Scene::new(), Scene::new());
    let (base, scratch) = (scene.layer("base", &[]), other.scratch());
    other.attach(&scratch.join("sandbox.vhdx"), false).await.unwrap();
    let error = refused(&scene, &[base, scratch]).await;
    assert!(error.contains("Failed to get \"write\" lock"), "{error}");
    assert!(!error.contains("node-name"), "{error}");
    other.detach().await.unwrap();
    scene.assert_nothing_left();
    other.assert_nothing_left();
}

#[tokio::test]
async fn a_bundle_that_cannot_be_written_to_is_undone() {
    let scene = Scene::new();
    let (base, scratch) = (scene.layer("base", &[]), scene.scratch());
    let bundle = scene.path("bundle");
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "ro", "none"])
            .arg(&bundle),
    );
    let driver = scene.driver();
    let allocated = scene.allocate(&driver, &scene.plan(&[base, scratch])).await;
    succeed(Command::new("umount").arg(&bundle));
    let error = allocated.err().unwrap().to_string();
    assert!(error.contains("Read-only file system"), "{error}");
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_root_that_is_no_directory_is_undone_and_kept() {
    let scene = Scene::new();
    let (base, scratch) = (scene.layer("base", &[]), scene.scratch());
    let root = scene.path("bundle/rootfs");
    let elsewhere = scene.path("images/elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &root).unwrap();
    let error = refused(&scene, &[base.clone(), scratch.clone()]).await;
    assert!(
        error.contains("combined layers") && error.contains("no directory"),
        "{error}"
    );
    assert!(root.is_symlink());
    fs::remove_file(&root).unwrap();
    fs::write(&root, "kept").unwrap();
    refused(&scene, &[base, scratch]).await;
    assert_eq!(fs::read_to_string(&root).unwrap(), "kept");
}

#[tokio::test]
async fn a_root_in_use_is_kept_until_it_is_released_again() {
    let scene = Scene::new();
    let plan = scene.plan(&[scene.layer("base", &[("f", "f")]), scene.scratch()]);
    let driver = scene.driver();
    let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
    let open = fs::File::open(scene.path("bundle/rootfs/f")).unwrap();
    for _ in 0..2 {
        let error = allocation.release().await.unwrap_err().to_string();
        assert!(
            error.contains("combined layers") && error.contains("still uses it"),
            "{error}"
        );
    }
    assert!(!scene.replay().held.is_empty());
    drop(open);
    allocation.release().await.unwrap();
    scene.assert_nothing_left();
    assert!(scene.replay().held.is_empty());
}

#[tokio::test]
async fn a_scratch_in_use_is_kept_until_it_is_released_again() {
    let scene = Scene::new();
    let plan = scene.plan(&[scene.layer("base", &[]), scene.scratch()]);
    let driver = scene.driver();
    let mut allocation = scene.allocate(&driver, &plan).await.unwrap();
    let open = fs::File::open(scene.path("bundle/scratch")).unwrap();
    let error = allocation.release().await.unwrap_err().to_string();
    assert!(
        error.contains("scratch") && error.contains("still uses it"),
        "{error}"
    );
    assert!(
        !Path::new(&scene.path("bundle/rootfs")).exists(),
        "the rest is released"
    );
    drop(open);
    allocation.release().await.unwrap();
    scene.assert_nothing_left();
}
