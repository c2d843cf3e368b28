//! Several at the same store at once.

use std::{
    process::{Command, Stdio},
    sync::Barrier,
    thread,
};

use cofferdam_store::{Store, StoreError};

use crate::recipe::{Layer, Recipe, Scene, files_in, noise, tar_of};

/// Where the process of [`the_process_that_takes_an_image_in`] finds its store.
const STORE: &str = "COFFERDAM_TEST_STORE";

/// An image that takes a moment.
fn image() -> Recipe {
    let layer = |seed| Layer::of(tar_of(&[(format!("noise{seed}"), noise(seed, 150_000))])).gzipped();
    Recipe::of(&[layer(1), layer(2), layer(3), layer(4)])
}

#[test]
fn threads_that_take_the_same_image_in_at_once_all_get_it() {
    let scene = Scene::new();
    let barrier = Barrier::new(4);
    let recipe = image();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (recipe, barrier, store) = (&recipe, &barrier, scene.store.clone());
                scope.spawn(move || {
                    barrier.wait();
                    recipe.ingest(&store, &format!("image:{number}"))
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap().layers.len(), 4);
        }
    });
    scene.assert_whole(&["image:0", "image:1", "image:2", "image:3"]);
    assert_eq!(files_in(&scene.store.root().join("layers")).len(), 4);
}

#[test]
fn processes_that_take_the_same_image_in_at_once_all_get_it() {
    let scene = Scene::new();
    let children: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "together::the_process_that_takes_an_image_in",
                    "--ignored",
                    "--nocapture",
                ])
                .env(STORE, scene.store.root())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("taken in"));
    }
    scene.assert_whole(&["image:latest"]);
}

#[test]
#[ignore = "the process that another test starts"]
fn the_process_that_takes_an_image_in() {
    let root = std::env::var_os(STORE).expect("only another test starts this one");
    let image = image().ingest(&Store::open(root).unwrap(), "image").unwrap();
    assert_eq!(image.layers.len(), 4);
    println!("\ntaken in");
}

#[test]
fn names_given_at_the_same_time_are_all_kept() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    recipe.ingest(&scene.store, "image:first").unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (recipe, store) = (&recipe, &scene.store);
            scope.spawn(move || {
                for number in 0..10 {
                    recipe.ingest(store, &format!("image:{thread}-{number}")).unwrap();
                }
            });
        }
    });
    assert_eq!(scene.store.list().unwrap().len(), 41);
    assert_eq!(scene.store.image("image:first").unwrap().names.len(), 41);
}

#[test]
fn what_is_thrown_away_while_images_come_is_never_what_they_need() {
    let scene = Scene::new();
    let done = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(relaxed) {
                scene.store.collect().unwrap();
                rounds += 1;
                thread::yield_now();
            }
            rounds
        });
        let taking: Vec<_> = (0..2)
            .map(|thread| {
                let store = &scene.store;
                scope.spawn(move || {
                    for round in 0..15 {
                        let shared = Layer::plain("shared", "shared");
                        let own = Layer::plain("own", &format!("{thread} {round}"));
                        let name = format!("image{thread}:latest");
                        let image = Recipe::of(&[shared, own]).ingest(store, &name).unwrap();
                        assert_eq!(image.layers.len(), 2);
                        if round % 3 == 0 {
                            store.remove(&name).unwrap();
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = taking.into_iter().map(|thread| thread.join()).collect();
        done.store(true, relaxed);
        let rounds: u32 = collecting.join().unwrap();
        assert!(rounds > 0);
        results.into_iter().for_each(|result| result.unwrap());
    });
    scene.store.collect().unwrap();
    scene.assert_whole(&["image0:latest", "image1:latest"]);
    assert_eq!(
        files_in(&scene.store.root().join("layers")).len(),
        3,
        "the shared one, and one each"
    );
}

#[test]
fn a_child_that_starts_at_the_wrong_moment_keeps_no_lock() {
    let scene = Scene::new();
    let image = Recipe::small().ingest(&scene.store, "app").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    thread::scope(|scope| {
        let starting = scope.spawn(|| {
            while !done.load(relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        let postponed = (0..2000)
            .filter(|_| {
                drop(scene.store.lease(&image.layers).unwrap());
                scene.store.collect().unwrap().postponed
            })
            .count();
        done.store(true, relaxed);
        starting.join().unwrap();
        assert_eq!(postponed, 0);
    });
    scene.store.remove("app").unwrap();
    assert_eq!(files_in(&scene.store.root().join("layers")), [""; 0]);
}

#[test]
fn whoever_looks_while_images_come_and_go_sees_whole_ones_or_none() {
    let scene = Scene::new();
    Recipe::small().ingest(&scene.store, "stays").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    thread::scope(|scope| {
        let store = &scene.store;
        let moving = scope.spawn(|| {
            for _ in 0..40 {
                let image = Recipe::of(&[Layer::plain("top", "moving")]);
                image.ingest(store, "moving").unwrap();
                store.remove("moving").unwrap();
            }
        });
        let looking = scope.spawn(|| {
            let (mut there, mut gone) = (0, 0);
            while !done.load(relaxed) {
                let listed = store.list().unwrap();
                assert!(listed.iter().any(|image| image.name == "stays:latest"));
                match store.image("moving") {
                    Ok(image) => {
                        assert_eq!(image.layers.len(), 1);
                        there += 1;
                    }
                    Err(error) => {
                        assert!(matches!(error, StoreError::NotFound(_)), "{error}");
                        gone += 1;
                    }
                }
            }
            (there, gone)
        });
        let moved = moving.join();
        done.store(true, relaxed);
        let (there, gone) = looking.join().unwrap();
        moved.unwrap();
        assert!(there > 0 && gone > 0, "there {there} times, gone {gone} times");
    });
    scene.assert_whole(&["stays:latest"]);
}
