//! Mounts of a running container on a fake VM: all or nothing on the way in, retryable on the way out, and gone with
//! their container.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_pod;

use std::{path::Path, time::Duration};

use cofferdam_backend::fake::{FakeOptions, FakeProgram};
use cofferdam_backend::fake::{Fault, FaultPoint, GuestStep, HostStep, ProgramFor};
use cofferdam_container::{
    AllocateError, Allocation, Created, Handle, HotMountError, Mounted, Stdio, delete_state,
};
use cofferdam_plan::{Mount, MountPlan};
use fake_pod::Pod;

/// A container that runs until it is killed.
struct Container {
    name: &'static str,
    allocation: Allocation,
    handle: Handle,
    ended: tokio::task::JoinHandle<()>,
}

impl Container {
    async fn run(pod: &Pod, name: &'static str) -> Self {
        pod.backend.set_program(ProgramFor::Anything, FakeProgram::runs());
        let plan = pod.container(name);
        let allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
        let created = Created::create(pod.vm.clone(), name, &plan.container_root, &plan.spec)
            .await
            .unwrap();
        let running = created.start(Stdio::default(), None).await.unwrap();
        let handle = running.handle();
        let ended = tokio::spawn(async move { drop(running.wait().await) });
        // So that the steps from here on are those of the test.
        let waits = |pod: &Pod| {
            let steps = pod.backend.steps();
            let waiting = FaultPoint::Guest(GuestStep::WaitForProcess);
            steps
                .iter()
                .any(|step| step.point == waiting && step.request.starts_with(name))
        };
        while !waits(pod) {
            tokio::task::yield_now().await;
        }
        Self {
            name,
            allocation,
            handle,
            ended,
        }
    }

    fn plan(&self, pod: &Pod, kind: &str, source: &str, destination: &str) -> MountPlan {
        let mount = Mount {
            destination: destination.to_owned(),
            kind: Some(kind.to_owned()),
            source: Some(source.to_owned()),
            options: None,
        };
        let base = pod.path("");
        self.allocation.mounts().plan(&mount, &base, &|_| Ok(())).unwrap()
    }

    async fn add(&self, plan: &MountPlan) -> Result<Mounted, HotMountError> {
        self.allocation.mounts().add(self.name, plan).await
    }

    async fn add_new(&self, pod: &Pod, kind: &str, source: &str, destination: &str) -> Mounted {
        self.add(&self.plan(pod, kind, source, destination))
            .await
            .unwrap()
    }

    async fn remove(&self, destination: &str) -> Result<(), HotMountError> {
        self.allocation.mounts().remove(destination).await
    }

    fn destinations(&self, pod: &Pod) -> Vec<String> {
        pod.backend.container_mounts(self.name).into_keys().collect()
    }

    async fn kill(&mut self) {
        self.handle.signal(9).await.unwrap();
        (&mut self.ended).await.unwrap();
    }

    /// Ends it, with nothing left.
    async fn end(mut self, pod: &Pod) {
        self.kill().await;
        self.allocation.release().await.unwrap();
        delete_state(&pod.vm, self.name).await.unwrap();
    }
}

/// A disk that is deleted on removal, on the host and mounted.
fn new_managed_disk(pod: &Pod) -> std::path::PathBuf {
    let path = pod.path("later.vhdx");
    std::fs::write(&path, "content").unwrap();
    path
}

const MANAGED: (&str, &str, &str) = ("automanage-virtual-disk", "later.vhdx", "/later");

async fn add_managed(pod: &Pod, container: &Container) -> Result<Mounted, HotMountError> {
    let (kind, source, destination) = MANAGED;
    container
        .add(&container.plan(pod, kind, source, destination))
        .await
}

/// What the container has without further mounts.
struct Before {
    slots: usize,
    mounts: usize,
    devices: usize,
}

impl Before {
    fn of(pod: &Pod) -> Self {
        let devices = pod.backend.host_devices();
        Self {
            slots: pod.vm.driver().ledger().view().slots.len(),
            mounts: pod.backend.guest_mounts().len(),
            devices: devices.scsi.len() + devices.shares.len(),
        }
    }

    #[track_caller]
    fn is_so_again(&self, pod: &Pod, when: &str) {
        let now = Self::of(pod);
        assert_eq!(
            (now.slots, now.mounts, now.devices),
            (self.slots, self.mounts, self.devices),
            "{when}"
        );
        assert_eq!(pod.backend.violations(), [""; 0], "{when}");
    }
}

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
    assert!(Path::new(&pod.path("own.vhdx")).exists());
    container.end(&pod).await;
    pod.assert_empty("at the end");
}
