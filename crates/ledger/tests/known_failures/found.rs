//! Failures of this ledger, found by reading and by random interleavings.

use cofferdam_ledger::{
    Lease, LeaseError, Ledger, Next, Request, ReserveError, Table, Want, device::DiskNeed,
    request::HostRequest,
};

use crate::{
    is_attach, is_detach, is_empty,
    vm::{Fault, Vm, disk, drive, layer, limits, overlay, path_of, perform, step},
};

#[test]
fn an_outcome_reported_twice_is_not_taken_for_that_of_a_later_step() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let lease = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
    let attach = step(&mut ledger, lease);
    let result = vm.perform(&attach.request, Fault::None);
    ledger.outcome(&attach.token, result).unwrap();
    let mount = step(&mut ledger, lease);
    let result = vm.perform(&mount.request, Fault::None);
    ledger.outcome(&mount.token, result).unwrap();
    ledger.release(lease).unwrap();
    let unmount = step(&mut ledger, lease);
    assert_eq!(ledger.outcome(&mount.token, Ok(())), Err(LeaseError::NoSuchStep));
    let result = vm.perform(&unmount.request, Fault::None);
    ledger.outcome(&unmount.token, result).unwrap();
    let eject = step(&mut ledger, lease);
    assert_eq!(ledger.outcome(&attach.token, Ok(())), Err(LeaseError::NoSuchStep));
    let result = vm.perform(&eject.request, Fault::None);
    ledger.outcome(&eject.token, result).unwrap();
}

/// Takes a disk out as far as the guest's eject; the host's step then fails.
fn stuck_on_detach(ledger: &mut Ledger, vm: &mut Vm) -> Lease {
    let lease = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
    assert!(matches!(drive(ledger, vm, lease), Next::Ready));
    ledger.release(lease).unwrap();
    perform(ledger, vm, lease, Fault::None);
    perform(ledger, vm, lease, Fault::None);
    assert!(is_detach(&perform(ledger, vm, lease, Fault::Before)));
    lease
}

#[test]
fn a_newcomer_to_a_disk_that_cannot_be_pulled_out_fails_instead_of_trying_for_ever() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let stuck = stuck_on_detach(&mut ledger, &mut vm);
    let newcomer = ledger.reserve(vec![Want::Disk(disk(1, "/b", false))]).unwrap()[0];
    assert!(
        is_detach(&perform(&mut ledger, &mut vm, newcomer, Fault::Before)),
        "it tries once"
    );
    assert!(matches!(ledger.next(newcomer), Next::Failed(_)));
    ledger.release(newcomer).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, newcomer), Next::Gone));
    assert!(matches!(drive(&mut ledger, &mut vm, stuck), Next::Gone));
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn a_newcomer_to_a_disk_on_its_way_out_pulls_it_out_and_attaches_it_anew() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let stuck = stuck_on_detach(&mut ledger, &mut vm);
    let newcomer = ledger.reserve(vec![Want::Disk(disk(1, "/b", false))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, newcomer), Next::Ready));
    assert!(vm.has("/b"));
    assert_eq!((vm.attaches, vm.detaches), (2, 1));
    assert!(matches!(drive(&mut ledger, &mut vm, stuck), Next::Gone));
    assert!(
        vm.has("/b"),
        "the one that was stuck leaves the newcomer's disk alone"
    );
}

#[test]
fn a_newcomer_is_not_told_ready_by_an_unmount_whose_answer_was_lost() {
    let (mut ledger, mut vm) = (Ledger::new(limits(1)), Vm::default());
    let first = ledger.reserve(vec![layer(1)]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, first), Next::Ready));
    ledger.release(first).unwrap();
    let unmount = step(&mut ledger, first);
    let newcomer = ledger.reserve(vec![layer(1)]).unwrap()[0];
    let result = vm.perform(&unmount.request, Fault::After);
    ledger.outcome(&unmount.token, result).unwrap();
    match drive(&mut ledger, &mut vm, newcomer) {
        Next::Ready => assert!(
            vm.has(ledger.guest_path(newcomer).unwrap()),
            "ready, but nothing is mounted"
        ),
        Next::Failed(_) => (),
        other => panic!("{other:?}"),
    }
    for lease in [newcomer, first] {
        let _ = ledger.release(lease);
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
    }
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn a_layer_is_never_writable_whoever_comes_first() {
    let rw = || Want::Disk(disk(1, "/d", false));
    for vpmem in [0, 1] {
        for (what, wants) in [
            ("layer first", [layer(1), rw()]),
            ("disk first", [rw(), layer(1)]),
        ] {
            // In one reservation, and in two with the first attached in between.
            let mut ledger = Ledger::new(limits(vpmem));
            let refused = ledger.reserve(wants.to_vec());
            assert!(
                matches!(refused, Err(ReserveError::Conflict { want: 1, .. })),
                "{what}, {vpmem}: {refused:?}"
            );
            assert!(is_empty(&ledger), "nothing stays reserved");

            let mut vm = Vm::default();
            let held = ledger.reserve(vec![wants[0].clone()]).unwrap()[0];
            assert!(matches!(drive(&mut ledger, &mut vm, held), Next::Ready));
            let refused = ledger.reserve(vec![wants[1].clone()]);
            assert!(
                matches!(refused, Err(ReserveError::Conflict { .. })),
                "{what}, {vpmem}: {refused:?}"
            );
        }
    }
}

#[test]
fn a_layer_may_be_a_read_only_disk_as_well() {
    for vpmem in [0, 1] {
        let (mut ledger, mut vm) = (Ledger::new(limits(vpmem)), Vm::default());
        let wants = vec![layer(1), Want::Disk(disk(1, "/d", true))];
        let leases = ledger.reserve(wants).unwrap();
        for lease in &leases {
            assert!(matches!(drive(&mut ledger, &mut vm, *lease), Next::Ready));
        }
    }
}

#[test]
fn read_only_and_writable_users_of_one_disk_share_one_writable_attachment() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let wants = vec![
        Want::Disk(disk(1, "/ro", true)),
        Want::Disk(disk(1, "/rw", false)),
    ];
    let leases = ledger.reserve(wants).unwrap();
    for lease in &leases {
        assert!(matches!(drive(&mut ledger, &mut vm, *lease), Next::Ready));
    }
    assert_eq!(vm.attaches, 1);
    let third = ledger.reserve(vec![Want::Disk(disk(1, "/third", true))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, third), Next::Ready));
    assert_eq!(vm.attaches, 1);
}

#[test]
fn a_writable_user_of_a_disk_attached_read_only_is_refused_with_the_disks_name() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let held = ledger.reserve(vec![Want::Disk(disk(1, "/ro", true))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, held), Next::Ready));
    let refused = ledger
        .reserve(vec![Want::Disk(disk(1, "/rw", false))])
        .unwrap_err();
    assert!(refused.to_string().contains("/host/1"), "{refused}");
    assert_eq!(ledger.view().slots[0].holders, 1);
}

fn auto_managed(file: u64, at: &str) -> DiskNeed {
    DiskNeed {
        auto_manage: true,
        ..disk(file, at, false)
    }
}

#[test]
fn an_auto_managed_file_goes_when_its_disk_is_out_and_only_the_deletion_is_retried() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let lease = ledger.reserve(vec![Want::Disk(auto_managed(1, "/a"))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Ready));
    ledger.release(lease).unwrap();
    for _ in 0..3 {
        perform(&mut ledger, &mut vm, lease, Fault::None);
    }
    let delete = perform(&mut ledger, &mut vm, lease, Fault::Before);
    assert!(matches!(delete, Request::Host(HostRequest::DeleteFile { .. })));
    let before = vm.log.len();
    assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
    assert_eq!(vm.log.len(), before + 1);
    assert!(vm.deleted.contains(&path_of(1)));
}

#[test]
fn all_or_nothing_and_everything_that_is_missing_is_said_at_once() {
    let mut ledger = Ledger::new(limits(1));
    let held = ledger.reserve(vec![layer(900)]).unwrap();
    let wants = (0..66)
        .map(|n| Want::Disk(disk(n, &format!("/d{n}"), false)))
        .collect();
    let ReserveError::Full(missing) = ledger.reserve(wants).unwrap_err() else {
        panic!("full")
    };
    assert_eq!(missing.len(), 1);
    assert_eq!(
        (
            missing[0].table,
            missing[0].wanted,
            missing[0].free,
            missing[0].total
        ),
        (Table::Scsi, 66, 64, 64)
    );
    assert_eq!(ledger.view().scsi.used, 0);
    assert_eq!(ledger.guest_path(held[0]), Some("/run/layers/p0"));
}

#[test]
fn layers_overflow_to_scsi_and_are_shared_even_when_vpmem_is_full() {
    let (mut ledger, mut vm) = (Ledger::new(limits(1)), Vm::default());
    let leases = ledger.reserve(vec![layer(1), layer(2)]).unwrap();
    assert_eq!(ledger.guest_path(leases[0]), Some("/run/layers/p0"));
    assert_eq!(ledger.guest_path(leases[1]), Some("/run/mounts/scsi/m0"));
    let again = ledger.reserve(vec![layer(1), layer(2)]).unwrap();
    for lease in leases.iter().chain(&again) {
        assert!(matches!(drive(&mut ledger, &mut vm, *lease), Next::Ready));
    }
    assert_eq!(vm.attaches, 2);
    for lease in leases {
        ledger.release(lease).unwrap();
        assert!(matches!(ledger.next(lease), Next::Gone));
    }
    assert_eq!(vm.detaches, 0, "the second container holds them still");
    for lease in again {
        ledger.release(lease).unwrap();
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
    }
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn a_refused_overlay_leaves_nothing_of_its_container_reserved() {
    let mut ledger = Ledger::new(limits(1));
    let wants = |scratch: u64| {
        vec![
            layer(1),
            Want::Disk(disk(scratch, &format!("/s{scratch}"), false)),
        ]
    };
    let last = |paths: &[String]| Some(overlay("/rootfs", &paths[..1], &paths[1]));
    let held = ledger.reserve_with(wants(7), last).unwrap();
    let before = serde_json::to_value(ledger.view()).unwrap();
    assert!(ledger.reserve_with(wants(8), last).is_err());
    assert_eq!(serde_json::to_value(ledger.view()).unwrap(), before);
    assert_eq!(held.len(), 3);
}

#[test]
fn a_step_survives_the_journal() {
    let mut ledger = Ledger::new(limits(0));
    let lease = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
    let attach = step(&mut ledger, lease);
    assert!(is_attach(&attach.request));
    let text = serde_json::to_string(&attach).unwrap();
    assert_eq!(
        serde_json::from_str::<cofferdam_ledger::Step>(&text).unwrap(),
        attach
    );
}

/// A container on layer 1 with this scratch file.
fn container(ledger: &mut Ledger, name: &str, scratch: u64) -> Result<Vec<Lease>, ReserveError> {
    let disk = Want::Disk(disk(scratch, &format!("{name}/scratch"), false));
    ledger.reserve_with(vec![layer(1), disk], |paths| {
        Some(overlay(&format!("{name}/rootfs"), &paths[..1], &paths[1]))
    })
}

#[test]
fn two_containers_never_write_to_one_scratch() {
    let (mut ledger, mut vm) = (Ledger::new(limits(1)), Vm::default());
    let first = container(&mut ledger, "/c/1", 7).unwrap();
    let before = ledger.view();
    let refused = container(&mut ledger, "/c/2", 7).unwrap_err();
    assert!(matches!(refused, ReserveError::Conflict { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("/host/7") && text.contains("/c/1/rootfs"), "{text}");
    assert_eq!(ledger.view(), before, "a refusal changes nothing");

    for lease in first.iter().rev() {
        ledger.release(*lease).unwrap();
        assert!(matches!(drive(&mut ledger, &mut vm, *lease), Next::Gone));
    }
    let second = container(&mut ledger, "/c/2", 7).expect("the scratch is free again");
    assert_eq!(second.len(), 3);
}

#[test]
fn a_scratch_that_is_only_held_as_a_disk_is_free_for_the_next_container() {
    let (mut ledger, mut vm) = (Ledger::new(limits(1)), Vm::default());
    let first = container(&mut ledger, "/c/1", 7).unwrap();
    let watcher = ledger.reserve(vec![Want::Disk(disk(7, "/watch", true))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, watcher), Next::Ready));
    for lease in first.iter().rev() {
        ledger.release(*lease).unwrap();
        assert!(matches!(drive(&mut ledger, &mut vm, *lease), Next::Gone));
    }
    assert_eq!(
        container(&mut ledger, "/c/2", 7).map(|leases| leases.len()),
        Ok(3)
    );
}

#[test]
fn an_abandoned_disk_keeps_its_file_and_a_released_one_does_not() {
    for (abandoned, deleted) in [(true, false), (false, true)] {
        let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
        let lease = ledger.reserve(vec![Want::Disk(auto_managed(1, "/a"))]).unwrap()[0];
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Ready));
        if abandoned {
            ledger.abandon(lease).unwrap();
        } else {
            ledger.release(lease).unwrap();
        }
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
        assert!(is_empty(&ledger) && vm.is_empty());
        assert_eq!(vm.deleted.contains(&path_of(1)), deleted);
        assert_eq!(ledger.abandon(lease), Err(LeaseError::Stale));
    }
}

#[test]
fn a_file_released_by_one_holder_goes_when_the_last_one_abandons_it() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let wants = ["/a", "/b"].map(|at| Want::Disk(auto_managed(1, at)));
    let leases = ledger.reserve(wants.to_vec()).unwrap();
    for lease in &leases {
        assert!(matches!(drive(&mut ledger, &mut vm, *lease), Next::Ready));
    }
    ledger.release(leases[0]).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, leases[0]), Next::Gone));
    ledger.abandon(leases[1]).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, leases[1]), Next::Gone));
    assert!(vm.deleted.contains(&path_of(1)));
}

#[test]
fn a_retried_abandoning_keeps_the_file_still_and_a_release_after_it_does_not() {
    for (again, deleted) in [(true, false), (false, true)] {
        let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
        let lease = ledger.reserve(vec![Want::Disk(auto_managed(1, "/a"))]).unwrap()[0];
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Ready));
        ledger.abandon(lease).unwrap();
        perform(&mut ledger, &mut vm, lease, Fault::Before);
        if again {
            ledger.abandon(lease).unwrap();
        } else {
            ledger.release(lease).unwrap();
        }
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
        assert_eq!(vm.deleted.contains(&path_of(1)), deleted);
    }
}
