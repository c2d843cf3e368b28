//! `run --no-vm` killed in the middle: everything it had is found and freed by somebody else.

use std::{
    fs,
    time::{Duration, Instant},
};

use cofferdam_host::{Leftover, Owner, clear, find};
use cofferdam_journal::Replay;

use crate::{
    bundle::output_of,
    scene::{ID, Scene},
};

/// Frees everything, by the library's calls, and fails unless nothing is left then.
#[track_caller]
fn cleared(scene: &Scene) -> Vec<Leftover> {
    let state = scene.state();
    let owner = Owner::of(&state).unwrap();
    let replay = Replay::read(&state.join("journal")).unwrap();
    let found = find(&replay, &owner).unwrap();
    for outcome in clear(&replay, &owner).unwrap() {
        assert!(outcome.result.is_ok(), "{outcome:?}");
    }
    assert_eq!(find(&replay, &owner).unwrap(), []);
    assert!(clear(&replay, &owner).unwrap().is_empty());
    fs::remove_dir_all(&state).unwrap();
    scene.assert_nothing_left();
    found
}

#[test]
fn a_killed_run_leaves_its_container_and_its_mounts_and_all_of_it_is_freed() {
    let scene = Scene::new("echo ready; while :; do sleep 1; done");
    let mut child = scene.started();
    child.kill();
    let found = cleared(&scene);
    assert_eq!(found[0], Leftover::Container(ID.to_owned()));
    assert!(found.len() > 5, "{found:?}");
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing_after_a_repair() {
    let scene = Scene::new("sleep 0.2");
    for delay_ms in (0..600).step_by(29) {
        let mut child = scene.command().spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let killed = Instant::now();
        // A child that has not begun its own program yet holds the lock a moment longer.
        while scene.state().exists() && killed.elapsed() < Duration::from_secs(5) {
            output_of(&scene.repair().output().unwrap(), 0);
        }
        scene.assert_nothing_left();
    }
}
