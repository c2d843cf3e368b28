//! Images in files, in every form in which they come.

use std::{fs, path::Path};

use cofferdam_archive::Digest;
use cofferdam_store::{LocalImage, Platform, StoreError, Variant, open_local};
use serde_json::{Value, json};

use crate::recipe::{Layer, Recipe, Scene, Unwatched, gzipped, write_layout};

const NAME: &str = "org.opencontainers.image.ref.name";

fn open(path: &Path, name: Option<&str>) -> Result<LocalImage, StoreError> {
    open_local(path, name, &Platform::default())
}

/// Takes the file's image in and gives the contents' digests of its layers.
#[track_caller]
fn import(scene: &Scene, path: &Path, name: Option<&str>) -> Vec<Digest> {
    let local = open(path, name).unwrap();
    let reference = local.name.as_deref().unwrap_or("unnamed").parse().unwrap();
    let image = scene
        .store
        .ingest(
            &reference,
            &local.documents,
            Variant::default(),
            &*local.source,
            &Unwatched,
        )
        .unwrap();
    scene.assert_whole(&[&reference.to_string()]);
    image.layers.iter().map(|layer| layer.diff_id).collect()
}

fn layers(recipe: &Recipe) -> Vec<Digest> {
    let text = |id: &Value| id.as_str().unwrap().parse().unwrap();
    recipe.config["rootfs"]["diff_ids"]
        .as_array()
        .unwrap()
        .iter()
        .map(text)
        .collect()
}

/// How an index speaks of an image with a name.
fn named(recipe: &Recipe, name: &str) -> Value {
    let mut descriptor = recipe.descriptor();
    descriptor["annotations"] = json!({ NAME: name });
    descriptor
}

fn for_platform(recipe: &Recipe, os: &str, architecture: &str) -> Value {
    let mut descriptor = named(recipe, "many");
    descriptor["platform"] = json!({ "os": os, "architecture": architecture });
    descriptor
}

fn archive_of(directory: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", directory).unwrap();
    archive.into_inner().unwrap()
}

/// An archive as docker writes it, entry by entry.
struct Saved {
    archive: tar::Builder<Vec<u8>>,
    list: Vec<Value>,
}

impl Saved {
    fn new() -> Self {
        Self {
            archive: tar::Builder::new(Vec::new()),
            list: Vec::new(),
        }
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        self.archive.append_data(&mut header, name, bytes).unwrap();
    }

    fn link(&mut self, kind: tar::EntryType, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        self.archive.append_link(&mut header, name, target).unwrap();
    }

    /// An image, its layers in files of these names, which are written by whoever calls.
    fn image(&mut self, recipe: &Recipe, tags: &[&str], layers: &[&str]) {
        let config = recipe.config.to_string();
        let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
        self.file(&name, config.as_bytes());
        self.list
            .push(json!({ "Config": name, "RepoTags": tags, "Layers": layers }));
    }

    fn finish(mut self) -> Vec<u8> {
        let list = Value::from(std::mem::take(&mut self.list)).to_string();
        self.file("manifest.json", list.as_bytes());
        self.archive.into_inner().unwrap()
    }
}

/// The small image as docker saves it; `compressed` layers are what some tools write.
fn saved_small(compressed: bool) -> Vec<u8> {
    let mut saved = Saved::new();
    for (name, content) in [("base", "the base"), ("top", "the top")] {
        let layer = Layer::plain(name, content);
        let layer = if compressed { layer.gzipped() } else { layer };
        saved.file(&format!("{name}/layer.tar"), &layer.blob);
    }
    saved.image(
        &Recipe::small(),
        &["small:1"],
        &["base/layer.tar", "top/layer.tar"],
    );
    saved.finish()
}

#[test]
fn an_image_layout_is_taken_from_a_directory_and_from_archives_of_it() {
    let recipe = Recipe::small();
    let layout = tempfile::tempdir().unwrap();
    write_layout(layout.path(), &[(&recipe, named(&recipe, "small:1"))]);
    let expected = recipe.documents().unwrap().manifest_digest();
    for form in ["directory", "tar", "tar.gz"] {
        let scene = Scene::new();
        let path = scene.dir.path().join("archive");
        match form {
            "tar" => fs::write(&path, archive_of(layout.path())).unwrap(),
            "tar.gz" => fs::write(&path, gzipped(&archive_of(layout.path()))).unwrap(),
            _ => write_layout(&path_made(&path), &[(&recipe, named(&recipe, "small:1"))]),
        }
        assert_eq!(import(&scene, &path, None), layers(&recipe), "{form}");
        let image = scene.store.image("small:1").unwrap();
        assert_eq!(image.manifest_digest, expected, "{form}");
    }
}

fn path_made(path: &Path) -> std::path::PathBuf {
    fs::create_dir(path).unwrap();
    path.to_owned()
}

#[test]
fn what_docker_saves_is_taken_plain_and_compressed() {
    let plain = saved_small(false);
    for (form, bytes) in [
        ("plain", plain.clone()),
        ("gzip", gzipped(&plain)),
        ("compressed layers", saved_small(true)),
    ] {
        let scene = Scene::new();
        let path = scene.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        assert_eq!(import(&scene, &path, None), layers(&Recipe::small()), "{form}");
        let image = scene.store.image("small:1").unwrap();
        let config = Recipe::small().config.to_string();
        assert_eq!(image.id, Digest::of(config.as_bytes()), "{form}");
    }
}

#[test]
fn layers_that_are_links_to_earlier_ones_are_taken() {
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
        let scene = Scene::new();
        let base = Layer::plain("base", "the base");
        let top = Layer::plain("top", "the top");
        let recipe = Recipe::of(&[base.clone(), top.clone(), base.clone()]);
        let mut saved = Saved::new();
        saved.file("0a/layer.tar", &base.blob);
        saved.file("0b/layer.tar", &top.blob);
        // Old docker: a symbolic link is relative to its directory; tar's hard links start at the root.
        let target = if kind.is_symlink() {
            "../0a/layer.tar"
        } else {
            "0a/layer.tar"
        };
        saved.link(kind, "0c/layer.tar", target);
        saved.image(&recipe, &[], &["0a/layer.tar", "0b/layer.tar", "0c/layer.tar"]);
        let path = scene.dir.path().join("archive");
        fs::write(&path, saved.finish()).unwrap();
        let found = import(&scene, &path, None);
        assert_eq!(found, [Digest::of(&top.archive), Digest::of(&base.archive)]);
    }
}

#[test]
fn links_in_a_circle_or_to_nothing_are_a_missing_layer() {
    for (target, length) in [
        ("../0a/layer.tar", 1),
        ("../../../etc/passwd", 1),
        ("/etc/passwd", 1),
    ] {
        let scene = Scene::new();
        let recipe = Recipe::of(&[Layer::plain("base", "the base")]);
        let mut saved = Saved::new();
        saved.link(tar::EntryType::Symlink, "0a/layer.tar", target);
        saved.image(&recipe, &["circle:1"], &["0a/layer.tar"]);
        let path = scene.dir.path().join("archive");
        fs::write(&path, saved.finish()).unwrap();
        let local = open(&path, None).unwrap();
        let name = "circle:1".parse().unwrap();
        let error = scene
            .store
            .ingest(
                &name,
                &local.documents,
                Variant::default(),
                &*local.source,
                &Unwatched,
            )
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("layer 1 of {length}")), "{error}");
        assert!(error.contains("0a/layer.tar"), "{error}");
        scene.assert_whole(&[]);
    }
}

#[test]
fn of_several_images_in_one_archive_one_has_to_be_named() {
    let scene = Scene::new();
    let (one, two) = (Layer::plain("one", "1"), Layer::plain("two", "2"));
    let mut saved = Saved::new();
    saved.file("1/layer.tar", &one.blob);
    saved.file("2/layer.tar", &two.blob);
    saved.image(
        &Recipe::of(std::slice::from_ref(&one)),
        &["first:1", "first:latest"],
        &["1/layer.tar"],
    );
    saved.image(
        &Recipe::of(std::slice::from_ref(&two)),
        &["second:1"],
        &["2/layer.tar"],
    );
    let path = scene.dir.path().join("archive");
    fs::write(&path, saved.finish()).unwrap();
    several(&path, &["first:1", "first:latest", "second:1"]);
    assert_eq!(
        import(&scene, &path, Some("second:1")),
        [Digest::of(&two.archive)]
    );
}

#[track_caller]
fn several(path: &Path, names: &[&str]) {
    let error = open(path, None).unwrap_err().to_string();
    for name in names {
        assert!(error.contains(name), "{error}");
    }
    assert!(error.contains("--image"), "{error}");
    let missing = open(path, Some("third:1")).unwrap_err().to_string();
    assert!(missing.contains("third:1"), "{missing}");
}

#[test]
fn of_several_images_in_one_layout_one_has_to_be_named() {
    let scene = Scene::new();
    let (one, two) = (
        Recipe::of(&[Layer::plain("one", "1")]),
        Recipe::of(&[Layer::plain("two", "2")]),
    );
    let path = path_made(&scene.dir.path().join("layout"));
    write_layout(
        &path,
        &[(&one, named(&one, "first:1")), (&two, named(&two, "second:1"))],
    );
    several(&path, &["first:1", "second:1"]);
    assert_eq!(import(&scene, &path, Some("second:1")), layers(&two));
}

#[test]
fn the_image_of_this_platform_is_taken_from_an_index() {
    let scene = Scene::new();
    let host = Platform::default();
    let wanted = Recipe::small();
    let other = Recipe::of(&[Layer::plain("other", "other")]);
    let path = path_made(&scene.dir.path().join("layout"));
    let all = [
        (&other, for_platform(&other, "windows", &host.architecture)),
        (&other, for_platform(&other, "linux", "s390x")),
        (&wanted, for_platform(&wanted, "linux", &host.architecture)),
        (&other, for_platform(&other, "unknown", "unknown")),
    ];
    write_layout(&path, &all);
    assert_eq!(import(&scene, &path, None), layers(&wanted));
    let chosen = open_local(&path, None, &"linux/s390x".parse().unwrap()).unwrap();
    assert_eq!(chosen.documents.layers().len(), 1);
    let error = open_local(&path, None, &"linux/riscv64".parse().unwrap())
        .unwrap_err()
        .to_string();
    for part in ["linux/riscv64", "linux/s390x", &host.to_string()] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_saved_image_for_another_machine_has_to_be_asked_for() {
    let scene = Scene::new();
    let mut recipe = Recipe::small();
    recipe.config["architecture"] = json!("s390x");
    let mut saved = Saved::new();
    saved.file("base.tar", &Layer::plain("base", "the base").blob);
    saved.file("top.tar", &Layer::plain("top", "the top").blob);
    saved.image(&recipe, &["small:1"], &["base.tar", "top.tar"]);
    let path = scene.dir.path().join("small.tar");
    fs::write(&path, saved.finish()).unwrap();
    let error = open(&path, None).unwrap_err();
    assert!(matches!(error, StoreError::Platform { .. }), "{error}");
    let there = open_local(&path, None, &"linux/s390x".parse().unwrap()).unwrap();
    assert_eq!(there.documents.layers().len(), 2);
}

#[test]
fn an_index_in_a_layouts_index_is_followed() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let host = Platform::default();
    let path = path_made(&scene.dir.path().join("layout"));
    let inner = json!({
        "schemaVersion": 2,
        "manifests": [for_platform(&recipe, "linux", &host.architecture)],
    })
    .to_string();
    let digest = Digest::of(inner.as_bytes());
    let outer = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest.to_string(),
        "size": inner.len(),
        "annotations": { NAME: "nested:1" },
    });
    write_layout(&path, &[(&recipe, outer)]);
    fs::write(path.join("blobs/sha256").join(digest.hex()), inner).unwrap();
    assert_eq!(import(&scene, &path, None), layers(&recipe));
}

#[test]
fn a_layouts_manifest_of_another_digest_is_refused() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let path = path_made(&scene.dir.path().join("layout"));
    write_layout(&path, &[(&recipe, recipe.descriptor())]);
    let digest = recipe.documents().unwrap().manifest_digest();
    let manifest = path.join("blobs/sha256").join(digest.hex());
    let spoilt = recipe.manifest.to_string() + " ";
    fs::write(&manifest, spoilt).unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.contains(&digest.to_string()), "{error}");
    fs::remove_file(&manifest).unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.contains(&digest.hex()), "{error}");
}

#[test]
fn a_document_of_an_archive_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["index.json", "manifest.json"] {
        let mut saved = Saved::new();
        saved.file(name, &vec![b' '; (4 << 20) + 1]);
        let path = dir.path().join(name);
        fs::write(&path, saved.archive.into_inner().unwrap()).unwrap();
        let error = open(&path, None).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("at most"), "{error}");
    }
}

#[test]
fn what_holds_no_image_is_said_to_hold_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, Layer::plain("etc/passwd", "root").blob).unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(
        error.contains("index.json") && error.contains("docker save"),
        "{error}"
    );
    fs::write(&path, b"a text that is no archive").unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    let error = open(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("oci-layout"), "{error}");
    let error = open(&dir.path().join("absent"), None).unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
}

#[test]
fn a_saved_image_whose_layers_are_not_those_of_its_configuration_is_refused() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let mut saved = Saved::new();
    saved.file("1/layer.tar", &Layer::plain("base", "the base").blob);
    saved.image(&recipe, &["small:1"], &["1/layer.tar"]);
    let path = scene.dir.path().join("archive");
    fs::write(&path, saved.finish()).unwrap();
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.contains("1 layers") && error.contains('2'), "{error}");
}

#[test]
fn a_layouts_document_larger_than_memory_is_read_to_the_limit_only() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let documents = recipe.documents().unwrap();
    let path = path_made(&scene.dir.path().join("layout"));
    for digest in [
        documents.manifest_digest(),
        Digest::of(recipe.config.to_string().as_bytes()),
    ] {
        write_layout(&path, &[(&recipe, recipe.descriptor())]);
        let file = fs::File::create(path.join("blobs/sha256").join(digest.hex())).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = open(&path, None).unwrap_err().to_string();
        assert!(
            error.contains(&digest.hex()) && error.contains("at most"),
            "{error}"
        );
    }
}

#[test]
fn an_archive_with_a_layout_and_dockers_list_keeps_the_digest_of_its_manifest() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let path = path_made(&scene.dir.path().join("layout"));
    write_layout(&path, &[(&recipe, named(&recipe, "small:1"))]);
    // Docker writes both since version 25; the list names the layout's blobs.
    let blob = |digest: &str| format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
    let config = recipe.manifest["config"]["digest"].as_str().unwrap();
    let list = json!([{
        "Config": blob(config),
        "RepoTags": ["small:1"],
        "Layers": [blob(&recipe.layer_digest(0)), blob(&recipe.layer_digest(1))],
    }]);
    fs::write(path.join("manifest.json"), list.to_string()).unwrap();
    let file = scene.dir.path().join("archive");
    fs::write(&file, archive_of(&path)).unwrap();
    assert_eq!(import(&scene, &file, None), layers(&recipe));
    let expected = recipe.documents().unwrap().manifest_digest();
    assert_eq!(scene.store.image("small:1").unwrap().manifest_digest, expected);
    // By the list alone it is the same layers, compressed as they are there.
    fs::remove_file(path.join("index.json")).unwrap();
    fs::write(&file, archive_of(&path)).unwrap();
    let alone = Scene::new();
    assert_eq!(import(&alone, &file, None), layers(&recipe));
}

#[test]
fn an_archive_that_ends_too_early_is_refused_by_name() {
    let scene = Scene::new();
    let path = scene.dir.path().join("archive");
    let whole = saved_small(false);
    for length in [whole.len() / 4, whole.len() / 2] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(&path, None).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{length}: {error}");
    }
}
