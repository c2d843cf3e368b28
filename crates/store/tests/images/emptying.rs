//! What goes with a name, and what stays.

use std::fs;

use cofferdam_store::Image;

use crate::recipe::{Layer, Recipe, Scene, files_in};

fn layer_folders(scene: &Scene) -> usize {
    files_in(&scene.store.root().join("layers")).len()
}

fn documents(scene: &Scene) -> usize {
    files_in(&scene.store.root().join("blobs/sha256")).len()
}

/// Two images above one base.
fn two_above_one(scene: &Scene) -> (Image, Image) {
    let base = Layer::plain("base", "the base").gzipped();
    let take = |name: &str| {
        Recipe::of(&[base.clone(), Layer::plain(name, name)])
            .ingest(&scene.store, name)
            .unwrap()
    };
    (take("one"), take("two"))
}

/// Writes something else where an image's manifest is.
fn spoil_manifest(scene: &Scene, image: &Image) {
    let blobs = scene.store.root().join("blobs/sha256");
    fs::write(blobs.join(image.manifest_digest.hex()), b"{}").unwrap();
}

#[test]
fn removing_an_image_frees_what_only_it_used() {
    let scene = Scene::new();
    let (one, two) = two_above_one(&scene);
    assert_eq!((layer_folders(&scene), documents(&scene)), (3, 4));
    let (names, freed) = scene.store.remove("one").unwrap();
    assert_eq!(names, ["one:latest"]);
    assert_eq!((freed.layers, freed.in_use, freed.postponed), (1, 0, false));
    assert_eq!(freed.bytes, one.layers[1].file_bytes);
    assert_eq!((layer_folders(&scene), documents(&scene)), (2, 2));
    scene.assert_whole(&["two:latest"]);
    assert!(
        two.layers
            .iter()
            .all(|layer| layer.folder.join("layer.vhd").exists())
    );
    scene.store.remove("two").unwrap();
    assert_eq!((layer_folders(&scene), documents(&scene)), (0, 0));
    scene.assert_whole(&[]);
}

#[test]
fn removing_one_of_two_names_frees_nothing_and_a_digest_removes_both() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    recipe.ingest(&scene.store, "app:1").unwrap();
    let image = recipe.ingest(&scene.store, "app:2").unwrap();
    let (_, freed) = scene.store.remove("app:1").unwrap();
    assert_eq!(freed.layers, 0);
    scene.assert_whole(&["app:2"]);
    recipe.ingest(&scene.store, "app:1").unwrap();
    let (names, freed) = scene.store.remove(&image.id.hex()[..12]).unwrap();
    assert_eq!(names, ["app:1", "app:2"]);
    assert_eq!(freed.layers, 2);
    scene.assert_whole(&[]);
}

#[test]
fn what_is_not_there_cannot_be_removed() {
    let scene = Scene::new();
    two_above_one(&scene);
    let error = scene.store.remove("three").unwrap_err().to_string();
    assert!(error.contains("three"), "{error}");
    scene.assert_whole(&["one:latest", "two:latest"]);
}

#[test]
fn layers_in_use_stay_until_their_last_user_is_gone() {
    let scene = Scene::new();
    let image = Recipe::small().ingest(&scene.store, "app").unwrap();
    let first = scene.store.lease(&image.layers).unwrap();
    let second = scene.store.lease(&image.layers[1..]).unwrap();
    let (_, freed) = scene.store.remove("app").unwrap();
    assert_eq!((freed.layers, freed.in_use), (0, 2));
    scene.assert_whole(&[]);
    assert!(
        image
            .layers
            .iter()
            .all(|layer| layer.folder.join("layer.vhd").exists())
    );
    drop(first);
    let freed = scene.store.collect().unwrap();
    assert_eq!((freed.layers, freed.in_use), (1, 1));
    assert!(!image.layers[0].folder.exists());
    assert!(image.layers[1].folder.join("layer.vhd").exists());
    drop(second);
    let freed = scene.store.collect().unwrap();
    assert_eq!((freed.layers, freed.in_use), (1, 0));
    assert_eq!(layer_folders(&scene), 0);
}

#[test]
fn a_layer_in_use_without_a_name_gets_one_again_without_being_fetched() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let image = recipe.ingest(&scene.store, "app").unwrap();
    let lease = scene.store.lease(&image.layers).unwrap();
    scene.store.remove("app").unwrap();
    let source = recipe.source();
    recipe.ingest_from(&scene.store, "app", &source).unwrap();
    assert_eq!(source.opened(), [""; 0]);
    drop(lease);
    assert_eq!(scene.store.collect().unwrap().layers, 0);
    scene.assert_whole(&["app:latest"]);
}

#[test]
fn what_was_thrown_away_cannot_be_taken_into_use() {
    let scene = Scene::new();
    let image = Recipe::small().ingest(&scene.store, "app").unwrap();
    scene.store.remove("app").unwrap();
    let error = scene.store.lease(&image.layers).unwrap_err().to_string();
    assert!(error.contains("lease"), "{error}");
}

#[test]
fn nothing_is_thrown_away_when_it_is_unknown_what_is_needed() {
    let scene = Scene::new();
    let (one, _) = two_above_one(&scene);
    spoil_manifest(&scene, &one);
    let error = scene.store.collect().unwrap_err().to_string();
    assert!(error.contains(&one.manifest_digest.hex()), "{error}");
    assert_eq!(layer_folders(&scene), 3);
    let problems = scene.store.check().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].what, "one:latest");
}

#[test]
fn a_broken_image_is_mended_by_taking_it_in_again() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let image = recipe.ingest(&scene.store, "app").unwrap();
    fs::remove_dir_all(&image.layers[0].folder).unwrap();
    let error = scene.store.image("app").unwrap_err().to_string();
    assert!(error.contains("pull or import it again"), "{error}");
    recipe.ingest(&scene.store, "app").unwrap();
    scene.assert_whole(&["app:latest"]);
    fs::write(
        scene.store.root().join("blobs/sha256").join(image.id.hex()),
        b"spoilt",
    )
    .unwrap();
    assert_eq!(scene.store.check().unwrap().len(), 1);
    recipe.ingest(&scene.store, "app").unwrap();
    scene.assert_whole(&["app:latest"]);
    for file in ["layer.vhd", "layer.json"] {
        fs::write(image.layers[1].folder.join(file), b"spoilt").unwrap();
        assert_eq!(scene.store.check().unwrap().len(), 1, "{file}");
        let source = recipe.source();
        recipe.ingest_from(&scene.store, "app", &source).unwrap();
        assert_eq!(source.opened(), [recipe.layer_digest(1)], "{file}");
        scene.assert_whole(&["app:latest"]);
    }
}

#[test]
fn an_image_that_is_broken_can_be_removed() {
    let scene = Scene::new();
    let (one, _) = two_above_one(&scene);
    spoil_manifest(&scene, &one);
    scene.store.remove("one").unwrap();
    scene.assert_whole(&["two:latest"]);
    assert_eq!(layer_folders(&scene), 2);
}

#[test]
fn what_a_killed_process_left_is_found_and_goes_with_the_next_call() {
    let scene = Scene::new();
    let ingest = scene.store.root().join("ingest");
    fs::create_dir_all(ingest.join("image-1/0")).unwrap();
    fs::write(ingest.join("image-1/0/layer.vhd"), b"half").unwrap();
    fs::write(ingest.join(".tmp1"), b"half").unwrap();
    assert_eq!(scene.store.check().unwrap().len(), 2);
    Recipe::small().ingest(&scene.store, "app").unwrap();
    scene.assert_whole(&["app:latest"]);
}
