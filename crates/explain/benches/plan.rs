//! What planning costs, from ten mounts to ten thousand, and what reserving costs, from one disk to all 256 of a VM.
//!
//! `cargo xtask bench plan` runs this and says how each grows.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::{hint::black_box, path::Path, time::Duration};

use cofferdam_explain::explain;
use cofferdam_ledger::{
    Ledger, Want,
    address::Limits,
    device::{DiskNeed, FileKey},
    request::DiskKind,
};
use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, Plan, PlanRequest, Spec, plan, wanted};
use cofferdam_reserve::reserve;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const MOUNTS: [usize; 4] = [10, 100, 1_000, 10_000];
const DISKS: [u64; 5] = [1, 4, 16, 64, 256];

/// A spec with so many shared directories, and the facts about them.
fn spec(mounts: usize) -> (Spec, Facts) {
    let entry = |n| json!({"destination": format!("/m{n}"), "type": "bind", "source": format!("/srv/{n}")});
    let entries: Vec<_> = (0..mounts).map(entry).collect();
    let document = json!({"root": {"path": "rootfs"}, "mounts": entries});
    let spec = Spec::parse(&document.to_string()).unwrap();
    let mut facts = Facts::default();
    for (inode, path) in wanted(&spec, Path::new("/bundle")).into_iter().enumerate() {
        let identity = FileId {
            device: 1,
            inode: inode as u64,
        };
        let found = FileFacts {
            kind: FileKind::Directory,
            identity,
            image_problem: None,
        };
        facts.insert(path, Ok(found));
    }
    (spec, facts)
}

fn planned(spec: &Spec, facts: &Facts) -> Plan {
    let request = PlanRequest {
        spec,
        bundle: Path::new("/bundle"),
        container_root: "/run/gcs/c/1",
        process_isolation: false,
    };
    plan(request, facts).unwrap()
}

fn mounts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mounts");
    for count in MOUNTS {
        group.throughput(Throughput::Elements(count as u64));
        let (spec, facts) = spec(count);
        group.bench_function(BenchmarkId::new("plan", count), |bencher| {
            bencher.iter(|| black_box(planned(&spec, &facts)));
        });
        let plan = planned(&spec, &facts);
        group.bench_function(BenchmarkId::new("reserve", count), |bencher| {
            bencher.iter_batched(
                || Ledger::new(Limits::default()),
                // Handed back, so that freeing it is not measured.
                |mut ledger| (reserve(&mut ledger, &plan).unwrap(), ledger),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(BenchmarkId::new("explain", count), |bencher| {
            bencher.iter(|| explain(&plan, Limits::default(), false).unwrap());
        });
        group.bench_function(BenchmarkId::new("all with JSON", count), |bencher| {
            bencher.iter(|| {
                let plan = planned(&spec, &facts);
                explain(&plan, Limits::default(), false).unwrap().json()
            });
        });
    }
    group.finish();
}

fn disk(inode: u64) -> Want {
    Want::Disk(DiskNeed {
        path: format!("/disks/{inode}").into(),
        key: FileKey { device: 1, inode },
        kind: DiskKind::Virtual,
        guest_path: format!("/run/gcs/c/1/mounts/m{inode}"),
        read_only: false,
        auto_manage: false,
    })
}

fn disks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("disks");
    for count in DISKS {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("reserve and release", count), |bencher| {
            let mut ledger = Ledger::new(Limits::default());
            bencher.iter_batched(
                || (0..count).map(disk).collect::<Vec<_>>(),
                |wants| {
                    for lease in ledger.reserve(wants).unwrap() {
                        ledger.release(lease).unwrap();
                        // Nothing has been attached: this is the end of it.
                        black_box(ledger.next(lease));
                    }
                    assert_eq!(ledger.view().scsi.used, 0);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_500));
    targets = mounts, disks
}
criterion_main!(benches);
