//! Mounts of a running container when something fails: all or nothing on the way in, retryable on the way out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_pod;

use std::time::Duration;

use cofferdam_backend::fake::{Fault, FaultPoint, HostStep};
use cofferdam_container::{AllocateError, HotMountError};
use fake_pod::{
    Pod,
    running::{Before, Container, MANAGED, add_managed, new_managed_disk},
};

async fn steps_of(add: bool) -> u64 {
    let pod = Pod::boot().await;
    new_managed_disk(&pod);
    let container = Container::run(&pod, "a").await;
    let mut before = pod.backend.steps().len();
    add_managed(&pod, &container).await.unwrap();
    let mut steps = pod.backend.steps().len() - before;
    if !add {
        before = pod.backend.steps().len();
        container.remove("/later").await.unwrap();
        steps = pod.backend.steps().len() - before;
    }
    container.end(&pod).await;
    steps as u64
}

#[tokio::test]
async fn a_failure_at_any_step_of_an_addition_undoes_all_of_it_and_keeps_the_managed_file() {
    let steps = steps_of(true).await;
    assert_eq!(steps, 3, "attach, mount in the VM, mount in the container");
    for fault in [Fault::Fail("no".into()), Fault::FailAfter("no".into())] {
        for nth in 1..=steps {
            let when = format!("{fault:?} at step {nth}");
            let pod = Pod::boot().await;
            let managed = new_managed_disk(&pod);
            let container = Container::run(&pod, "a").await;
            let before = Before::of(&pod);
            pod.backend.faults().inject(FaultPoint::Any, nth, fault.clone());
            let error = add_managed(&pod, &container).await.expect_err(&when);
            let HotMountError::Allocate(AllocateError::Failed {
                subject,
                failure,
                clean_up,
            }) = &error
            else {
                panic!("{when}: {error}")
            };
            assert!(failure.to_string().ends_with("no"), "{when}: {error}");
            assert_eq!(subject.mount_index(), Some(5), "{when}");
            assert!(clean_up.is_none(), "{when}: {error}");
            assert!(managed.exists(), "{when}");
            assert!(container.destinations(&pod).is_empty(), "{when}");
            before.is_so_again(&pod, &when);
            add_managed(&pod, &container).await.expect(&when);
            container.remove("/later").await.expect(&when);
            assert!(!managed.exists(), "{when}");
            container.end(&pod).await;
            pod.assert_empty(&when);
        }
    }
}

#[tokio::test]
async fn a_failure_at_any_step_of_a_removal_is_reported_and_the_next_call_finishes() {
    let steps = steps_of(false).await;
    assert_eq!(steps, 5, "out of the container, unmount, eject, detach, delete");
    for fault in [Fault::Fail("busy".into()), Fault::FailAfter("busy".into())] {
        for nth in 1..=steps {
            let when = format!("{fault:?} at step {nth}");
            let pod = Pod::boot().await;
            let managed = new_managed_disk(&pod);
            let container = Container::run(&pod, "a").await;
            let before = Before::of(&pod);
            add_managed(&pod, &container).await.unwrap();
            pod.backend.faults().inject(FaultPoint::Any, nth, fault.clone());
            let error = container.remove("/later").await.expect_err(&when);
            assert!(error.to_string().contains("mount 5: "), "{when}: {error}");
            assert_eq!(container.allocation.mounts().list().len(), 1, "{when}");
            container.remove("/later").await.expect(&when);
            assert!(!managed.exists(), "{when}");
            assert!(container.allocation.mounts().is_empty(), "{when}");
            before.is_so_again(&pod, &when);
            container.end(&pod).await;
            pod.assert_empty(&when);
        }
    }
}

#[tokio::test]
async fn a_vm_that_dies_at_any_step_leaves_nothing_held() {
    for (add, steps) in [(true, steps_of(true).await), (false, steps_of(false).await - 1)] {
        for nth in 1..=steps {
            let when = format!(
                "death at step {nth} of an {}",
                if add { "addition" } else { "removal" }
            );
            let pod = Pod::boot().await;
            let managed = new_managed_disk(&pod);
            let mut container = Container::run(&pod, "a").await;
            if !add {
                add_managed(&pod, &container).await.unwrap();
            }
            pod.backend.faults().inject(FaultPoint::Any, nth, Fault::Die);
            if add {
                add_managed(&pod, &container).await.expect_err(&when);
                assert!(managed.exists(), "{when}");
            } else {
                container.remove("/later").await.expect(&when);
                assert!(!managed.exists(), "{when}");
            }
            container.allocation.release().await.expect(&when);
            assert!(pod.vm.driver().ledger().view().slots.is_empty(), "{when}");
        }
    }
}

#[tokio::test]
async fn an_addition_that_is_cancelled_leaves_nothing_and_the_release_waits_for_one_that_is_not() {
    for nth in 1..=3 {
        let when = format!("cancelled at step {nth}");
        let pod = Pod::boot().await;
        let managed = new_managed_disk(&pod);
        let mut container = Container::run(&pod, "a").await;
        let before = Before::of(&pod);
        let plan = container.plan(&pod, MANAGED.0, MANAGED.1, MANAGED.2);
        let mounts = container.allocation.mounts().clone();
        pod.backend.faults().inject(FaultPoint::Any, nth, Fault::Hang);
        let adding = tokio::spawn(async move { mounts.add("a", &plan).await.map(drop) });
        pod.backend.faults().hanging(1).await;
        if nth == 3 {
            // This one goes on: the container's release waits for it, and takes it with it.
            container.kill().await;
            let releasing = tokio::spawn(async move { container.allocation.release().await });
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!releasing.is_finished());
            pod.backend.faults().release();
            drop(adding.await.unwrap());
            releasing.await.unwrap().unwrap();
            pod.assert_empty(&when);
            continue;
        }
        adding.abort();
        drop(adding.await);
        pod.backend.faults().release();
        for _ in 0..500 {
            if pod.vm.driver().ledger().view().slots.len() == before.slots {
                break;
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        before.is_so_again(&pod, &when);
        assert!(managed.exists(), "{when}");
        container.end(&pod).await;
        pod.assert_empty(&when);
    }
}

#[tokio::test]
async fn a_dropped_allocation_takes_its_further_mounts_with_it() {
    let pod = Pod::boot().await;
    let managed = new_managed_disk(&pod);
    let mut container = Container::run(&pod, "a").await;
    add_managed(&pod, &container).await.unwrap();
    container.kill().await;
    drop(container);
    for _ in 0..500 {
        if pod.vm.driver().ledger().view().slots.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    pod.assert_empty("after the drop");
    assert!(!managed.exists());
}

#[test]
fn a_runtime_that_ends_drops_what_is_allocated_without_trying_for_ever() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (pod, container) = runtime.block_on(async {
        let pod = Pod::boot().await;
        new_managed_disk(&pod);
        let container = Container::run(&pod, "a").await;
        add_managed(&pod, &container).await.unwrap();
        (pod, container)
    });
    runtime.spawn(async move {
        let _held = container;
        std::future::pending::<()>().await;
    });
    drop(runtime);
    assert!(!pod.vm.driver().ledger().view().slots.is_empty());
}

#[tokio::test]
async fn a_failed_detach_of_a_further_disk_is_retried_alone() {
    let pod = Pod::boot().await;
    let container = Container::run(&pod, "a").await;
    std::fs::write(pod.path("own.vhdx"), "content").unwrap();
    container.add_new(&pod, "virtual-disk", "own.vhdx", "/own").await;
    pod.backend
        .faults()
        .fail(FaultPoint::Host(HostStep::DetachScsi), 1, "in use");
    container.remove("/own").await.unwrap_err();
    let before = pod.backend.steps().len();
    container.remove("/own").await.unwrap();
    let again: Vec<_> = pod.backend.steps()[before..]
        .iter()
        .map(|step| step.point)
        .collect();
    assert_eq!(again, [FaultPoint::Host(HostStep::DetachScsi)]);
    assert!(pod.path("own.vhdx").exists());
    container.end(&pod).await;
    pod.assert_empty("at the end");
}
