//! Allocation and release on a fake VM: all or nothing, and nothing left, whatever fails.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_pod;

use std::{sync::Arc, time::Duration};

use cofferdam_backend::fake::{Fault, FaultPoint, GuestStep, HostStep};
use cofferdam_container::{AllocateError, Allocation, left_behind};
use fake_pod::Pod;

#[tokio::test]
async fn what_was_allocated_is_given_back_and_the_managed_file_is_deleted() {
    let pod = Pod::boot().await;
    let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
        .await
        .unwrap();
    assert_eq!(
        pod.backend.attach_count(),
        7,
        "two layers, scratch, two disks, two shares"
    );
    let held = left_behind(&pod.vm).await.unwrap().join("\n");
    // Of each of the three tables.
    for part in [
        "slots of the ledger",
        "SCSI 0:0",
        "share 1",
        "an overlay mounted on /run/gcs/c/1/rootfs",
    ] {
        assert!(held.contains(part), "{part} is not in\n{held}");
    }
    allocation.release().await.unwrap();
    pod.assert_empty("after the release");
    assert_eq!(pod.backend.attach_count(), pod.backend.detach_count());
    assert!(!pod.managed_disk("a").exists());
    assert_eq!(left_behind(&pod.vm).await.unwrap(), [""; 0]);
    allocation.release().await.unwrap();
}

#[tokio::test]
async fn a_failure_at_any_step_of_an_allocation_undoes_all_of_it() {
    let steps = steps_of_an_allocation().await;
    for fault in [Fault::Fail("no".into()), Fault::FailAfter("no".into())] {
        for nth in 1..=steps {
            let when = format!("{fault:?} at step {nth}");
            let pod = Pod::boot().await;
            let plan = pod.container("a");
            pod.backend.faults().inject(FaultPoint::Any, nth, fault.clone());
            let Err(error) = Allocation::allocate(pod.vm.driver(), &plan).await else {
                panic!("{when}")
            };
            let AllocateError::Failed {
                clean_up, failure, ..
            } = &error
            else {
                panic!("{when}: {error}")
            };
            assert!(failure.to_string().contains("no"), "{when}: {error}");
            assert!(clean_up.is_none(), "{when}: {error}");
            pod.assert_empty(&when);
            let mut again = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
                .await
                .expect(&when);
            again.release().await.expect(&when);
        }
    }
}

async fn steps_of_an_allocation() -> u64 {
    let pod = Pod::boot().await;
    let plan = pod.container("a");
    let before = pod.backend.steps().len();
    let mut allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
    let steps = pod.backend.steps().len() - before;
    allocation.release().await.unwrap();
    steps as u64
}

#[tokio::test]
async fn a_failure_at_any_step_of_a_release_is_reported_and_the_next_call_finishes() {
    let steps = steps_of_a_release().await;
    for fault in [Fault::Fail("busy".into()), Fault::FailAfter("busy".into())] {
        for nth in 1..=steps {
            let when = format!("{fault:?} at step {nth}");
            let pod = Pod::boot().await;
            let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
                .await
                .unwrap();
            pod.backend.faults().inject(FaultPoint::Any, nth, fault.clone());
            let error = allocation.release().await.expect_err(&when);
            assert_eq!(error.failures.len(), 1, "{when}: {error}");
            assert!(!allocation.is_released(), "{when}");
            allocation.release().await.expect(&when);
            pod.assert_empty(&when);
            assert!(!pod.managed_disk("a").exists(), "{when}");
        }
    }
}

#[tokio::test]
async fn a_failed_detach_after_the_guests_eject_is_retried_alone() {
    let pod = Pod::boot().await;
    let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
        .await
        .unwrap();
    pod.backend
        .faults()
        .fail(FaultPoint::Host(HostStep::DetachScsi), 1, "in use");
    allocation.release().await.unwrap_err();
    let before = pod.backend.steps().len();
    allocation.release().await.unwrap();
    let again: Vec<_> = pod.backend.steps()[before..]
        .iter()
        .map(|step| step.point)
        .collect();
    let expected = [FaultPoint::Host(HostStep::DetachScsi)];
    assert!(
        again == expected || again == [expected[0], FaultPoint::Host(HostStep::DeleteFile)],
        "{again:?}"
    );
    pod.assert_empty("after the retry");
}

#[tokio::test]
async fn a_vm_that_dies_at_any_step_leaves_nothing_held() {
    for nth in 1..=steps_of_an_allocation().await {
        let when = format!("death at step {nth}");
        let pod = Pod::boot().await;
        let plan = pod.container("a");
        pod.backend.faults().inject(FaultPoint::Any, nth, Fault::Die);
        let Err(error) = Allocation::allocate(pod.vm.driver(), &plan).await else {
            panic!("{when}")
        };
        let AllocateError::Failed { clean_up, .. } = &error else {
            panic!("{when}: {error}")
        };
        assert!(clean_up.is_none(), "{when}: {error}");
        assert!(pod.vm.driver().ledger().view().slots.is_empty(), "{when}");
    }
}

#[tokio::test]
async fn a_vm_that_dies_at_any_step_of_a_release_leaves_nothing_held() {
    for nth in 1..=steps_of_a_release().await {
        let when = format!("death at step {nth}");
        let pod = Pod::boot().await;
        let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
            .await
            .unwrap();
        pod.backend.faults().inject(FaultPoint::Any, nth, Fault::Die);
        // What a VM held goes with it: no step of the release fails for that.
        allocation.release().await.expect(&when);
        assert!(allocation.is_released(), "{when}");
        assert!(pod.vm.driver().ledger().view().slots.is_empty(), "{when}");
        assert!(!pod.managed_disk("a").exists(), "{when}");
    }
}

#[tokio::test]
async fn a_release_that_is_cancelled_at_any_step_goes_on_when_it_is_called_again() {
    for nth in 1..=steps_of_a_release().await {
        let when = format!("cancelled at step {nth}");
        let pod = Pod::boot().await;
        let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
            .await
            .unwrap();
        let faults = pod.backend.faults();
        faults.inject(FaultPoint::Any, nth, Fault::Hang);
        tokio::select! {
            released = allocation.release() => panic!("{when}: {released:?}"),
            () = faults.hanging(1) => {}
        }
        assert!(!allocation.is_released(), "{when}");
        faults.release();
        allocation.release().await.expect(&when);
        pod.assert_empty(&when);
        assert!(!pod.managed_disk("a").exists(), "{when}");
    }
}

async fn steps_of_a_release() -> u64 {
    let pod = Pod::boot().await;
    let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
        .await
        .unwrap();
    let before = pod.backend.steps().len();
    allocation.release().await.unwrap();
    (pod.backend.steps().len() - before) as u64
}

#[tokio::test(start_paused = true)]
async fn a_dropped_allocation_is_released_however_often_that_fails_at_first() {
    for failures in [1, 2, 5] {
        let when = format!("{failures} failures");
        let pod = Pod::boot().await;
        let plan = pod.container("a");
        let allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
        let unmount = FaultPoint::Guest(GuestStep::RemoveCombinedLayers);
        for nth in 1..=failures {
            pod.backend.faults().fail(unmount, nth, "busy");
        }
        drop(allocation);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(pod.backend.faults().pending(), 0, "{when}");
        pod.assert_empty(&when);
    }
}

#[tokio::test]
async fn the_managed_file_of_a_vm_that_died_is_deleted_all_the_same() {
    let pod = Pod::boot().await;
    let mut allocation = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
        .await
        .unwrap();
    pod.backend.kill_vm();
    allocation.release().await.unwrap();
    assert!(!pod.managed_disk("a").exists());
}

#[tokio::test]
async fn containers_share_layers_and_disks_and_outlive_each_others_failures() {
    let pod = Pod::boot().await;
    let mut first = Allocation::allocate(pod.vm.driver(), &pod.container("a"))
        .await
        .unwrap();
    assert_eq!(pod.backend.attach_count(), 7);
    // The second container's own scratch fails.
    pod.backend
        .faults()
        .fail(FaultPoint::Host(HostStep::AttachScsi), 1, "damaged");
    let Err(error) = Allocation::allocate(pod.vm.driver(), &pod.container("b")).await else {
        panic!("no failure")
    };
    assert!(error.to_string().contains("damaged"), "{error}");
    let mut third = Allocation::allocate(pod.vm.driver(), &pod.container("c"))
        .await
        .unwrap();
    first.release().await.unwrap();
    assert_eq!(
        pod.backend.host_devices().vpmem.len(),
        2,
        "the layers are held by the third"
    );
    third.release().await.unwrap();
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn a_second_user_of_a_layer_waits_for_the_first_ones_attach_and_shares_its_failure() {
    let pod = Pod::boot().await;
    let (a, b) = (pod.container("a"), pod.container("b"));
    pod.backend.faults().inject(
        FaultPoint::Host(HostStep::AttachVpmem),
        1,
        Fault::Delay(Duration::from_millis(50)),
    );
    pod.backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::MountVpmem), 1, "bad superblock");
    let (a, b) = tokio::join!(
        Allocation::allocate(pod.vm.driver(), &a),
        Allocation::allocate(pod.vm.driver(), &b)
    );
    for outcome in [a, b] {
        let Err(error) = outcome else {
            panic!("a container without its layer")
        };
        assert!(error.to_string().contains("bad superblock"), "{error}");
    }
    pod.assert_empty("after both");
}

#[tokio::test]
async fn an_allocation_that_is_cancelled_leaves_nothing() {
    for nth in 1..=steps_of_an_allocation().await {
        let when = format!("cancelled at step {nth}");
        let pod = Arc::new(Pod::boot().await);
        let plan = pod.container("a");
        pod.backend.faults().inject(FaultPoint::Any, nth, Fault::Hang);
        let vm = pod.vm.clone();
        let allocating =
            tokio::spawn(async move { Allocation::allocate(vm.driver(), &plan).await.map(drop) });
        pod.backend.faults().hanging(1).await;
        allocating.abort();
        drop(allocating.await);
        pod.backend.faults().release();
        for _ in 0..500 {
            if pod.vm.driver().ledger().view().slots.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        pod.assert_empty(&when);
    }
}

#[tokio::test]
async fn a_vm_without_room_refuses_with_what_is_missing_and_touches_nothing() {
    let pod = Pod::boot().await;
    let mut plan = pod.container("a");
    let one = plan.needs.disks[0].clone();
    plan.needs.disks.extend((0..300).map(|n| {
        let mut disk = one.clone();
        disk.identity.inode = 1_000_000_000 + n;
        disk.guest_path = format!("{}-{n}", one.guest_path);
        disk
    }));
    let before = pod.backend.steps().len();
    let Err(error) = Allocation::allocate(pod.vm.driver(), &plan).await else {
        panic!("303 disks in 256 slots")
    };
    assert!(matches!(error, AllocateError::Refused(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("303 SCSI disks wanted, 256 of 256 free"),
        "{error}"
    );
    assert_eq!(pod.backend.steps().len(), before);
    pod.assert_empty("after the refusal");
}
