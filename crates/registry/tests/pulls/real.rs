//! Pulls from a registry that others use too.

use std::{fs, path::PathBuf};

use cofferdam_registry::{Credentials, Options, RegistryError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::{
    debian::Registry,
    fake::plain,
    image::TestImage,
    scene::{Failure, Scene},
};

/// A line of `htpasswd`, as bcrypt of cost 5: the user `tests` with the password `only-for-tests`.
const USERS: &str = "tests:$2b$05$abcdefghijklmnopqrstuuDt8u8tY.Zm8YU.pieFNyF5h5afvnc0a\n";

/// A directory with the image in a registry's files.
fn filled(image: &TestImage) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::plain(dir.path());
    registry.push(image);
    registry.stop();
    dir
}

fn credentials(text: &str) -> Options {
    Options {
        credentials: Credentials::of_text(text),
        ..plain()
    }
}

#[test]
fn an_image_is_pulled_by_anybody_by_tag_digest_and_index() {
    let image = TestImage::new();
    let dir = filled(&image);
    let registry = Registry::plain(dir.path());
    for suffix in [":1", ":many", &format!("@{}", image.digest())] {
        let name = registry.name(suffix);
        Scene::new().pulled(&name, &plain(), &image);
        // A registry on this host need not have TLS, as with docker.
        Scene::new().pulled(&name, &Options::default(), &image);
    }
    for suffix in [":2", "/other:1"] {
        let name = registry.name(suffix);
        Scene::new().refused(&name, &plain(), &[&name, "no such image"]);
    }
}

#[test]
fn a_second_pull_fetches_no_layer() {
    let image = TestImage::new();
    let dir = filled(&image);
    let registry = Registry::plain(dir.path());
    let scene = Scene::new();
    scene.pulled(&registry.name(":1"), &plain(), &image);
    fs::remove_dir_all(blob_of(&registry, &image.large)).unwrap();
    scene.pulled(&registry.name(":many"), &plain(), &image);
    // It is really gone.
    Scene::new().refused(&registry.name(":1"), &plain(), &["layer 2 of 2", &image.large]);
}

/// Where the registry has a blob.
fn blob_of(registry: &Registry, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blobs = "data/docker/registry/v2/blobs/sha256";
    registry.dir.join(blobs).join(&hex[..2]).join(hex)
}

#[test]
fn a_layer_that_is_spoilt_in_the_registry_is_refused() {
    let image = TestImage::new();
    let dir = filled(&image);
    let registry = Registry::plain(dir.path());
    let data = blob_of(&registry, &image.large).join("data");
    let mut bytes = fs::read(&data).unwrap();
    assert_eq!(bytes, image.large());
    bytes[500_000] ^= 0x80;
    fs::write(&data, &bytes).unwrap();
    let scene = Scene::new();
    scene.refused(&registry.name(":1"), &plain(), &["layer 2 of 2", &image.large]);
    fs::write(&data, image.large()).unwrap();
    scene.pulled(&registry.name(":1"), &plain(), &image);
}

#[test]
fn a_registry_with_users_shows_an_image_to_them_only() {
    let image = TestImage::new();
    let dir = filled(&image);
    let registry = Registry::with_users(dir.path(), USERS);
    let name = registry.name(":1");
    Scene::new().pulled(&name, &credentials("tests:only-for-tests"), &image);
    for options in [
        plain(),
        credentials("tests:another-password"),
        credentials("nobody:only-for-tests"),
    ] {
        let host = registry.address.to_string();
        let failure = Scene::new().refused(&name, &options, &[&name, &host, "docker login", "--creds"]);
        assert!(
            matches!(failure, Failure::Documents(RegistryError::Unauthorized { .. })),
            "{failure:?}"
        );
        assert!(!failure.to_string().contains("another-password"), "{failure}");
    }
}

/// An authority's certificate, and one it gave to this host with the key of it.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    (authority, certificate.pem(), key.serialize_pem())
}

#[test]
fn a_registry_with_tls_is_trusted_with_its_authority_only() {
    let image = TestImage::new();
    let dir = filled(&image);
    let (authority, certificate, key) = certificates();
    let registry = Registry::with_tls(dir.path(), &certificate, &key);
    let (ours, theirs) = (dir.path().join("authority.pem"), dir.path().join("other.pem"));
    fs::write(&ours, authority).unwrap();
    fs::write(&theirs, certificates().0).unwrap();
    let options = |authorities: &[&PathBuf]| Options {
        authorities: authorities.iter().map(|&path| path.clone()).collect(),
        ..Options::default()
    };
    let localhost = format!("localhost:{}/tests/image:1", registry.address.port());
    for name in [registry.name(":1"), localhost] {
        Scene::new().pulled(&name, &options(&[&theirs, &ours]), &image);
        for authorities in [&[][..], &[&theirs]] {
            Scene::new().refused(&name, &options(authorities), &[&name, "certificate"]);
        }
    }
}

#[test]
fn an_authority_that_is_no_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("authority.pem");
    let options = Options {
        authorities: vec![path.clone()],
        ..Options::default()
    };
    let shown = path.to_str().unwrap();
    Scene::new().refused("127.0.0.1:1/image", &options, &[shown, "No such file"]);
    for text in [
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        fs::write(&path, text).unwrap();
        Scene::new().refused("127.0.0.1:1/image", &options, &["ertificate"]);
    }
}
