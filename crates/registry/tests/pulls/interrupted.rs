//! Layers over connections that break, from registries that are not up to it, or that send something else.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    fake::{Fake, Reply, Request, plain},
    image::TestImage,
    scene::{Failure, Scene},
};

/// A registry that is good but for what it says to the n-th request for the large layer (from 0), where it says
/// something else.
fn but_for_the_layer(
    image: &TestImage,
    other: impl Fn(usize, &Request, &TestImage) -> Option<Reply> + Send + Sync + 'static,
) -> Fake {
    let image = image.clone();
    let asked = AtomicUsize::new(0);
    Fake::new(move |request| {
        let good = image.answer(request);
        if !request.is_for(&image.large) {
            return good;
        }
        let number = asked.fetch_add(1, Ordering::Relaxed);
        other(number, request, &image).unwrap_or(good)
    })
}

#[test]
fn a_layer_goes_on_where_the_connection_broke() {
    let image = TestImage::new();
    let fake = but_for_the_layer(&image, |number, request, image| {
        (number < 3).then(|| image.answer(request).cut(250_000))
    });
    let scene = Scene::new();
    scene.pulled(&fake.name(":1"), &plain(), &image);
    let starts: Vec<_> = fake
        .requests_for(&image.large)
        .iter()
        .map(|request| request.start().unwrap_or(0))
        .collect();
    assert_eq!(starts.len(), 4, "{starts:?}");
    assert!(starts.is_sorted(), "{starts:?}");
    assert!(starts[3] > 400_000, "{starts:?}");
    let most = 2 * image.large().len() as u64;
    assert!(fake.served() < most, "{} bytes were sent", fake.served());
}

#[test]
fn a_registry_without_ranges_sends_it_all_again() {
    let image = TestImage::new();
    let fake = but_for_the_layer(&image, |number, _, image| {
        let whole = Reply::new(200, image.large());
        Some(if number == 0 { whole.cut(500_000) } else { whole })
    });
    let scene = Scene::new();
    scene.pulled(&fake.name(":1"), &plain(), &image);
    assert_eq!(fake.requests_for(&image.large).len(), 2);
}

#[test]
fn a_connection_that_breaks_before_the_first_byte_is_tried_again() {
    let image = TestImage::new();
    let fake = but_for_the_layer(&image, |number, request, image| {
        (number < 2).then(|| image.answer(request).cut(0))
    });
    Scene::new().pulled(&fake.name(":1"), &plain(), &image);
}

#[test]
fn a_registry_that_is_busy_for_a_while_is_asked_again() {
    let image = TestImage::new();
    let fake = but_for_the_layer(&image, |number, _, _| match number {
        0 => Some(Reply::new(503, "busy")),
        1 => Some(Reply::new(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        )),
        _ => None,
    });
    let scene = Scene::new();
    scene.pulled(&fake.name(":1"), &plain(), &image);
    assert_eq!(fake.requests_for(&image.large).len(), 3);
}

#[test]
fn a_registry_that_stays_busy_is_given_up() {
    let image = TestImage::new();
    let fake = but_for_the_layer(&image, |_, _, _| Some(Reply::new(503, "out of order")));
    let failure = Scene::new().refused(
        &fake.name(":1"),
        &plain(),
        &["layer 2 of 2", &image.large, "503", "out of order"],
    );
    assert!(matches!(failure, Failure::Layers(_)));
    assert_eq!(fake.requests_for(&image.large).len(), 5);
}

#[test]
fn a_layer_that_is_forbidden_or_gone_is_not_asked_for_again() {
    let image = TestImage::new();
    for status in [403, 404, 410] {
        let fake = but_for_the_layer(&image, move |_, _, _| Some(Reply::new(status, "no")));
        Scene::new().refused(
            &fake.name(":1"),
            &plain(),
            &["layer 2 of 2", &image.large, &status.to_string()],
        );
        assert_eq!(fake.requests_for(&image.large).len(), 1);
    }
}

#[test]
fn a_layer_elsewhere_is_fetched_from_there() {
    let image = TestImage::new();
    let there = image.clone();
    let storage = Fake::new(move |request| Reply::blob(request, there.large()));
    let location = format!("http://{}/storage/{}", storage.address, image.large);
    let fake = but_for_the_layer(&image, move |_, _, _| {
        Some(Reply::new(307, "").header("Location", &location))
    });
    Scene::new().pulled(&fake.name(":1"), &plain(), &image);
    assert_eq!(storage.served(), image.large().len() as u64);
}

#[test]
fn a_layer_of_another_digest_is_refused() {
    let image = TestImage::new();
    for ranges in [true, false] {
        let fake = but_for_the_layer(&image, move |_, request, image| {
            let mut other = image.large().to_vec();
            other[700_000] ^= 1;
            Some(if ranges {
                Reply::blob(request, &other)
            } else {
                Reply::new(200, other)
            })
        });
        Scene::new().refused(
            &fake.name(":1"),
            &plain(),
            &["layer 2 of 2", &image.large, "igest"],
        );
        assert_eq!(fake.requests_for(&image.large).len(), 1, "it would come again");
    }
}

#[test]
fn a_layer_that_is_shorter_than_said_is_refused() {
    let image = TestImage::new();
    for ranges in [true, false] {
        let fake = but_for_the_layer(&image, move |_, request, image| {
            let short = &image.large()[..600_000];
            Some(if ranges {
                Reply::blob(request, short)
            } else {
                Reply::new(200, short)
            })
        });
        Scene::new().refused(&fake.name(":1"), &plain(), &["layer 2 of 2", &image.large]);
    }
}

#[test]
fn a_layer_that_is_longer_than_said_is_refused_without_being_read_to_its_end() {
    let image = TestImage::new();
    for ranges in [true, false] {
        let fake = but_for_the_layer(&image, move |_, request, image| {
            let long = [image.large(), &vec![0; 64 << 20]].concat();
            let mut reply = if ranges {
                Reply::blob(request, &long)
            } else {
                Reply::new(200, long)
            };
            reply.length = false;
            Some(reply)
        });
        Scene::new().refused(
            &fake.name(":1"),
            &plain(),
            &["layer 2 of 2", &image.large, "longer than its manifest says"],
        );
        assert!(fake.served() < 32 << 20, "{} bytes were sent", fake.served());
    }
}

#[test]
fn a_range_other_than_the_one_that_was_asked_for_is_no_layer() {
    let image = TestImage::new();
    let fake = but_for_the_layer(&image, |number, request, image| {
        Some(if number == 0 {
            image.answer(request).cut(300_000)
        } else {
            // From its start, whatever was asked for.
            Reply::new(206, image.large())
        })
    });
    Scene::new().refused(&fake.name(":1"), &plain(), &["layer 2 of 2", &image.large]);
}
