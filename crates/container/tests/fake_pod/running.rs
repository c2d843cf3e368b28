//! Containers of the fake VM that run until they are killed, and what they are given meanwhile.

use cofferdam_backend::fake::{FakeProgram, FaultPoint, GuestStep, ProgramFor};
use cofferdam_container::{
    Allocation, Created, Handle, HotMountError, Mounted, Running, Stdio, delete_state,
};
use cofferdam_plan::{Mount, MountPlan};

use super::Pod;

/// Starts a container that runs until it is killed.
pub(crate) async fn started(pod: &Pod, name: &str) -> (Allocation, Running) {
    pod.backend.set_program(ProgramFor::Anything, FakeProgram::runs());
    let plan = pod.container(name);
    let allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
    let created = Created::create(pod.vm.clone(), name, &plan.container_root, &plan.spec)
        .await
        .unwrap();
    (allocation, created.start(Stdio::default(), None).await.unwrap())
}

/// A container that runs until it is killed.
pub(crate) struct Container {
    name: &'static str,
    pub(crate) allocation: Allocation,
    handle: Handle,
    ended: tokio::task::JoinHandle<()>,
}

impl Container {
    pub(crate) async fn run(pod: &Pod, name: &'static str) -> Self {
        let (allocation, running) = started(pod, name).await;
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

    pub(crate) fn plan(&self, pod: &Pod, kind: &str, source: &str, destination: &str) -> MountPlan {
        let mount = Mount {
            destination: destination.to_owned(),
            kind: Some(kind.to_owned()),
            source: Some(source.to_owned()),
            options: None,
        };
        let base = pod.path("");
        self.allocation.mounts().plan(&mount, &base, &|_| Ok(())).unwrap()
    }

    pub(crate) async fn add(&self, plan: &MountPlan) -> Result<Mounted, HotMountError> {
        self.allocation.mounts().add(self.name, plan).await
    }

    pub(crate) async fn add_new(&self, pod: &Pod, kind: &str, source: &str, destination: &str) -> Mounted {
        self.add(&self.plan(pod, kind, source, destination))
            .await
            .unwrap()
    }

    pub(crate) async fn remove(&self, destination: &str) -> Result<(), HotMountError> {
        self.allocation.mounts().remove(destination).await
    }

    pub(crate) fn destinations(&self, pod: &Pod) -> Vec<String> {
        pod.backend.container_mounts(self.name).into_keys().collect()
    }

    pub(crate) async fn kill(&mut self) {
        self.handle.signal(9).await.unwrap();
        (&mut self.ended).await.unwrap();
    }

    /// Ends it, with nothing left.
    pub(crate) async fn end(mut self, pod: &Pod) {
        self.kill().await;
        self.allocation.release().await.unwrap();
        delete_state(&pod.vm, self.name).await.unwrap();
    }
}

/// A disk that is deleted on removal, on the host and mounted.
pub(crate) fn new_managed_disk(pod: &Pod) -> std::path::PathBuf {
    let path = pod.path("later.vhdx");
    std::fs::write(&path, "content").unwrap();
    path
}

pub(crate) const MANAGED: (&str, &str, &str) = ("automanage-virtual-disk", "later.vhdx", "/later");

pub(crate) async fn add_managed(pod: &Pod, container: &Container) -> Result<Mounted, HotMountError> {
    let (kind, source, destination) = MANAGED;
    container
        .add(&container.plan(pod, kind, source, destination))
        .await
}

/// What the container has without further mounts.
pub(crate) struct Before {
    pub(crate) slots: usize,
    mounts: usize,
    devices: usize,
}

impl Before {
    pub(crate) fn of(pod: &Pod) -> Self {
        let devices = pod.backend.host_devices();
        Self {
            slots: pod.vm.driver().ledger().view().slots.len(),
            mounts: pod.backend.guest_mounts().len(),
            devices: devices.scsi.len() + devices.shares.len(),
        }
    }

    #[track_caller]
    pub(crate) fn is_so_again(&self, pod: &Pod, when: &str) {
        let now = Self::of(pod);
        assert_eq!(
            (now.slots, now.mounts, now.devices),
            (self.slots, self.mounts, self.devices),
            "{when}"
        );
        assert_eq!(pod.backend.violations(), [""; 0], "{when}");
    }
}
