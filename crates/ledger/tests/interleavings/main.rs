//! Random wants of several holders, random faults, random interleavings, against a model of host and guest.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod model;

use std::{path::PathBuf, sync::Arc};

use cofferdam_ledger::{
    Lease, LeaseError, Ledger, Next, Step, StepToken, Want,
    address::Limits,
    device::{ContainerMountNeed, DiskNeed, FileKey, LayerNeed, OverlayNeed, ShareNeed},
    request::DiskKind,
};
use model::{Fate, Injected, Model, mount_of};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

#[derive(Debug, Clone)]
enum Act {
    Reserve(Vec<Want>),
    /// Asks for the next step of a live lease.
    Next(usize),
    /// Reports the outcome of a step that is being performed.
    Finish(usize, Fate),
    Release(usize),
    /// Tries a lease that has gone, and a token that has been reported.
    Stale(usize),
}

fn file(n: u8) -> (PathBuf, FileKey) {
    let key = FileKey {
        device: 1,
        inode: u64::from(n),
    };
    (format!("/f{n}").into(), key)
}

/// Few files and paths, so that holders meet. A path is one device's, with one kind of rights, as in the contract.
fn want() -> impl Strategy<Value = Want> {
    let layer = (0..3u8, any::<bool>()).prop_map(|(n, large)| {
        let (path, key) = file(n);
        let bytes = if large { 2 } else { 1 };
        Want::Layer(LayerNeed { path, key, bytes })
    });
    let disk = (2..4u8, 0..3u8, any::<bool>()).prop_map(|(n, at, auto_manage)| {
        let (path, key) = file(n);
        Want::Disk(DiskNeed {
            path,
            key,
            kind: DiskKind::Virtual,
            guest_path: format!("/d{n}/{at}"),
            read_only: at % 2 == 0,
            auto_manage,
        })
    });
    let share = (0..2u8, 0..2u8, any::<bool>()).prop_map(|(n, at, read_only)| {
        Want::Share(ShareNeed {
            path: format!("/s{n}").into(),
            guest_path: format!("/s{n}/{read_only}/{at}"),
            read_only,
            allowed_names: None,
        })
    });
    let overlay = (0..3u8).prop_map(|n| {
        Want::Overlay(OverlayNeed {
            root: format!("/r{n}"),
            layers: vec!["/a".into()],
            scratch: "/b".into(),
        })
    });
    // A destination is one container's own: that of the other is another place.
    let injected = (0..2u8, 0..2u8).prop_map(|(container, at)| {
        Want::ContainerMount(ContainerMountNeed {
            container: format!("c{container}"),
            source: "/a".into(),
            destination: format!("/t{at}"),
            read_only: at == 0,
        })
    });
    prop_oneof![3 => layer, 4 => disk, 3 => share, 1 => overlay, 1 => injected]
}

fn act() -> impl Strategy<Value = Act> {
    let fate = prop_oneof![3 => Just(Fate::Done), 1 => Just(Fate::Failed), 1 => Just(Fate::FailedWithEffect)];
    prop_oneof![
        3 => prop::collection::vec(want(), 1..4).prop_map(Act::Reserve),
        10 => any::<usize>().prop_map(Act::Next),
        8 => (any::<usize>(), fate).prop_map(|(n, fate)| Act::Finish(n, fate)),
        4 => any::<usize>().prop_map(Act::Release),
        1 => any::<usize>().prop_map(Act::Stale),
    ]
}

struct World {
    ledger: Ledger,
    model: Model,
    live: Vec<Lease>,
    gone: Vec<Lease>,
    pending: Vec<(Lease, Step)>,
    reported: Vec<StepToken>,
}

impl World {
    fn act(&mut self, act: Act) {
        match act {
            Act::Reserve(wants) => self.reserve(wants),
            Act::Next(n) if !self.live.is_empty() => self.next(n % self.live.len()),
            Act::Finish(n, fate) if !self.pending.is_empty() => self.finish(n % self.pending.len(), fate),
            Act::Release(n) if !self.live.is_empty() => {
                self.ledger.release(self.live[n % self.live.len()]).unwrap();
            }
            Act::Stale(n) => self.stale(n),
            _nothing_to_act_on => {}
        }
    }

    fn reserve(&mut self, wants: Vec<Want>) {
        let before = self.ledger.view();
        let count = wants.len();
        match self.ledger.reserve(wants) {
            Ok(leases) => {
                assert_eq!(leases.len(), count);
                self.live.extend(leases);
            }
            Err(_) => assert_eq!(self.ledger.view(), before, "a refusal changes nothing"),
        }
    }

    fn next(&mut self, n: usize) {
        let lease = self.live[n];
        let guest_path = self.ledger.guest_path(lease).unwrap().to_owned();
        match self.ledger.next(lease) {
            Next::Perform(step) => {
                self.model.check(&step.request);
                self.pending.push((lease, step));
            }
            Next::Ready => assert!(
                self.model.is_mounted(&guest_path),
                "{guest_path} is said to be ready"
            ),
            Next::Failed(failure) => {
                let injected = failure.downcast_ref::<Injected>().unwrap();
                assert_eq!((injected.table, injected.slot), (lease.table(), lease.slot()));
                let own = injected
                    .guest_path
                    .as_ref()
                    .is_none_or(|path| *path == guest_path);
                assert!(own, "{guest_path} fails by {injected}");
            }
            Next::Wait => {
                let busy = |(of, _): &(Lease, Step)| (of.table(), of.slot()) == (lease.table(), lease.slot());
                assert!(self.pending.iter().any(busy), "{guest_path} waits for nobody");
            }
            Next::Gone => {
                self.gone.push(self.live.swap_remove(n));
            }
        }
    }

    fn finish(&mut self, n: usize, fate: Fate) {
        let (lease, step) = self.pending.swap_remove(n);
        let success = self.model.perform(&step.request, fate);
        let failure = Injected {
            table: lease.table(),
            slot: lease.slot(),
            guest_path: mount_of(&step.request),
        };
        let result = if success {
            Ok(())
        } else {
            Err(Arc::new(failure) as _)
        };
        self.ledger.outcome(&step.token, result).unwrap();
        self.reported.push(step.token);
    }

    fn stale(&mut self, n: usize) {
        let before = self.ledger.view();
        if let Some(&lease) = self.gone.get(n % self.gone.len().max(1)) {
            assert!(matches!(self.ledger.next(lease), Next::Gone));
            assert_eq!(self.ledger.release(lease), Err(LeaseError::Stale));
            assert_eq!(self.ledger.guest_path(lease), None);
        }
        if let Some(token) = self.reported.get(n % self.reported.len().max(1)) {
            assert!(self.ledger.outcome(token, Ok(())).is_err());
        }
        assert_eq!(self.ledger.view(), before, "what is stale changes nothing");
    }

    /// Faults stop: a bounded number of steps later everything has gone.
    fn wind_down(&mut self) {
        for lease in &self.live {
            self.ledger.release(*lease).unwrap();
        }
        let leases = self.live.len();
        for _round in 0..leases * 8 + 8 {
            while !self.pending.is_empty() {
                self.finish(0, Fate::Done);
            }
            for n in (0..self.live.len()).rev() {
                self.next(n);
            }
        }
        assert_eq!(self.live, [], "some can never be released");
        let view = self.ledger.view();
        assert_eq!((view.scsi.used, view.vpmem.used, view.slots.len()), (0, 0, 0));
        self.model.check_empty();
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "proptest-regressions/interleavings.txt",
        ))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_nothing_is_left_and_nobody_acts_on_what_is_not_his(
        scsi_controllers in prop_oneof![9 => Just(1u8), 1 => Just(0u8)],
        vpmem_devices in 0..3u32,
        acts in prop::collection::vec(act(), 0..250),
    ) {
        let limits = Limits { scsi_controllers, vpmem_devices, vpmem_max_bytes: 1 };
        let mut world = World {
            ledger: Ledger::new(limits),
            model: Model::default(),
            live: Vec::new(),
            gone: Vec::new(),
            pending: Vec::new(),
            reported: Vec::new(),
        };
        for act in acts {
            world.act(act);
        }
        world.wind_down();
    }
}
