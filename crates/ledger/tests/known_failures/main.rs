//! Failures that other utility VM managers are known for, and those found here, each as a test of its own.

#![expect(clippy::unwrap_used, reason = "functions of tests fail by panicking")]

mod vm;

use cofferdam_ledger::{
    LeaseError, Ledger, Next, Request, ReserveError, Table, Want,
    device::DiskNeed,
    request::{GuestRequest, HostRequest},
};
use vm::{Fault, Vm, disk, drive, layer, limits, overlay, path_of, perform, share, step};

fn is_detach(request: &Request) -> bool {
    matches!(request, Request::Host(HostRequest::DetachScsi { .. }))
}

fn is_attach(request: &Request) -> bool {
    matches!(request, Request::Host(HostRequest::AttachScsi { .. }))
}

fn is_empty(ledger: &Ledger) -> bool {
    let view = ledger.view();
    view.slots.is_empty() && view.scsi.used == 0 && view.vpmem.used == 0
}

/// Two holders of one disk, under two guest paths.
fn two_holders(ledger: &mut Ledger) -> [cofferdam_ledger::Lease; 2] {
    ["/a", "/b"].map(|at| ledger.reserve(vec![Want::Disk(disk(1, at, false))]).unwrap()[0])
}

#[test]
fn a_second_user_of_a_disk_sees_the_failure_of_the_first_attach() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let [first, second] = two_holders(&mut ledger);
    let attach = step(&mut ledger, first);
    assert!(
        matches!(ledger.next(second), Next::Wait),
        "the second waits for that attach"
    );
    let result = vm.perform(&attach.request, Fault::Before);
    ledger.outcome(&attach.token, result).unwrap();
    for lease in [first, second] {
        let Next::Failed(failure) = ledger.next(lease) else {
            panic!("both see the failure")
        };
        assert!(failure.to_string().contains("AttachScsi"));
    }
}

#[test]
fn b_a_failed_removal_is_retried_and_the_disk_goes() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let lease = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Ready));
    ledger.release(lease).unwrap();
    for _ in 0..3 {
        perform(&mut ledger, &mut vm, lease, Fault::Before);
        ledger.release(lease).unwrap();
    }
    assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
    assert!(is_empty(&ledger) && vm.is_empty());
    assert_eq!(
        ledger.release(lease),
        Err(LeaseError::Stale),
        "a second release finds nothing"
    );
    assert_eq!(ledger.view().scsi.used, 0, "and counts nothing twice");
}

#[test]
fn c_a_failed_guest_mount_leaves_slot_and_path_usable() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    for fault in [Fault::Before, Fault::After, Fault::None] {
        let lease = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
        assert_eq!(lease.slot(), 0, "the slot is usable again");
        perform(&mut ledger, &mut vm, lease, Fault::None);
        perform(&mut ledger, &mut vm, lease, fault);
        match ledger.next(lease) {
            Next::Ready => assert!(fault == Fault::None && vm.has("/a")),
            Next::Failed(_) => assert_ne!(fault, Fault::None),
            other => panic!("{other:?}"),
        }
        ledger.release(lease).unwrap();
        assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
        assert!(is_empty(&ledger) && vm.is_empty());
    }
}

#[test]
fn d_reserve_and_release_without_attaching_frees_the_slot_without_a_step() {
    let mut ledger = Ledger::new(limits(1));
    let wants = vec![layer(1), Want::Disk(disk(2, "/a", false)), share(3, "/b", true)];
    let leases = ledger.reserve(wants).unwrap();
    for lease in leases {
        ledger.release(lease).unwrap();
        assert!(matches!(ledger.next(lease), Next::Gone));
    }
    assert!(is_empty(&ledger));
}

#[test]
fn e_after_a_failed_attach_one_leaves_and_the_other_gets_the_error() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let [first, second] = two_holders(&mut ledger);
    perform(&mut ledger, &mut vm, first, Fault::After);
    ledger.release(first).unwrap();
    assert!(
        matches!(ledger.next(first), Next::Gone),
        "others hold it: it just leaves"
    );
    assert!(matches!(ledger.next(second), Next::Failed(_)));
    ledger.release(second).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, second), Next::Gone));
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn f_a_stale_holder_touches_nothing_of_the_slots_next_owner() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let stale = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
    let attach = step(&mut ledger, stale);
    let result = vm.perform(&attach.request, Fault::Before);
    ledger.outcome(&attach.token, result).unwrap();
    ledger.release(stale).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, stale), Next::Gone));

    let owner = ledger.reserve(vec![Want::Disk(disk(2, "/b", false))]).unwrap()[0];
    assert_eq!(owner.slot(), stale.slot());
    let theirs = step(&mut ledger, owner);
    assert!(matches!(ledger.next(stale), Next::Gone));
    assert_eq!(ledger.release(stale), Err(LeaseError::Stale));
    assert_eq!(ledger.guest_path(stale), None);
    assert_eq!(ledger.outcome(&attach.token, Ok(())), Err(LeaseError::Stale));
    let result = vm.perform(&theirs.request, Fault::None);
    ledger.outcome(&theirs.token, result).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, owner), Next::Ready));
}

#[test]
fn g_a_cancelled_waiter_takes_its_reference_with_it() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let [first, waiter] = two_holders(&mut ledger);
    let attach = step(&mut ledger, first);
    assert!(matches!(ledger.next(waiter), Next::Wait));
    ledger.release(waiter).unwrap();
    assert!(
        matches!(ledger.next(waiter), Next::Gone),
        "it need not wait to leave"
    );
    assert_eq!(ledger.view().slots[0].holders, 1);
    let result = vm.perform(&attach.request, Fault::None);
    ledger.outcome(&attach.token, result).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, first), Next::Ready));
    assert!(!vm.has("/b"), "nothing was mounted for the waiter");
    ledger.release(first).unwrap();
    assert!(matches!(drive(&mut ledger, &mut vm, first), Next::Gone));
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn h_after_the_guests_eject_only_the_host_step_is_retried() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let lease = ledger.reserve(vec![Want::Disk(disk(1, "/a", false))]).unwrap()[0];
    assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Ready));
    ledger.release(lease).unwrap();
    perform(&mut ledger, &mut vm, lease, Fault::None);
    let eject = perform(&mut ledger, &mut vm, lease, Fault::None);
    assert!(matches!(eject, Request::Guest(GuestRequest::EjectScsi { .. })));
    assert!(is_detach(&perform(&mut ledger, &mut vm, lease, Fault::Before)));
    let before = vm.log.len();
    assert!(matches!(drive(&mut ledger, &mut vm, lease), Next::Gone));
    assert!(vm.log[before..].iter().all(is_detach), "{:?}", &vm.log[before..]);
}

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
fn stuck_on_detach(ledger: &mut Ledger, vm: &mut Vm) -> cofferdam_ledger::Lease {
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
