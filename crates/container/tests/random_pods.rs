//! Random containers of one fake VM, allocated and released at once through the real driver, while steps fail, answer
//! too late, hang or kill the VM, and while callers go away: nothing is left, nobody loses what another one held, and
//! everything can be had again.
//!
//! `PROPTEST_CASES=10000 cargo test -p cofferdam-container --test random_pods` looks longer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use cofferdam_backend::{
    Backend,
    fake::{FakeBackend, FakeOptions, Fault, FaultPoint},
};
use cofferdam_container::{AllocateError, Allocation, left_behind};
use cofferdam_ledger::address::Limits;
use cofferdam_plan::{DiskNeed, DiskSource, FileId, LayerNeed, Layers, Needs, Plan, ShareNeed};
use cofferdam_vm::{BootOptions, UtilityVm};
use futures_util::future::join_all;
use proptest::{collection::vec, option, prelude::*, test_runner::FileFailurePersistence};
use serde_json::json;

/// Cases unless `PROPTEST_CASES` says otherwise: a few seconds.
const CASES: u32 = 96;
/// Steps that hang are let go so often: well before any call to the guest gives up waiting, since what the guest does
/// after that is nobody's any more.
const HANG: Duration = Duration::from_secs(3);

/// What becomes of a step, by the order in which steps begin.
#[derive(Debug, Clone)]
enum Fate {
    Done,
    Delayed(u64),
    Fails,
    FailsWithEffect,
    Hangs,
}

/// What one container needs. Files and directories are few, so that containers meet.
#[derive(Debug, Clone)]
struct Wanted {
    /// Layers, topmost first; without any the root is a share.
    layers: Vec<u64>,
    /// Whose scratch it takes, if not its own.
    scratch_of: Option<usize>,
    /// File, read-only, auto-managed.
    disks: Vec<(u64, bool, bool)>,
    /// Directory, read-only, a single file of it.
    shares: Vec<(u64, bool, Option<u64>)>,
}

/// One container's lives, one after another.
#[derive(Debug, Clone)]
struct Script {
    wanted: Wanted,
    lives: Vec<Life>,
}

/// Times are in milliseconds.
#[derive(Debug, Clone)]
struct Life {
    pause: u64,
    /// The allocation's caller goes away after this time.
    allocate_for: Option<u64>,
    hold: u64,
    /// The release's caller goes away after this time.
    release_for: Option<u64>,
    /// It is dropped rather than released.
    dropped: bool,
    /// A release that failed is called again, so often; then it is dropped, or kept for the end.
    retries: usize,
    kept: bool,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let layers = prop_oneof![1 => Just(vec![]), 3 => prop::sample::subsequence(vec![0, 1, 2], 1..=3)];
    let scratch_of = prop_oneof![8 => Just(None), 1 => (0..4usize).prop_map(Some)];
    // File 2 is a layer, too.
    let disks = vec((2..6u64, any::<bool>(), any::<bool>()), 0..4);
    let shares = vec((0..2u64, any::<bool>(), option::of(0..2u64)), 0..3);
    (layers, scratch_of, disks, shares).prop_map(|(layers, scratch_of, disks, shares)| Wanted {
        layers,
        scratch_of,
        disks,
        shares,
    })
}

fn life() -> impl Strategy<Value = Life> {
    let gone = || prop_oneof![3 => Just(None), 1 => (0..400u64).prop_map(Some)];
    (
        0..200u64,
        gone(),
        0..300u64,
        gone(),
        prop::bool::weighted(0.2),
        0..3usize,
        any::<bool>(),
    )
        .prop_map(
            |(pause, allocate_for, hold, release_for, dropped, retries, kept)| Life {
                pause,
                allocate_for,
                hold,
                release_for,
                dropped,
                retries,
                kept,
            },
        )
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        4 => Just(Fate::Done),
        6 => (1..100u64).prop_map(Fate::Delayed),
        1 => Just(Fate::Fails),
        1 => Just(Fate::FailsWithEffect),
        1 => Just(Fate::Hangs),
    ];
    vec(fate, 0..120)
}

fn identity(inode: u64) -> FileId {
    FileId { device: 1, inode }
}

/// The plan of a container as `cofferdam_plan` would make it, of files that need not exist.
fn plan(wanted: &Wanted, container: usize, root: &str) -> Plan {
    let file = |n: u64| LayerNeed {
        host_path: format!("/files/{n}").into(),
        identity: identity(n),
        bytes: 4096,
    };
    let mut needs = Needs::default();
    if wanted.layers.is_empty() {
        needs.shares.push(ShareNeed {
            mount_index: None,
            host_path: PathBuf::from("/directories/root"),
            guest_path: format!("{root}/rootfs"),
            read_only: false,
            allowed_names: None,
        });
    } else {
        let scratch = wanted.scratch_of.unwrap_or(container) as u64;
        needs.layers = Some(Layers {
            read_only: wanted.layers.iter().map(|layer| file(*layer)).collect(),
            scratch: file(100 + scratch),
            scratch_path: format!("{root}/scratch"),
            root_path: format!("{root}/rootfs"),
        });
    }
    for (index, (n, read_only, auto_manage)) in wanted.disks.iter().enumerate() {
        let LayerNeed {
            host_path, identity, ..
        } = file(*n);
        needs.disks.push(DiskNeed {
            mount_index: index,
            host_path,
            identity,
            guest_path: format!("{root}/mounts/m{index}"),
            source: DiskSource::Virtual,
            read_only: *read_only,
            auto_manage: *auto_manage,
        });
    }
    for (n, (directory, read_only, name)) in wanted.shares.iter().enumerate() {
        let index = wanted.disks.len() + n;
        needs.shares.push(ShareNeed {
            mount_index: Some(index),
            host_path: format!("/directories/{directory}").into(),
            guest_path: format!("{root}/mounts/m{index}"),
            read_only: *read_only,
            allowed_names: name.map(|name| vec![name.to_string()]),
        });
    }
    Plan {
        spec: json!({}),
        container_root: root.to_owned(),
        needs,
    }
}

struct Pod {
    backend: FakeBackend,
    vm: Arc<UtilityVm>,
}

impl Pod {
    async fn boot(vpmem_devices: u32) -> Self {
        let limits = Limits {
            scsi_controllers: 1,
            vpmem_devices,
            ..Limits::default()
        };
        let backend = FakeBackend::new(FakeOptions {
            limits,
            ..FakeOptions::default()
        });
        let options = BootOptions::default();
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &options)
            .await
            .unwrap();
        Self { backend, vm }
    }

    fn arm(&self, fates: &[Fate], death: Option<u64>) {
        let faults = self.backend.faults();
        // The first fault that is armed for a step is the one that strikes.
        if let Some(step) = death {
            faults.die(FaultPoint::Any, step);
        }
        for (step, fate) in fates.iter().enumerate() {
            let fault = match fate {
                Fate::Done => continue,
                Fate::Delayed(ms) => Fault::Delay(Duration::from_millis(*ms)),
                Fate::Fails => Fault::Fail("injected".into()),
                Fate::FailsWithEffect => Fault::FailAfter("injected".into()),
                Fate::Hangs => Fault::Hang,
            };
            faults.inject(FaultPoint::Any, step as u64 + 1, fault);
        }
    }

    /// Whoever holds an allocation has all of it, whatever fails for others.
    async fn assert_mounted(&self, plan: &Plan, when: &str) {
        if self.vm.is_gone().await {
            return;
        }
        let mounts = self.backend.guest_mounts();
        let needs = &plan.needs;
        let layers = needs.layers.iter();
        let paths = layers
            .flat_map(|layers| [&layers.scratch_path, &layers.root_path])
            .chain(needs.disks.iter().map(|disk| &disk.guest_path))
            .chain(needs.shares.iter().map(|share| &share.guest_path));
        for path in paths {
            assert!(mounts.contains_key(path), "{path} is not there {when}");
        }
    }

    /// Plays one life; returns what could not be released.
    async fn play(&self, script: &Script, container: usize, life: &Life) -> Option<Allocation> {
        tokio::time::sleep(Duration::from_millis(life.pause)).await;
        let plan = plan(&script.wanted, container, &self.vm.new_container_root());
        let allocating = Allocation::allocate(self.vm.driver(), &plan);
        let Some(allocated) = within(life.allocate_for, allocating).await else {
            return None;
        };
        let mut allocation = match allocated {
            Ok(allocation) => allocation,
            Err(AllocateError::Failed { .. } | AllocateError::Refused(_)) => return None,
            Err(error) => panic!("{error}"),
        };
        self.assert_mounted(&plan, "once it is allocated").await;
        tokio::time::sleep(Duration::from_millis(life.hold)).await;
        self.assert_mounted(&plan, "while it is held").await;
        if life.dropped {
            return None;
        }
        for _try in 0..=life.retries {
            match within(life.release_for, allocation.release()).await {
                Some(Ok(())) => {
                    assert!(allocation.is_released());
                    return None;
                }
                Some(Err(error)) => assert!(!allocation.is_released(), "{error}"),
                None => {}
            }
        }
        life.kept.then_some(allocation)
    }

    /// Faults stop: everything goes.
    async fn wind_down(&self, kept: Vec<Allocation>) {
        let faults = self.backend.faults();
        faults.clear();
        faults.release();
        for mut allocation in kept {
            allocation.release().await.expect("nothing fails any more");
            assert!(allocation.is_released());
        }
        // What was dropped is released in the background, with pauses after failures.
        for _ in 0..600 {
            if self.vm.driver().ledger().view().slots.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let view = self.vm.driver().ledger().view();
        assert!(view.slots.is_empty(), "can never be released: {:#?}", view.slots);
        assert_eq!((view.scsi.used, view.vpmem.used), (0, 0));
    }

    /// The three tables, and the rules nobody may break on the way.
    async fn assert_empty(&self) {
        let steps = || {
            let steps: Vec<_> = self.backend.steps().iter().map(ToString::to_string).collect();
            steps.join("\n")
        };
        assert_eq!(self.backend.violations(), [""; 0], "\n{}", steps());
        let devices = self.backend.host_devices();
        assert!(devices.is_empty(), "{devices:?}\n{}", steps());
        let mounts = self.backend.guest_mounts();
        assert!(mounts.is_empty(), "{mounts:?}\n{}", steps());
        if !self.vm.is_gone().await {
            assert_eq!(self.backend.attach_count(), self.backend.detach_count());
            assert_eq!(left_behind(&self.vm).await.unwrap(), [""; 0]);
        }
    }

    /// No file, no path and no slot is spoilt: a container that wants everything gets it.
    async fn assert_usable(&self) {
        if self.vm.is_gone().await {
            return;
        }
        let everything = Wanted {
            layers: vec![0, 1, 2],
            scratch_of: None,
            disks: vec![(3, false, true), (4, false, false), (5, true, false)],
            shares: vec![(0, true, None), (1, false, None), (0, false, Some(1))],
        };
        let plan = plan(&everything, 0, &self.vm.new_container_root());
        let mut allocation = Allocation::allocate(self.vm.driver(), &plan).await.unwrap();
        self.assert_mounted(&plan, "in the end").await;
        allocation.release().await.unwrap();
    }
}

/// The outcome, or nothing where the caller goes away first.
async fn within<T>(limit: Option<u64>, future: impl Future<Output = T>) -> Option<T> {
    match limit {
        None => Some(future.await),
        Some(ms) => tokio::time::timeout(Duration::from_millis(ms), future).await.ok(),
    }
}

async fn play(scripts: &[Script], fates: &[Fate], death: Option<u64>, vpmem_devices: u32) {
    let pod = Pod::boot(vpmem_devices).await;
    pod.arm(fates, death);
    let faults = pod.backend.clone();
    let letting_go = tokio::spawn(async move {
        loop {
            tokio::time::sleep(HANG).await;
            faults.faults().release();
        }
    });
    let all = scripts.iter().enumerate().map(async |(container, script)| {
        let mut kept = Vec::new();
        for life in &script.lives {
            kept.extend(pod.play(script, container, life).await);
        }
        kept
    });
    let kept = join_all(all).await.into_iter().flatten().collect();
    pod.wind_down(kept).await;
    letting_go.abort();
    pod.assert_empty().await;
    pod.assert_usable().await;
    pod.assert_empty().await;
    pod.backend.stop().await.unwrap();
}

fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            default.cases
        } else {
            CASES
        },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/random_pods.txt",
        ))),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_fails_and_whoever_goes_away_nothing_is_left_and_everything_can_be_had_again(
        scripts in vec(
            (wanted(), vec(life(), 1..4)).prop_map(|(wanted, lives)| Script { wanted, lives }),
            2..=4,
        ),
        fates in fates(),
        death in prop_oneof![5 => Just(None), 1 => (1..60u64).prop_map(Some)],
        vpmem_devices in 0..3u32,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(&scripts, &fates, death, vpmem_devices));
    }
}
