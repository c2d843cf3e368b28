//! Mounts of running containers: a table without devices, whose destinations are one container's own.

use cofferdam_ledger::{Lease, Ledger, Next, Request, ReserveError, Table, Want, request::GuestRequest};

use crate::{
    is_empty,
    vm::{Fault, Vm, container_mount, disk, drive, limits, perform},
};

/// A disk, and its mount in a container.
fn hot_disk(ledger: &mut Ledger, file: u64, container: &str, at: &str) -> Result<Vec<Lease>, ReserveError> {
    let guest_path = format!("/run/gcs/c/{container}/m{file}");
    ledger.reserve_with(vec![Want::Disk(disk(file, &guest_path, false))], |paths| {
        Some(container_mount(container, &paths[0], at))
    })
}

fn bring_in(ledger: &mut Ledger, vm: &mut Vm, leases: &[Lease]) {
    for lease in leases {
        assert!(matches!(drive(ledger, vm, *lease), Next::Ready));
    }
}

/// The way out is the way in backwards: the container's mount before the disk it is of.
fn take_out(ledger: &mut Ledger, vm: &mut Vm, leases: &[Lease]) {
    for lease in leases.iter().rev() {
        ledger.release(*lease).unwrap();
        assert!(matches!(drive(ledger, vm, *lease), Next::Gone));
    }
}

fn is_removal(request: &Request) -> bool {
    matches!(request, Request::Guest(GuestRequest::RemoveContainerMount { .. }))
}

#[test]
fn one_disk_is_mounted_in_two_running_containers_on_one_destination() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let first = hot_disk(&mut ledger, 1, "a", "/data").unwrap();
    let second = hot_disk(&mut ledger, 1, "b", "/data").unwrap();
    assert_eq!(first[1].table(), Table::ContainerMounts);
    assert_eq!(ledger.guest_path(second[1]), Some("b:/data"));
    bring_in(&mut ledger, &mut vm, &first);
    bring_in(&mut ledger, &mut vm, &second);
    assert_eq!((ledger.view().scsi.used, vm.attaches), (1, 1));
    assert_eq!(vm.in_container("a", "/data"), Some("/run/gcs/c/a/m1"));
    assert_eq!(vm.in_container("b", "/data"), Some("/run/gcs/c/b/m1"));
    take_out(&mut ledger, &mut vm, &first);
    assert!(vm.in_container("b", "/data").is_some() && ledger.view().scsi.used == 1);
    take_out(&mut ledger, &mut vm, &second);
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn a_second_mount_on_a_destination_is_refused_and_takes_no_disk() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let first = hot_disk(&mut ledger, 1, "a", "/data").unwrap();
    bring_in(&mut ledger, &mut vm, &first);
    let before = ledger.view();
    let refused = hot_disk(&mut ledger, 2, "a", "/data").unwrap_err();
    let ReserveError::Conflict { want, reason } = refused else {
        panic!("{refused}")
    };
    assert_eq!(want, 1);
    assert_eq!(
        reason,
        "container a has a mount on /data already that was added while it runs"
    );
    assert_eq!(ledger.view(), before, "the disk was not taken either");
    take_out(&mut ledger, &mut vm, &first);
    let again = hot_disk(&mut ledger, 2, "a", "/data").unwrap();
    take_out(&mut ledger, &mut vm, &again);
    assert!(is_empty(&ledger) && vm.is_empty());
}

#[test]
fn a_mount_whose_answer_was_lost_is_taken_out_again() {
    for fault in [Fault::Before, Fault::After] {
        let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
        let leases = hot_disk(&mut ledger, 1, "a", "/data").unwrap();
        bring_in(&mut ledger, &mut vm, &leases[..1]);
        perform(&mut ledger, &mut vm, leases[1], fault);
        assert!(matches!(ledger.next(leases[1]), Next::Failed(_)));
        ledger.abandon(leases[1]).unwrap();
        assert!(is_removal(&perform(&mut ledger, &mut vm, leases[1], Fault::None)));
        assert!(matches!(ledger.next(leases[1]), Next::Gone));
        take_out(&mut ledger, &mut vm, &leases[..1]);
        assert!(is_empty(&ledger) && vm.is_empty());
    }
}

#[test]
fn a_busy_mount_is_retried_alone_and_holds_its_destination_until_then() {
    let (mut ledger, mut vm) = (Ledger::new(limits(0)), Vm::default());
    let leases = hot_disk(&mut ledger, 1, "a", "/data").unwrap();
    bring_in(&mut ledger, &mut vm, &leases);
    ledger.release(leases[1]).unwrap();
    for _ in 0..3 {
        assert!(is_removal(&perform(
            &mut ledger,
            &mut vm,
            leases[1],
            Fault::Before
        )));
        hot_disk(&mut ledger, 2, "a", "/data").unwrap_err();
    }
    take_out(&mut ledger, &mut vm, &leases);
    assert!(is_empty(&ledger) && vm.is_empty());
}
