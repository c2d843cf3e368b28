//! Layers in the store: each once, and made once.

use std::{
    io::Read,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use cofferdam_archive::Digest;
use cofferdam_store::{LayerDocument, LayerProgress, StoreError, Variant, Watch};

use crate::recipe::{Blobs, Layer, Recipe, Scene, Unwatched, files_in, noise, tar_of};

fn ingest(
    scene: &Scene,
    recipe: &Recipe,
    source: &Blobs,
    variant: Variant,
    watch: &dyn Watch,
) -> Result<cofferdam_store::Image, StoreError> {
    let name = "app".parse().unwrap();
    scene
        .store
        .ingest(&name, &recipe.documents().unwrap(), variant, source, watch)
}

#[test]
fn layers_that_are_here_are_not_fetched_again() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let source = recipe.source();
    let first = recipe.ingest_from(&scene.store, "app", &source).unwrap();
    assert_eq!(source.opened().len(), 2);
    let again = recipe.ingest_from(&scene.store, "other:1", &source).unwrap();
    assert_eq!(source.opened().len(), 2, "no layer is opened the second time");
    assert_eq!(first.layers, again.layers);
    assert_eq!(again.names, ["app:latest", "other:1"]);
    scene.assert_whole(&["app:latest", "other:1"]);
}

#[test]
fn only_the_layer_that_is_new_is_fetched() {
    let scene = Scene::new();
    let base = Layer::plain("base", "the base").gzipped();
    Recipe::of(std::slice::from_ref(&base))
        .ingest(&scene.store, "base")
        .unwrap();
    let app = Recipe::of(&[base, Layer::plain("app", "the app")]);
    let source = app.source();
    let image = app.ingest_from(&scene.store, "app", &source).unwrap();
    assert_eq!(source.opened(), [app.layer_digest(1)]);
    assert_eq!(image.layers.len(), 2);
    scene.assert_whole(&["app:latest", "base:latest"]);
}

#[test]
fn the_layers_of_a_broken_image_that_were_finished_are_kept_for_the_next_try() {
    let scene = Scene::new();
    let mut recipe = Recipe::of(&[
        Layer::plain("a", "a"),
        Layer::plain("b", "b"),
        Layer::plain("c", "c"),
        Layer::plain("d", "d"),
    ]);
    let last = recipe.layer_digest(3);
    let whole = recipe.blobs.remove(&last).unwrap();
    recipe.ingest(&scene.store, "app").unwrap_err();
    scene.assert_whole(&[]);
    let kept = files_in(&scene.store.root().join("layers")).len();
    recipe.blobs.insert(last, whole);
    let source = recipe.source();
    recipe.ingest_from(&scene.store, "app", &source).unwrap();
    assert_eq!(source.opened().len(), 4 - kept);
    assert!(
        kept > 0,
        "at least the first was finished before the fourth began"
    );
}

#[test]
fn a_layer_that_comes_twice_is_there_once_and_where_it_came_last() {
    let scene = Scene::new();
    let (twice, between) = (Layer::plain("twice", "twice"), Layer::plain("between", "between"));
    let recipe = Recipe::of(&[twice.clone(), between.clone(), twice.clone()]);
    let image = recipe.ingest(&scene.store, "app").unwrap();
    let diff_ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
    assert_eq!(
        diff_ids,
        [Digest::of(&between.archive), Digest::of(&twice.archive)]
    );
    assert_eq!(files_in(&scene.store.root().join("layers")).len(), 2);
    scene.assert_whole(&["app:latest"]);
}

#[test]
fn layers_of_each_kind_are_kept_apart_and_the_name_stands_for_the_newest() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let source = recipe.source();
    let ext4 = ingest(&scene, &recipe, &source, Variant::default(), &Unwatched).unwrap();
    let verity = Variant {
        erofs: true,
        verity: true,
    };
    let erofs = ingest(&scene, &recipe, &source, verity, &Unwatched).unwrap();
    assert_eq!(source.opened().len(), 4);
    for (old, new) in ext4.layers.iter().zip(&erofs.layers) {
        assert_ne!(old.folder, new.folder);
        assert_eq!(old.diff_id, new.diff_id);
        assert_eq!(old.verity_root, None);
        assert_eq!(new.verity_root.as_ref().unwrap().len(), 64);
    }
    scene.assert_whole(&["app:latest"]);
    assert_eq!(scene.store.image("app").unwrap().variant, verity);
    let freed = scene.store.collect().unwrap();
    assert_eq!(freed.layers, 2, "those of ext4, which no name needs now");
    scene.assert_whole(&["app:latest"]);
}

#[test]
fn an_image_is_found_by_its_digests_and_their_starts() {
    let scene = Scene::new();
    let image = Recipe::small().ingest(&scene.store, "app").unwrap();
    for name in [
        "app",
        "app:latest",
        &image.id.to_string(),
        &image.manifest_digest.to_string(),
        &image.id.hex()[..12],
        &image.manifest_digest.hex()[..4],
    ] {
        let found = scene.store.image(name).unwrap();
        assert_eq!(found.id, image.id, "{name}");
    }
    for name in ["other", "app:2", &"0".repeat(64)] {
        let error = scene.store.image(name).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_name_with_a_digest_is_the_image_of_that_digest_under_any_tag() {
    let scene = Scene::new();
    let take = |name: &str| {
        let top = Layer::plain("top", name);
        Recipe::of(&[top]).ingest(&scene.store, name).unwrap()
    };
    let (old, new) = (take("registry.example/app:1"), take("registry.example/app:2"));
    for (name, image) in [
        (format!("registry.example/app@{}", old.manifest_digest), &old),
        (format!("registry.example/app:1@{}", old.manifest_digest), &old),
        (format!("registry.example/app:1@{}", new.manifest_digest), &new),
    ] {
        assert_eq!(scene.store.image(&name).unwrap().id, image.id, "{name}");
    }
    for name in [
        format!("registry.example/other@{}", old.manifest_digest),
        format!("app:1@{}", old.manifest_digest),
        format!("registry.example/app@{}", Digest::of(b"")),
    ] {
        let error = scene.store.image(&name).unwrap_err();
        assert!(matches!(error, StoreError::NotFound(_)), "{name}: {error}");
    }
}

/// Counts bytes, and may stop after some.
#[derive(Default)]
struct Counting {
    read: AtomicU64,
    stop_after: Option<u64>,
    seen: Mutex<Vec<(usize, LayerProgress)>>,
}

impl Watch for Counting {
    fn layer(&self, number: usize, _layer: &LayerDocument, progress: LayerProgress) {
        match progress {
            LayerProgress::Read(bytes) => drop(self.read.fetch_add(bytes, Ordering::Relaxed)),
            other => self.seen.lock().unwrap().push((number, other)),
        }
    }

    fn stopped(&self) -> bool {
        self.stop_after
            .is_some_and(|most| self.read.load(Ordering::Relaxed) >= most)
    }
}

fn large() -> Recipe {
    Recipe::of(&[Layer::of(tar_of(&[("noise", noise(5, 3 << 20))]))])
}

#[test]
fn whoever_watches_is_told_of_every_step_and_byte() {
    let scene = Scene::new();
    let recipe = large();
    let watch = Counting::default();
    ingest(&scene, &recipe, &recipe.source(), Variant::default(), &watch).unwrap();
    ingest(&scene, &recipe, &recipe.source(), Variant::default(), &watch).unwrap();
    assert_eq!(
        *watch.seen.lock().unwrap(),
        [
            (0, LayerProgress::Started),
            (0, LayerProgress::Made),
            (0, LayerProgress::Present)
        ]
    );
    let length = recipe.blobs[&recipe.layer_digest(0)].len() as u64;
    let read = watch.read.load(Ordering::Relaxed);
    assert_eq!(read, length, "every byte is told of, once");
}

#[test]
fn stopping_leaves_nothing() {
    let scene = Scene::new();
    let recipe = large();
    let watch = Counting {
        stop_after: Some(1),
        ..Counting::default()
    };
    let error = ingest(&scene, &recipe, &recipe.source(), Variant::default(), &watch).unwrap_err();
    assert!(matches!(error, StoreError::Stopped), "{error}");
    scene.assert_whole(&[]);
    assert_eq!(files_in(&scene.store.root().join("layers")), [""; 0]);
}

#[test]
fn a_layers_file_is_as_long_as_the_store_says() {
    let scene = Scene::new();
    let image = large().ingest(&scene.store, "app").unwrap();
    let layer = &image.layers[0];
    let path = layer.folder.join("layer.vhd");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), layer.file_bytes);
    assert!(layer.archive_bytes > 3 << 20);
    // A disk is told by the footer of a fixed VHD.
    let mut end = Vec::new();
    std::fs::File::open(&path).unwrap().read_to_end(&mut end).unwrap();
    assert_eq!(&end[end.len() - 512..][..8], b"conectix");
}

#[test]
fn a_layers_file_that_was_cut_is_found() {
    let scene = Scene::new();
    let image = Recipe::small().ingest(&scene.store, "app").unwrap();
    let path = image.layers[1].folder.join("layer.vhd");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(100)
        .unwrap();
    let problems = scene.store.check().unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].what, path.display().to_string());
}
