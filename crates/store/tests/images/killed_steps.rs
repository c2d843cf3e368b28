//! A process that kills itself at one step after the other of taking an image in, and one that is killed while it throws
//! layers away.

use std::{
    env, fs,
    io::{self, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cofferdam_store::{LayerDocument, LayerProgress, LayerSource, Reference, Store, Variant, Watch};

use crate::recipe::{Blobs, Layer, Recipe, Scene, files_in, noise, tar_of};

const STORE: &str = "COFFERDAM_TEST_STEPS_STORE";
const STEP: &str = "COFFERDAM_TEST_STEPS_LAST";
/// More than there are.
const STEPS: usize = 200;

fn layer(seed: u64) -> Layer {
    Layer::of(tar_of(&[(format!("noise{seed}"), noise(seed, 20_000))])).gzipped()
}

fn old() -> Recipe {
    Recipe::of(&[layer(1), layer(2)])
}

/// Shares its base with the old one.
fn new() -> Recipe {
    // More than are made at the same time.
    Recipe::of(&[1, 3, 4, 5, 6, 7].map(layer))
}

/// Kills this process at a step.
#[derive(Clone)]
struct Fuse {
    steps: Arc<AtomicUsize>,
    last: usize,
}

impl Fuse {
    fn step(&self) {
        if self.steps.fetch_add(1, Ordering::SeqCst) + 1 == self.last {
            let this = rustix::process::getpid();
            rustix::process::kill_process(this, rustix::process::Signal::KILL).unwrap();
        }
    }
}

impl Watch for Fuse {
    fn layer(&self, _number: usize, _layer: &LayerDocument, _progress: LayerProgress) {
        self.step();
    }
}

/// A source of which every call is a step.
struct Fused {
    source: Blobs,
    fuse: Fuse,
}

struct FusedRead {
    source: Box<dyn Read + Send>,
    fuse: Fuse,
}

impl LayerSource for Fused {
    fn open(&self, number: usize, layer: &LayerDocument) -> io::Result<Box<dyn Read + Send>> {
        self.fuse.step();
        Ok(Box::new(FusedRead {
            source: self.source.open(number, layer)?,
            fuse: self.fuse.clone(),
        }))
    }
}

impl Read for FusedRead {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.fuse.step();
        self.source.read(bytes)
    }
}

fn start(test: &str, store: &Store, step: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(STORE, store.root())
        .env(STEP, step.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn store_of_the_test() -> Store {
    Store::open(env::var_os(STORE).expect("only other tests start this one")).unwrap()
}

#[test]
#[ignore = "the process that another test starts, and that kills itself"]
fn the_process_that_kills_itself() {
    let store = store_of_the_test();
    let fuse = Fuse {
        steps: Arc::default(),
        last: env::var(STEP).unwrap().parse().unwrap(),
    };
    let recipe = new();
    let source = Fused {
        source: recipe.source(),
        fuse: fuse.clone(),
    };
    let name: Reference = "app".parse().unwrap();
    let documents = recipe.documents().unwrap();
    store
        .ingest(&name, &documents, Variant::default(), &source, &fuse)
        .unwrap();
}

/// Fails if anything is wrong but what was half-made. Gives whether something was.
#[track_caller]
fn assert_only_litter(store: &Store) -> bool {
    let problems = store.check().unwrap();
    for problem in &problems {
        let ingest = store.root().join("ingest");
        assert!(Path::new(&problem.what).starts_with(ingest), "{problem:?}");
    }
    !problems.is_empty()
}

/// What the kills at some of the steps left.
#[derive(Debug, Default)]
struct Kills {
    all: usize,
    with_litter: usize,
    with_finished_layers: usize,
}

/// Kills at the steps from `first` on, in strides, until the process gets to its end.
fn kill_at_steps(first: usize, stride: usize) -> Kills {
    let scene = Scene::new();
    let store = &scene.store;
    let mut kills = Kills::default();
    for step in (first..STEPS).step_by(stride) {
        let before = old().ingest(store, "app").unwrap();
        store.collect().unwrap();
        let mut child = start("killed_steps::the_process_that_kills_itself", store, step);
        let status = child.wait().unwrap();
        if status.success() {
            scene.assert_whole(&["app:latest"]);
            assert_eq!(store.image("app").unwrap().layers.len(), 6);
            return kills;
        }
        assert_eq!(status.code(), None, "it ended by itself, not by the kill");
        kills.all += 1;
        let found = store.image("app").unwrap();
        assert_eq!(found.layers, before.layers, "step {step}");
        assert_eq!(store.list().unwrap().len(), 1);
        kills.with_litter += usize::from(assert_only_litter(store));

        let there = files_in(&store.root().join("layers")).len();
        kills.with_finished_layers += usize::from(there > 2);
        let recipe = new();
        let source = recipe.source();
        recipe.ingest_from(store, "app", &source).unwrap();
        // Two were there before, one of which the new one shares.
        assert_eq!(source.opened().len(), 7 - there, "step {step}");
        scene.assert_whole(&["app:latest"]);
    }
    panic!("{STEPS} steps were not enough");
}

#[test]
fn a_process_killed_at_any_step_leaves_the_name_as_it_was_and_the_next_one_makes_the_rest() {
    const AT_ONCE: usize = 4;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=AT_ONCE)
            .map(|first| scope.spawn(move || kill_at_steps(first, AT_ONCE)))
            .collect();
        let kills: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let sum = |of: fn(&Kills) -> usize| kills.iter().map(of).sum::<usize>();
        // Five layers are opened, read and told of.
        assert!(sum(|kills| kills.all) > 20, "{kills:?}");
        assert!(sum(|kills| kills.with_litter) > 10, "{kills:?}");
        assert!(sum(|kills| kills.with_finished_layers) > 2, "{kills:?}");
    });
}

const LAYERS: u64 = 12;

#[test]
#[ignore = "the process that another test starts and kills"]
fn the_process_that_throws_away() {
    store_of_the_test().remove("app").unwrap();
}

#[test]
fn a_removal_that_is_killed_is_finished_by_the_next_command() {
    let scene = Scene::new();
    let store = &scene.store;
    let layers: Vec<_> = (0..LAYERS).map(layer).collect();
    let kept = Recipe::of(&layers[..2]).ingest(store, "kept").unwrap();
    let all = Recipe::of(&layers);
    let there = || files_in(&store.root().join("layers")).len();
    let mut cut_short = 0;
    for attempt in 0..100 {
        all.ingest(store, "app").unwrap();
        let mut child = start("killed_steps::the_process_that_throws_away", store, 0);
        // It is killed when so many layers have gone, and now and then earlier.
        let enough = 11 - attempt % 9;
        while there() > enough && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();

        assert_only_litter(store);
        let is_gone = !store
            .list()
            .unwrap()
            .iter()
            .any(|image| image.name == "app:latest");
        cut_short += usize::from(is_gone && there() > 2);
        if is_gone {
            store.collect().unwrap();
        } else {
            store.remove("app").unwrap();
        }
        assert_eq!(there(), 2);
        assert_eq!(store.image("kept").unwrap().layers, kept.layers);
        assert_eq!(files_in(&store.root().join("blobs/sha256")).len(), 2);
        scene.assert_whole(&["kept:latest"]);
        if cut_short == 5 {
            return;
        }
    }
    panic!("only {cut_short} removals were cut short");
}

#[test]
fn what_a_killed_removal_had_moved_away_is_in_nobodys_way() {
    let scene = Scene::new();
    let recipe = Recipe::small();
    let image = recipe.ingest(&scene.store, "app").unwrap();
    let removed = scene.store.root().join("ingest/removed");
    fs::create_dir(&removed).unwrap();
    fs::write(removed.join("layer.vhd"), "half").unwrap();
    let (_, freed) = scene.store.remove("app").unwrap();
    assert_eq!(freed.layers, image.layers.len());
    scene.assert_whole(&[]);
    recipe.ingest(&scene.store, "app").unwrap();
    scene.assert_whole(&["app:latest"]);
}
