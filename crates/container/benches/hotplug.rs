//! What it takes to add a disk or a share to a running VM and mount it there: one, sixteen one after another, sixteen at
//! once; and to take them out again. Medians over several rounds in one VM.
//!
//! `cargo xtask bench hotplug` runs this and prints the table.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[path = "../tests/real_pod/mod.rs"]
mod real_pod;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use cofferdam_ledger::{
    Lease, Want,
    device::{DiskNeed, FileKey, ShareNeed},
    request::DiskKind,
};
use futures_util::future::join_all;
use real_pod::Pod;
use serde_json::json;

const TOGETHER: usize = 16;
const ROUNDS: usize = 9;

/// What one round took: to add, to remove.
type Times = (Duration, Duration);

#[derive(Default)]
struct Rounds {
    one: Vec<Times>,
    row: Vec<Times>,
    parallel: Vec<Times>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run());
}

async fn run() {
    let pod = Pod::boot().await;
    let template = pod.disk("template.qcow2");
    let copies = (0..TOGETHER).map(|n| {
        let path = pod.path(&format!("disk{n}.qcow2"));
        fs::copy(&template, &path).unwrap();
        path
    });
    let disks: Vec<_> = copies.map(disk).collect();
    let directories = (0..TOGETHER).map(|n| pod.directory(&format!("share{n}"), &[("f", "content")]));
    let shares: Vec<_> = directories.enumerate().map(share).collect();
    for (what, wants) in [("disk", disks), ("share", shares)] {
        let mut rounds = Rounds::default();
        // The first round warms caches up, and does not count.
        for round in 0..=ROUNDS {
            let times = [
                in_a_row(&pod, &wants[..1]).await,
                in_a_row(&pod, &wants).await,
                at_once(&pod, &wants).await,
            ];
            if round > 0 {
                rounds.one.push(times[0]);
                rounds.row.push(times[1]);
                rounds.parallel.push(times[2]);
            }
        }
        print_line(&format!("add a {what}"), &rounds, |times| times.0);
        print_line(&format!("remove a {what}"), &rounds, |times| times.1);
    }
    pod.assert_empty("at the end").await;
    pod.shut_down().await;
}

fn disk(path: PathBuf) -> Want {
    let facts = fs::metadata(&path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    Want::Disk(DiskNeed {
        guest_path: format!("/run/gcs/c/1/mounts/{name}"),
        key: FileKey {
            device: facts.dev(),
            inode: facts.ino(),
        },
        path,
        kind: DiskKind::Virtual,
        read_only: false,
        auto_manage: false,
    })
}

fn share((n, path): (usize, PathBuf)) -> Want {
    Want::Share(ShareNeed {
        path,
        guest_path: format!("/run/gcs/c/1/mounts/share{n}"),
        read_only: false,
        allowed_names: None,
    })
}

fn reserved(pod: &Pod, wants: &[Want]) -> Vec<Lease> {
    pod.vm.driver().ledger().reserve(wants.to_vec()).unwrap()
}

async fn in_a_row(pod: &Pod, wants: &[Want]) -> Times {
    let leases = reserved(pod, wants);
    let begun = Instant::now();
    for lease in &leases {
        pod.vm.driver().acquire(*lease).await.unwrap();
    }
    let added = begun.elapsed();
    let begun = Instant::now();
    for lease in &leases {
        pod.vm.driver().release(*lease).await.unwrap();
    }
    (added, begun.elapsed())
}

async fn at_once(pod: &Pod, wants: &[Want]) -> Times {
    let leases = reserved(pod, wants);
    let driver = pod.vm.driver();
    let begun = Instant::now();
    let outcomes = join_all(leases.iter().map(|lease| driver.acquire(*lease))).await;
    let added = begun.elapsed();
    outcomes.into_iter().for_each(Result::unwrap);
    let begun = Instant::now();
    let outcomes = join_all(leases.iter().map(|lease| driver.release(*lease))).await;
    let removed = begun.elapsed();
    outcomes.into_iter().for_each(Result::unwrap);
    (added, removed)
}

/// One row of the table: times in milliseconds, and what doing it at once saves.
fn print_line(what: &str, rounds: &Rounds, part: impl Fn(&Times) -> Duration) {
    let median = |times: &[Times]| {
        let mut sorted: Vec<_> = times.iter().map(&part).collect();
        sorted.sort();
        sorted[sorted.len() / 2].as_secs_f64() * 1e3
    };
    let (one, row, parallel) = (median(&rounds.one), median(&rounds.row), median(&rounds.parallel));
    let line = json!({
        "what": what,
        "one, ms": one,
        format!("{TOGETHER} in a row, ms"): row,
        format!("{TOGETHER} at once, ms"): parallel,
        "in a row / at once": row / parallel,
        "at once / one": parallel / one,
    });
    println!("{line}");
}
