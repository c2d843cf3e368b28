//! Failures that other utility VM managers are known for, each as a test of its own: here those of others, in
//! [`found`] those of this ledger.

#![expect(clippy::unwrap_used, reason = "functions of tests fail by panicking")]

mod container_mounts;
mod found;
mod vm;

use cofferdam_ledger::{
    Lease, LeaseError, Ledger, Next, Request, Want,
    request::{GuestRequest, HostRequest},
};
use vm::{Fault, Vm, disk, drive, layer, limits, perform, share, step};

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
fn two_holders(ledger: &mut Ledger) -> [Lease; 2] {
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
