//! A process that is killed while it fills and empties the store.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use cofferdam_store::Store;

use crate::recipe::{Layer, Recipe, Scene, assert_whole, files_in, noise, tar_of};

/// Where the process of [`the_process_that_is_killed`] finds its store.
const STORE: &str = "COFFERDAM_TEST_KILLED_STORE";
const KILLS: u64 = 20;

fn image(seed: u64) -> Recipe {
    let layer = |seed| Layer::of(tar_of(&[(format!("noise{seed}"), noise(seed, 30_000))])).gzipped();
    Recipe::of(&[layer(1), layer(1000 + seed), layer(2000 + seed)])
}

fn start(scene: &Scene) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed::the_process_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(STORE, scene.store.root())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line == "started"),
        "it ended before it began"
    );
    child
}

#[test]
#[ignore = "the process that other tests start and kill"]
fn the_process_that_is_killed() {
    let root = std::env::var_os(STORE).expect("only other tests start this one");
    let store = Store::open(root).unwrap();
    let images: Vec<_> = (0..6).map(image).collect();
    println!("\nstarted");
    for round in 0.. {
        let image = &images[round % images.len()];
        image.ingest(&store, "moving").unwrap();
        image.ingest(&store, &format!("image:{}", round % 3)).unwrap();
        if round % 2 == 1 {
            store.remove("moving").unwrap();
        }
        store.collect().unwrap();
    }
}

/// Another number each time the test runs, and each time it asks.
fn some(below: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) % below
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_store_that_is_whole() {
    let scene = Scene::new();
    let store = &scene.store;
    let mut left = 0;
    for _ in 0..KILLS {
        let mut child = start(&scene);
        let delay_ms = some(150);
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), None, "it ended by itself, not by the kill");
        // What has a name is whole, whatever else is there.
        store
            .list()
            .unwrap_or_else(|error| panic!("killed after {delay_ms} ms: {error}"));
        left += files_in(&store.root().join("ingest")).len();
        Recipe::small().ingest(store, "after").unwrap();
        assert_eq!(store.check().unwrap(), [], "killed after {delay_ms} ms");
        assert_eq!(files_in(&store.root().join("ingest")), [""; 0]);
    }
    assert!(
        left > 0,
        "not one of {KILLS} kills came while something was being made"
    );
    for image in store.list().unwrap() {
        store.remove(&image.name).unwrap();
    }
    assert_whole(store, &[]);
    for dir in ["layers", "blobs/sha256"] {
        assert_eq!(files_in(&store.root().join(dir)), [""; 0]);
    }
}

#[test]
fn the_lease_of_a_killed_process_is_gone_with_it() {
    let scene = Scene::new();
    let image = Recipe::small().ingest(&scene.store, "app").unwrap();
    let lease = image.layers[0].folder.join("lease");
    // Any process that has the file locked is a user of the layer.
    let mut user = Command::new("flock")
        .args(["--shared", "--no-fork"])
        .arg(&lease)
        .args(["sh", "-c", "echo held; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(user.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "held\n");
    let (_, freed) = scene.store.remove("app").unwrap();
    assert_eq!((freed.layers, freed.in_use), (1, 1));
    assert!(fs::metadata(&lease).is_ok());
    user.kill().unwrap();
    user.wait().unwrap();
    let freed = scene.store.collect().unwrap();
    assert_eq!((freed.layers, freed.in_use), (1, 0));
}
