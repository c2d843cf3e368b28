//! Images that lie or are broken: refused with a message that names the document or layer, and nothing is left of them.

use cofferdam_archive::Digest;
use cofferdam_store::Platform;
use serde_json::json;

use crate::recipe::{Layer, Recipe, Scene, gzipped, noise, tar_of};

/// Fails unless the image is refused with a message that has these parts, the store stays whole and takes a good image
/// afterwards.
#[track_caller]
fn refused(recipe: &Recipe, parts: &[&str]) {
    let scene = Scene::new();
    let error = recipe.ingest(&scene.store, "bad").unwrap_err().to_string();
    said(&error, parts);
    scene.assert_whole(&[]);
    Recipe::small().ingest(&scene.store, "good").unwrap();
    scene.assert_whole(&["good:latest"]);
    scene.store.remove("good").unwrap();
    assert_eq!(
        crate::recipe::files_in(&scene.store.root().join("layers")),
        [""; 0]
    );
}

#[track_caller]
fn said(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(error.len() < 1000, "a message of {} bytes", error.len());
}

/// The small image with other bytes where its second layer is.
fn with_top(blob: Vec<u8>) -> Recipe {
    let mut recipe = Recipe::small();
    let digest = recipe.layer_digest(1);
    recipe.blobs.insert(digest, blob);
    recipe
}

#[test]
fn a_manifest_that_is_too_large_is_refused() {
    let mut recipe = Recipe::small();
    recipe.manifest["annotations"] = json!({ "a": "a".repeat(5 << 20) });
    refused(&recipe, &["manifest of test", "documents have at most 4194304"]);
}

#[test]
fn a_configuration_that_is_too_large_is_not_even_fetched() {
    let mut recipe = Recipe::small();
    recipe.manifest["config"]["size"] = json!(5_u64 << 30);
    // It would be a panic of the test's own to fetch it.
    recipe
        .blobs
        .remove(recipe.manifest["config"]["digest"].as_str().unwrap());
    refused(&recipe, &["configuration of test", "documents have at most"]);
}

#[test]
fn a_manifest_that_is_not_what_its_index_says_is_refused() {
    let recipe = Recipe::small();
    let mut index = json!({ "schemaVersion": 2, "manifests": [recipe.descriptor()] });
    let wanted = Digest::of(b"another");
    index["manifests"][0]["digest"] = json!(wanted.to_string());
    let mut recipe = recipe;
    recipe
        .blobs
        .insert(wanted.to_string(), recipe.manifest.to_string().into());
    let error = recipe.documents_from(index.to_string().into()).unwrap_err();
    said(
        &error.to_string(),
        &["manifest of test for linux/", "digest", &wanted.to_string()],
    );
}

#[test]
fn a_configuration_that_is_not_what_the_manifest_says_is_refused() {
    let mut recipe = Recipe::small();
    let digest = recipe.manifest["config"]["digest"].as_str().unwrap().to_owned();
    recipe.blobs.insert(digest.clone(), b"{}".to_vec());
    refused(&recipe, &["configuration of test", &digest]);
}

#[test]
fn a_layer_that_is_not_what_the_manifest_says_is_refused() {
    let same_length = tar_of(&[("top", "the pot")]);
    assert_eq!(
        same_length.len(),
        Recipe::small().blobs[&Recipe::small().layer_digest(1)].len()
    );
    let recipe = with_top(same_length);
    refused(&recipe, &["layer 2 of 2", "digest", &recipe.layer_digest(1)]);
}

#[test]
fn a_layer_whose_archive_is_not_what_the_configuration_says_is_refused() {
    let mut recipe = Recipe::small();
    let wanted = Digest::of(b"another").to_string();
    recipe.config["rootfs"]["diff_ids"][0] = json!(wanted);
    refused(&recipe.sealed(), &["layer 1 of 2", "digest", &wanted]);
}

#[test]
fn a_configuration_with_more_layers_than_the_manifest_is_refused() {
    let mut recipe = Recipe::small();
    let more = json!(Digest::of(b"more").to_string());
    recipe.config["rootfs"]["diff_ids"]
        .as_array_mut()
        .unwrap()
        .push(more);
    refused(
        &recipe.sealed(),
        &["configuration of test", "it has 3 layers, and the manifest 2"],
    );
}

#[test]
fn an_image_without_layers_is_refused() {
    refused(&Recipe::of(&[]), &["configuration of test", "0 layers"]);
}

#[test]
fn an_image_of_more_layers_than_can_be_run_is_refused() {
    let layers: Vec<_> = (0..501)
        .map(|number| Layer::plain("number", &number.to_string()))
        .collect();
    refused(&Recipe::of(&layers), &["501 layers", "500"]);
}

#[test]
fn a_layer_that_registries_do_not_hold_is_refused() {
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let mut recipe = Recipe::small();
        recipe.manifest["layers"][0]["mediaType"] = json!(media_type);
        refused(&recipe, &["test", media_type]);
    }
}

#[test]
fn a_manifest_of_schema_1_is_refused() {
    let mut recipe = Recipe::small();
    recipe.manifest = json!({ "schemaVersion": 1, "name": "test", "fsLayers": [] });
    refused(&recipe, &["manifest of test", "schema 1"]);
}

#[test]
fn digests_of_another_algorithm_are_refused() {
    let sha512 = json!(format!("sha512:{}", "0".repeat(128)));
    let mut config = Recipe::small();
    config.manifest["config"]["digest"] = sha512.clone();
    refused(&config, &["test", "`sha512:0"]);
    let mut layer = Recipe::small();
    layer.manifest["layers"][1]["digest"] = sha512.clone();
    refused(&layer, &["test", "`sha512:0"]);
    let mut diff_id = Recipe::small();
    diff_id.config["rootfs"]["diff_ids"][1] = sha512;
    refused(&diff_id.sealed(), &["test", "`sha512:0"]);
}

#[test]
fn digests_that_are_paths_are_refused() {
    let mut recipe = Recipe::small();
    recipe.config["rootfs"]["diff_ids"][0] = json!("sha256:../../../../etc");
    refused(&recipe.sealed(), &["test"]);
}

#[test]
fn documents_that_are_none_are_refused() {
    let recipe = Recipe::small();
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"schemaVersion":2}"#,
        r#"{"manifests":7}"#,
    ] {
        let error = recipe.documents_from(text.into()).unwrap_err();
        said(&error.to_string(), &["test"]);
    }
    let mut indexes = json!({ "schemaVersion": 2, "manifests": [] });
    let mut recipe = recipe;
    for _ in 0..4 {
        let inner = indexes.to_string();
        let digest = Digest::of(inner.as_bytes()).to_string();
        indexes = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": inner.len(),
        }]});
        recipe.blobs.insert(digest, inner.into());
    }
    let error = recipe.documents_from(indexes.to_string().into()).unwrap_err();
    said(&error.to_string(), &["test", "index"]);
}

#[test]
fn a_layer_that_ends_too_early_is_refused() {
    let whole = Recipe::small().blobs[&Recipe::small().layer_digest(1)].clone();
    for length in [0, 1, 511, 512, 515, 600, 1024, whole.len() - 1] {
        let recipe = with_top(whole[..length].to_vec());
        refused(&recipe, &["layer 2 of 2"]);
    }
}

#[test]
fn a_compressed_layer_that_ends_too_early_is_refused() {
    let mut recipe = Recipe::of(&[Layer::of(tar_of(&[("noise", noise(1, 300_000))])).gzipped()]);
    let digest = recipe.layer_digest(0);
    let whole = recipe.blobs[&digest].clone();
    for length in [1, 9, 1000, 200_000, whole.len() - 1] {
        recipe.blobs.insert(digest.clone(), whole[..length].to_vec());
        refused(&recipe, &["layer 1 of 1", &digest]);
    }
}

#[test]
fn a_layer_that_goes_on_after_its_end_is_refused() {
    let whole = Recipe::small().blobs[&Recipe::small().layer_digest(1)].clone();
    for more in [1, 512, 3_000_000] {
        let longer = [&whole[..], &vec![0; more]].concat();
        refused(
            &with_top(longer),
            &["layer 2 of 2", "longer than its manifest says"],
        );
    }
}

#[test]
fn a_layer_that_is_no_archive_is_refused() {
    for content in [
        noise(7, 10_000),
        b"<html>not found</html>".to_vec(),
        vec![b'a'; 2048],
    ] {
        let recipe = Recipe::of(&[Layer::plain("base", "the base"), Layer::of(content)]);
        refused(&recipe, &["layer 2 of 2", &recipe.layer_digest(1)]);
    }
    let other = Recipe::of(&[Layer::of(b"BZh91AY&SY0000000000000".repeat(40))]);
    refused(&other, &["layer 1 of 1", &other.layer_digest(0), "bzip2"]);
    let inside = Recipe::of(&[Layer::of(gzipped(b"a text")).gzipped()]);
    refused(&inside, &["layer 1 of 1"]);
}

#[test]
fn a_layer_with_a_name_outside_of_the_root_is_refused() {
    for name in ["../escaped", "a/../../escaped"] {
        let recipe = Recipe::of(&[Layer::of(tar_of(&[(name, "outside")]))]);
        refused(&recipe, &["layer 1 of 1", ".."]);
    }
}

#[test]
fn a_layer_that_cannot_be_had_is_named() {
    let mut recipe = Recipe::small();
    let digest = recipe.layer_digest(1);
    recipe.blobs.remove(&digest);
    refused(&recipe, &["layer 2 of 2", &digest]);
}

#[test]
fn a_name_keeps_its_image_when_a_new_one_is_refused() {
    let scene = Scene::new();
    let good = Recipe::small().ingest(&scene.store, "app:1").unwrap();
    let bad = Recipe::of(&[Layer::of(noise(3, 4096))]);
    bad.ingest(&scene.store, "app:1").unwrap_err();
    scene.assert_whole(&["app:1"]);
    let kept = scene.store.image("app:1").unwrap();
    assert_eq!(kept.manifest_digest, good.manifest_digest);
}

#[test]
fn an_image_for_another_machine_is_refused_before_a_layer_is_fetched() {
    let wanted = Platform::default().to_string();
    for (key, value, there) in [
        ("architecture", "s390x", "linux/s390x"),
        ("os", "windows", "windows/"),
    ] {
        let mut recipe = Recipe::small();
        recipe.config[key] = json!(value);
        refused(&recipe.clone().sealed(), &[there, &wanted, "--platform"]);
        // Old builders left both empty.
        recipe.config[key] = json!("");
        recipe.sealed().ingest(&Scene::new().store, "old").unwrap();
    }
}

#[test]
fn a_layer_with_the_right_archive_in_another_wrapping_is_refused() {
    let mut recipe = Recipe::small();
    let digest = recipe.layer_digest(0);
    // The stamp in gzip's header, which decompressors pass over.
    recipe.blobs.get_mut(&digest).unwrap()[4] ^= 1;
    let found = Digest::of(&recipe.blobs[&digest]).to_string();
    refused(&recipe, &["layer 1 of 2", &digest, &found]);
}

#[test]
fn documents_nested_without_end_are_refused() {
    let recipe = Recipe::small();
    for text in ["[".repeat(1 << 20), r#"{"manifests":"#.repeat(1 << 17)] {
        let error = recipe.documents_from(text.into()).unwrap_err();
        said(&error.to_string(), &["test", "recursion limit"]);
    }
}
