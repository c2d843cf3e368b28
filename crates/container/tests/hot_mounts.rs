//! Mounts of a running container on a fake VM: what comes in, what is refused, and that they go with their container.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_pod;

use cofferdam_backend::fake::{FakeOptions, FaultPoint, GuestStep};
use cofferdam_container::{AllocateError, HotMountError, Mounted};
use fake_pod::{
    Pod,
    running::{Before, Container, MANAGED, add_managed, new_managed_disk},
};

#[tokio::test]
async fn every_kind_comes_into_the_running_container_and_goes_again() {
    let pod = Pod::boot().await;
    let managed = new_managed_disk(&pod);
    let container = Container::run(&pod, "a").await;
    let before = Before::of(&pod);
    // The container's spec has five mounts of its own.
    let first = container.add_new(&pod, "bind", "share", "/hot/dir").await;
    assert_eq!(
        first,
        Mounted {
            index: 5,
            destination: "/hot/dir".into(),
            host_path: Some(pod.path("share")),
            read_only: false
        }
    );
    let file = container.add_new(&pod, "bind", "share/one", "//file").await;
    assert_eq!(file.host_path, Some(pod.path("share/one")));
    container
        .add_new(&pod, "virtual-disk", "data.qcow2", "/disk")
        .await;
    container.add_new(&pod, MANAGED.0, MANAGED.1, MANAGED.2).await;
    container.add_new(&pod, "bind", "sandbox:///s", "/s").await;
    let inside = pod.backend.container_mounts("a");
    assert_eq!(inside["/file"].source, "/run/gcs/c/1/mounts/m6/one");
    assert_eq!(inside["/s"].source, "sandbox:///s");
    let listed: Vec<_> = container
        .allocation
        .mounts()
        .list()
        .into_iter()
        .map(|m| m.index)
        .collect();
    assert_eq!((listed, inside.len()), (vec![5, 6, 7, 8, 9], 5));
    for destination in ["/hot//dir", "/file", "/disk", "/later/", "/s"] {
        assert!(managed.exists() || destination == "/s");
        container.remove(destination).await.unwrap();
    }
    assert!(!managed.exists(), "deleted with its mount");
    assert!(pod.path("data.qcow2").exists());
    assert!(container.destinations(&pod).is_empty());
    before.is_so_again(&pod, "after all removals");
    container.end(&pod).await;
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn two_running_containers_share_one_disk_on_one_destination() {
    let pod = Pod::boot().await;
    let (a, b) = (Container::run(&pod, "a").await, Container::run(&pod, "b").await);
    std::fs::write(pod.path("both.vhdx"), "content").unwrap();
    let attached = pod.backend.attach_count();
    let (first, second) = tokio::join!(
        a.add_new(&pod, "virtual-disk", "both.vhdx", "/both"),
        b.add_new(&pod, "virtual-disk", "both.vhdx", "/both")
    );
    assert_eq!(first, second);
    assert_eq!(pod.backend.attach_count(), attached + 1);
    a.remove("/both").await.unwrap();
    assert_eq!((a.destinations(&pod).len(), b.destinations(&pod).len()), (0, 1));
    b.remove("/both").await.unwrap();
    a.end(&pod).await;
    b.end(&pod).await;
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn a_second_mount_on_a_destination_is_refused_and_another_container_may_have_it() {
    let pod = Pod::boot().await;
    let (a, b) = (Container::run(&pod, "a").await, Container::run(&pod, "b").await);
    a.add_new(&pod, "bind", "share", "/d").await;
    let (before, steps) = (Before::of(&pod), pod.backend.steps().len());
    let error = a
        .add(&a.plan(&pod, "virtual-disk", "data.qcow2", "/./d"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "mount 6: container a has a mount on /d already that was added while it runs"
    );
    assert_eq!(pod.backend.steps().len(), steps, "nothing was touched");
    before.is_so_again(&pod, "after the refusal");
    b.add_new(&pod, "bind", "share", "/d").await;
    assert!(matches!(
        a.remove("/elsewhere").await,
        Err(HotMountError::NotMounted { .. })
    ));
    assert!(matches!(a.remove("d").await, Err(HotMountError::Destination(_))));
    a.end(&pod).await;
    b.end(&pod).await;
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn releasing_the_container_releases_its_further_mounts_first_the_latest_before_the_others() {
    let pod = Pod::boot().await;
    let managed = new_managed_disk(&pod);
    let mut container = Container::run(&pod, "a").await;
    // The second lies on the first: the fake's kernel refuses to take the first off below it.
    container.add_new(&pod, "bind", "share", "/d").await;
    container.add_new(&pod, MANAGED.0, MANAGED.1, "/d/inner").await;
    let before = pod.backend.steps().len();
    container.allocation.mounts().release().await.unwrap();
    let points: Vec<_> = pod.backend.steps()[before..]
        .iter()
        .map(|step| step.point)
        .collect();
    let removals = |point: &&FaultPoint| **point == FaultPoint::Guest(GuestStep::RemoveContainerMount);
    assert_eq!(points.iter().filter(removals).count(), 2);
    assert!(!managed.exists());
    let late = container.plan(&pod, "bind", "share", "/late");
    let error = container.add(&late).await.unwrap_err();
    assert!(matches!(error, HotMountError::Closed), "{error}");
    container.kill().await;
    container.allocation.release().await.unwrap();
    assert!(container.allocation.is_released());
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn a_container_that_has_ended_has_lost_its_mounts_and_their_removal_succeeds() {
    let pod = Pod::boot().await;
    let managed = new_managed_disk(&pod);
    let mut container = Container::run(&pod, "a").await;
    container.add_new(&pod, "bind", "share", "/d").await;
    add_managed(&pod, &container).await.unwrap();
    container.kill().await;
    assert!(container.destinations(&pod).is_empty());
    container.remove("/d").await.unwrap();
    // The rest is released with the container.
    container.allocation.release().await.unwrap();
    assert!(!managed.exists());
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn what_could_not_be_removed_is_reported_by_the_containers_release_and_retried() {
    let pod = Pod::boot().await;
    let mut container = Container::run(&pod, "a").await;
    container.add_new(&pod, "bind", "share", "/d").await;
    container.kill().await;
    pod.backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::UnmountShare), 1, "in use");
    let error = container.allocation.release().await.unwrap_err();
    assert_eq!(error.failures.len(), 1, "the rest was released: {error}");
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(!container.allocation.is_released());
    container.allocation.release().await.unwrap();
    pod.assert_empty("after the second call");
}

#[tokio::test]
async fn a_container_that_does_not_run_gets_no_mount_and_holds_nothing_for_it() {
    let pod = Pod::boot().await;
    let managed = new_managed_disk(&pod);
    let mut container = Container::run(&pod, "a").await;
    container.kill().await;
    let before = Before::of(&pod);
    let error = add_managed(&pod, &container).await.unwrap_err();
    assert!(error.to_string().contains("container a does not run"), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("mount 5: on /later of the running container: "),
        "{error}"
    );
    before.is_so_again(&pod, "after the refusal");
    assert!(managed.exists());
    container.allocation.release().await.unwrap();
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn a_guest_that_does_not_know_such_mounts_is_not_asked_and_nothing_is_touched() {
    let options = FakeOptions {
        require_paths: true,
        without_container_mounts: true,
        ..FakeOptions::default()
    };
    let pod = Pod::boot_with(options).await;
    new_managed_disk(&pod);
    let container = Container::run(&pod, "a").await;
    let (before, steps) = (Before::of(&pod), pod.backend.steps().len());
    let error = add_managed(&pod, &container).await.unwrap_err();
    assert!(
        matches!(error, HotMountError::Allocate(AllocateError::Unsupported(_))),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .ends_with("this guest cannot change the mounts of a running container"),
        "{error}"
    );
    assert_eq!(pod.backend.steps().len(), steps);
    before.is_so_again(&pod, "after the refusal");
    container.end(&pod).await;
}
