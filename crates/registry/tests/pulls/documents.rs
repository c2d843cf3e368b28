//! Documents that a registry does not have, or that are not what was asked for.

use std::{collections::BTreeMap, net::TcpListener, sync::Mutex};

use cofferdam_archive::Digest;
use cofferdam_registry::{Options, RegistryError, Remote};
use cofferdam_store::Platform;

use crate::{
    fake::{Fake, Reply, plain},
    image::{INDEX, MANIFEST, TestImage},
    scene::{Failure, Scene},
};

#[test]
fn an_image_is_pulled_by_its_digest() {
    let image = TestImage::new();
    let there = image.clone();
    let fake = Fake::new(move |request| there.answer(request));
    Scene::new().pulled(&fake.name(&format!("@{}", image.digest())), &plain(), &image);
}

#[test]
fn a_manifest_of_another_digest_than_was_asked_for_is_refused() {
    let image = TestImage::new();
    let wanted = Digest::of(b"another").to_string();
    let there = image.clone();
    let fake = Fake::new(move |request| match request.path.contains("/manifests/") {
        true => Reply::new(200, there.manifest.clone()).header("Content-Type", MANIFEST),
        false => there.answer(request),
    });
    Scene::new().refused(
        &fake.name(&format!("@{wanted}")),
        &plain(),
        &[&wanted, &image.digest()],
    );
}

#[test]
fn a_manifest_of_another_digest_than_its_index_says_is_refused() {
    let image = TestImage::new();
    let there = image.clone();
    let fake = Fake::new(move |request| {
        if request.path.ends_with("/manifests/1") {
            Reply::new(200, there.index()).header("Content-Type", INDEX)
        } else if request.path.contains("/manifests/") {
            let spoilt = [&there.manifest[..], b" "].concat();
            Reply::new(200, spoilt).header("Content-Type", MANIFEST)
        } else {
            there.answer(request)
        }
    });
    Scene::new().refused(&fake.name(":1"), &plain(), &[&image.digest()]);
}

#[test]
fn an_image_that_is_not_there_is_said_not_to_be() {
    let image = TestImage::new();
    let fake = Fake::new(move |request| image.answer(request));
    let failure = Scene::new().refused(&fake.name(":2"), &plain(), &["some/image:2", "no such image"]);
    assert!(
        matches!(failure, Failure::Documents(RegistryError::NotFound(_))),
        "{failure:?}"
    );
}

#[test]
fn documents_of_a_registry_that_is_busy_for_a_while_are_asked_for_again() {
    let image = TestImage::new();
    let there = image.clone();
    let asked = Mutex::new(BTreeMap::<String, usize>::new());
    let fake = Fake::new(move |request| {
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(request.path.clone()).or_default();
        *times += 1;
        let document = request.is_for("/1") || request.is_for(&there.config);
        if document && *times < 3 {
            return Reply::new(503, "busy");
        }
        there.answer(request)
    });
    Scene::new().pulled(&fake.name(":1"), &plain(), &image);
    assert_eq!(fake.requests_for(&image.config).len(), 3);
}

#[test]
fn what_is_no_registry_is_said_to_be_none() {
    let fake = Fake::new(|_| Reply::new(200, "<html>welcome</html>"));
    Scene::new().refused(&fake.name(":1"), &plain(), &["some/image:1", "manifest"]);
    let fake = Fake::new(|_| Reply::new(500, "out of order"));
    Scene::new().refused(
        &fake.name(":1"),
        &plain(),
        &["some/image:1", "500", "out of order"],
    );
}

#[test]
fn a_registry_that_nobody_runs_is_said_not_to_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for options in [plain(), Options::default()] {
        let name = format!("{address}/some/image:1");
        Scene::new().refused(&name, &options, &[&name, "Connection refused"]);
    }
}

#[test]
fn a_name_without_a_registry_asks_nobody() {
    let error = Remote::open(
        &"some/image".parse().unwrap(),
        &Platform::default(),
        &Options::default(),
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("names no registry"), "{error}");
}

#[test]
fn a_configuration_that_is_not_what_was_said_is_refused() {
    let image = TestImage::new();
    let good = &image.blobs[&image.config];
    let endless = vec![b' '; 64 << 20];
    let spoilt = vec![b' '; good.len()];
    for (body, part) in [
        (endless, "longer than"),
        (spoilt, "igest"),
        (good[..10].to_vec(), "igest"),
    ] {
        let there = image.clone();
        let fake = Fake::new(move |request| {
            if request.is_for(&there.config) {
                let mut reply = Reply::new(200, body.clone());
                reply.length = false;
                return reply;
            }
            there.answer(request)
        });
        let failure = Scene::new().refused(
            &fake.name(":1"),
            &plain(),
            &["configuration", &image.config, part],
        );
        assert!(matches!(failure, Failure::Documents(_)), "{failure:?}");
        assert!(fake.served() < 32 << 20, "{} bytes were sent", fake.served());
    }
}

#[test]
fn a_manifest_that_is_too_large_is_refused() {
    let fake = Fake::new(|request| match request.path.contains("/manifests/") {
        true => Reply::new(200, vec![b' '; 5 << 20]).header("Content-Type", MANIFEST),
        false => Reply::new(200, "{}"),
    });
    Scene::new().refused(&fake.name(":1"), &plain(), &["some/image:1", "at most"]);
}
