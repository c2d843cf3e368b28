//! An owner that is killed: what it left is found from its journal and its marks, and freed by somebody else.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cofferdam_container::Allocation;
use cofferdam_host::{Leftover, LocalHost, Owner, clear, find};
use cofferdam_journal::{Journal, Replay};
use cofferdam_ledger::Ledger;
use cofferdam_vm::Driver;

use crate::scene::Scene;

/// Where the process of [`the_owner_that_is_killed`] finds what it is to take.
const SCENE: &str = "COFFERDAM_TEST_KILLED_OWNER";

/// What the killed process does once it has allocated.
#[derive(Clone, Copy)]
enum Then {
    /// It keeps everything.
    Keep,
    /// It releases and allocates again, over and over.
    Cycle,
}

/// Starts a process that allocates a container of these folders, says so, and goes on until it is killed.
fn owner_of(scene: &Scene, folders: &[PathBuf], then: Then) -> Child {
    let spec = serde_json::json!({
        "cycle": matches!(then, Then::Cycle),
        "state": scene.path("state"),
        "bundle": scene.path("bundle"),
        "folders": folders,
    });
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::the_owner_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(SCENE, spec.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "the process that other tests start and kill"]
async fn the_owner_that_is_killed() {
    let text = std::env::var(SCENE).expect("only other tests start this one");
    let spec: serde_json::Value = serde_json::from_str(&text).unwrap();
    let path = |name: &str| PathBuf::from(spec[name].as_str().unwrap());
    let folders: Vec<PathBuf> = serde_json::from_value(spec["folders"].clone()).unwrap();
    let owner = Owner::of(&path("state")).unwrap();
    let ledger = Ledger::new(LocalHost::limits()).with_layers_below(owner.layers_below().unwrap());
    let journal = Journal::create(&path("state").join("journal")).unwrap();
    let host = Arc::new(LocalHost::new(owner));
    let driver = Driver::new(host.clone(), host, ledger, Some(journal));
    let plan = crate::scene::plan_of(&path("bundle"), &folders);
    let mut allocation = Allocation::allocate(&driver, &plan).await.unwrap();
    println!("\nallocated");
    while spec["cycle"].as_bool().unwrap() {
        allocation.release().await.unwrap();
        allocation = Allocation::allocate(&driver, &plan).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
}

fn await_allocated(owner: &mut Child) {
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line == "allocated"),
        "the owner ended before it had allocated"
    );
}

fn kill(mut owner: Child) {
    owner.kill().unwrap();
    owner.wait().unwrap();
}

fn replay(scene: &Scene) -> Replay {
    let path = scene.path("state/journal");
    if path.exists() {
        Replay::read(&path).unwrap()
    } else {
        Replay::default()
    }
}

/// Frees everything, and fails unless nothing is left then, for the system and for a second look.
#[track_caller]
fn cleared(scene: &Scene) -> Vec<Leftover> {
    let (replay, owner) = (replay(scene), scene.owner());
    let found = find(&replay, &owner).unwrap();
    let outcomes = clear(&replay, &owner).unwrap();
    for outcome in &outcomes {
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }
    assert_eq!(find(&replay, &owner).unwrap(), []);
    assert!(clear(&replay, &owner).unwrap().is_empty());
    scene.assert_nothing_left();
    let state: Vec<_> = fs::read_dir(scene.path("state")).unwrap().flatten().collect();
    assert!(state.len() <= 1, "{state:?}");
    found
}

#[test]
fn everything_of_a_killed_owner_is_found_and_freed() {
    let scene = Scene::new();
    let folders = [
        scene.layer("upper", &[]),
        scene.layer("base", &[]),
        scene.scratch(),
    ];
    let mut owner = owner_of(&scene, &folders, Then::Keep);
    await_allocated(&mut owner);
    kill(owner);
    assert!(!scene.left().is_empty(), "a kill frees nothing by itself");
    let found = cleared(&scene);
    let count = |fits: fn(&Leftover) -> bool| found.iter().filter(|left| fits(left)).count();
    assert_eq!(count(|left| matches!(left, Leftover::Mount(_))), 4, "{found:?}");
    assert_eq!(
        count(|left| matches!(left, Leftover::Loop { .. })),
        3,
        "{found:?}"
    );
    assert_eq!(
        count(|left| matches!(left, Leftover::Export { .. })),
        1,
        "{found:?}"
    );
    assert_eq!(
        found.first(),
        Some(&Leftover::Mount(scene.path("bundle/rootfs"))),
        "the overlay before what it is made of"
    );
}

#[test]
fn an_owner_killed_at_any_moment_leaves_nothing_that_is_not_found() {
    let scene = Scene::new();
    let folders = [scene.layer("base", &[]), scene.scratch()];
    for delay_ms in (0..400).step_by(13) {
        let owner = owner_of(&scene, &folders, Then::Cycle);
        std::thread::sleep(Duration::from_millis(delay_ms));
        kill(owner);
        cleared(&scene);
        let _ = fs::remove_file(scene.path("state/journal"));
    }
}

#[test]
fn what_is_in_use_is_freed_by_the_next_try() {
    let scene = Scene::new();
    let folders = [scene.layer("base", &[("f", "f")]), scene.scratch()];
    let mut owner = owner_of(&scene, &folders, Then::Keep);
    await_allocated(&mut owner);
    kill(owner);
    let mut open = fs::File::create(scene.path("bundle/rootfs/f")).unwrap();
    let outcomes = clear(&replay(&scene), &scene.owner()).unwrap();
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    assert_eq!(
        failed,
        outcomes.len(),
        "nothing is taken from below what is in use: {outcomes:?}"
    );
    open.write_all(b"written late").unwrap();
    open.sync_all().unwrap();
    drop(open);
    cleared(&scene);
}

#[test]
fn a_mount_of_somebody_else_at_the_same_place_is_left_alone() {
    let scene = Scene::new();
    let folders = [scene.layer("base", &[]), scene.scratch()];
    let mut owner = owner_of(&scene, &folders, Then::Keep);
    await_allocated(&mut owner);
    kill(owner);
    let journal = replay(&scene);
    cleared(&scene);
    let place = scene.path("bundle/scratch");
    fs::create_dir(&place).unwrap();
    crate::scene::succeed(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&place));
    let found = find(&journal, &scene.owner());
    let cleared = clear(&journal, &scene.owner());
    let stays = scene.left();
    crate::scene::succeed(Command::new("umount").arg(&place));
    fs::remove_dir(&place).unwrap();
    assert_eq!(found.unwrap(), []);
    assert!(cleared.unwrap().is_empty());
    assert_eq!(stays.len(), 1, "{stays:?}");
}

#[test]
fn one_owner_never_frees_what_is_anothers() {
    let (dead, alive) = (Scene::new(), Scene::new());
    let base = dead.layer("base", &[("f", "f")]);
    let mut owner = owner_of(&dead, &[base.clone(), dead.scratch()], Then::Keep);
    await_allocated(&mut owner);
    let mut other = owner_of(&alive, &[base, alive.scratch()], Then::Keep);
    await_allocated(&mut other);
    kill(owner);
    let outcomes = clear(&replay(&dead), &dead.owner()).unwrap();
    assert!(
        outcomes.iter().all(|outcome| outcome.result.is_ok()),
        "{outcomes:?}"
    );
    assert!(alive.path("bundle/rootfs/f").exists());
    kill(other);
    cleared(&alive);
    cleared(&dead);
}
