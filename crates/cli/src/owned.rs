//! This process as a VM's owner: its answers to those who ask.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use cofferdam_container::Mounts;
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{GuestRequest, HostRequest, ShareId},
};
use cofferdam_observe::inspect;
use cofferdam_owner::{
    audit::{Difference, GuestMount, Problem, Thing, compare},
    control::{self, Answers, Attached, Attachment, Question},
};
use cofferdam_pod::{Pod, ProcessName, Status};
use cofferdam_vm::{Guest, UtilityVm};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{mount::Listed, streams::Shared};

/// Between two looks at a VM in which something seemed to be wrong: a step may just have been under way.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Answers for a VM until dropped.
pub(crate) fn serve(dir: &Path, owner: Arc<dyn Answers>) -> Result<ServerTask> {
    let listener =
        control::listen(dir).with_context(|| format!("opening the control socket in {}", dir.display()))?;
    Ok(ServerTask(tokio::spawn(control::serve(listener, owner))))
}

/// The control socket's server.
pub(crate) struct ServerTask(tokio::task::JoinHandle<()>);

impl Drop for ServerTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a check of a living VM found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckReport {
    /// In words: what, and how it is.
    pub(crate) found: Vec<FoundLine>,
}

/// One disagreement, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FoundLine {
    pub(crate) what: String,
    pub(crate) state: String,
    /// What frees it; absent where nothing can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// With repair: how that went; absent where it was freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    pub(crate) freed: bool,
}

/// The answers about one VM.
pub(crate) struct VmOwner {
    vm: Arc<UtilityVm>,
    pod: Arc<Pod>,
    /// The container the VM is for.
    id: String,
    /// Its streams, where others can attach to them.
    streams: Option<Shared>,
}

impl VmOwner {
    pub(crate) fn new(pod: Arc<Pod>, id: &str, streams: Option<Shared>) -> Self {
        Self {
            vm: pod.vm().clone(),
            pod,
            id: id.to_owned(),
            streams,
        }
    }

    /// What a running container is given and relieved of.
    fn mounts(&self) -> Result<Arc<Mounts>> {
        let state = self.pod.state(&ProcessName::init(&self.id));
        match state.map(|state| state.status) {
            Ok(Status::Running | Status::Paused) => Ok(self.pod.mounts(&self.id)?),
            Ok(status) => bail!("it {}", status.in_words()),
            Err(_) => bail!("it does not run yet"),
        }
    }

    fn attach(&self, attachment: &Attachment) -> Result<Attached> {
        let streams = self
            .streams
            .as_ref()
            .context("it is not detached: its streams are those of its command")?;
        let input = streams.attach(attachment)?;
        Ok(Attached { input })
    }

    async fn add_mount(&self, entry: Value) -> Result<Listed> {
        let mounts = self.mounts()?;
        let mount: cofferdam_plan::Mount = serde_json::from_value(entry).context("the mount")?;
        // Sources are absolute: whoever asks has another working directory.
        let plan = mounts.plan(&mount, Path::new("/"), &cofferdam_image::check)?;
        Ok(mounts.add(&self.id, &plan).await?.into())
    }

    async fn remove_mount(&self, destination: &str) -> Result<()> {
        Ok(self.mounts()?.remove(destination).await?)
    }

    fn list_mounts(&self) -> Result<Vec<Listed>> {
        let mounts = self.mounts()?.list();
        Ok(mounts.into_iter().map(Listed::from).collect())
    }

    async fn differences(&self) -> Result<Vec<(Difference, Option<GuestMount>)>> {
        let host = self.vm.backend().devices().await?;
        let mounts = self.vm.bridge().guest_mounts().await?;
        let guest: Vec<_> = mounts
            .listed
            .into_iter()
            .map(|mount| GuestMount {
                path: mount.path,
                fs_type: mount.fs_type,
            })
            .collect();
        let found = compare(&self.vm.driver().ledger().view(), &host, &guest);
        let with_mount = |difference: Difference| {
            let mount = guest
                .iter()
                .find(|mount| difference.thing == Thing::Mount(mount.path.clone()));
            (difference, mount.cloned())
        };
        Ok(found.into_iter().map(with_mount).collect())
    }

    /// What is wrong at both of two looks.
    async fn lasting(&self) -> Result<Vec<(Difference, Option<GuestMount>)>> {
        let first = self.differences().await?;
        if first.is_empty() {
            return Ok(first);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let mut second = self.differences().await?;
        second.retain(|found| first.contains(found));
        Ok(second)
    }

    async fn check(&self, repair: bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        let mut found = self.lasting().await?;
        if found.is_empty() {
            return Ok(report);
        }
        // Mounts before the devices they are on, inner ones before outer ones.
        found.sort_by_key(|(difference, _)| match &difference.thing {
            Thing::Mount(path) => (0, std::cmp::Reverse(path.clone())),
            _ => (1, std::cmp::Reverse(String::new())),
        });
        let disks = self.vm.backend().devices().await?.scsi;
        for (difference, mount) in found {
            let remedy = remedy(&difference, mount.as_ref(), &disks);
            let mut line = FoundLine {
                what: difference.thing.to_string(),
                state: difference.problem.to_string(),
                remedy: remedy.as_ref().map(|remedy| remedy.word.to_owned()),
                failure: None,
                freed: false,
            };
            if repair && let Some(remedy) = remedy {
                match self.free(&remedy).await {
                    Ok(()) => line.freed = true,
                    Err(error) => line.failure = Some(format!("{error:#}")),
                }
            }
            report.found.push(line);
        }
        Ok(report)
    }

    async fn free(&self, remedy: &Remedy) -> Result<()> {
        let mut first_failure = None;
        let mut succeeded = remedy.guest.is_empty();
        for request in &remedy.guest {
            match self.vm.bridge().as_ref().perform(request).await {
                Ok(()) => succeeded = true,
                Err(error) => first_failure = first_failure.or(Some(error)),
            }
        }
        match first_failure {
            Some(error) if !(remedy.any_will_do && succeeded) => return Err(error.into()),
            _ => {}
        }
        for request in &remedy.host {
            self.vm.backend().perform(request).await?;
        }
        Ok(())
    }
}

/// What frees something that nobody holds.
struct Remedy {
    word: &'static str,
    /// In this order.
    guest: Vec<GuestRequest>,
    /// Only one of the guest's steps is the right one, and it is not known which.
    any_will_do: bool,
    host: Vec<HostRequest>,
}

/// `None` where nothing can free it, or where it is missing rather than left.
fn remedy(
    difference: &Difference,
    mount: Option<&GuestMount>,
    disks: &BTreeSet<ScsiAddress>,
) -> Option<Remedy> {
    if difference.problem == Problem::NotThere {
        return None;
    }
    let detach = |guest, host| Remedy {
        word: "detach",
        guest,
        any_will_do: false,
        host,
    };
    Some(match &difference.thing {
        Thing::Scsi(address) => detach(
            vec![GuestRequest::EjectScsi { address: *address }],
            vec![HostRequest::DetachScsi { address: *address }],
        ),
        Thing::Vpmem(index) => detach(vec![], vec![HostRequest::DetachVpmem { index: *index }]),
        Thing::Share(share) => detach(vec![], vec![HostRequest::RemoveShare { share: *share }]),
        Thing::Object(_) => return None,
        Thing::Mount(path) => Remedy {
            word: "unmount",
            guest: unmount(path, mount?, disks),
            any_will_do: true,
            host: vec![],
        },
    })
}

/// A removal names what was mounted; of a disk the mount table does not say which, so each is named in turn.
fn unmount(path: &str, mount: &GuestMount, disks: &BTreeSet<ScsiAddress>) -> Vec<GuestRequest> {
    let guest_path = path.to_owned();
    match mount.fs_type.as_str() {
        "overlay" => vec![GuestRequest::RemoveCombinedLayers { root: guest_path }],
        "9p" => vec![GuestRequest::UnmountShare {
            share: ShareId(0),
            guest_path,
            read_only: false,
        }],
        _ => {
            let of = |address: &ScsiAddress| GuestRequest::UnmountScsi {
                address: *address,
                guest_path: guest_path.clone(),
                read_only: false,
            };
            disks.iter().map(of).collect()
        }
    }
}

#[async_trait]
impl Answers for VmOwner {
    async fn answer(&self, question: Question) -> Result<Value, String> {
        let answered = match question {
            Question::Check { repair } => self.check(repair).await.map(serde_json::to_value),
            Question::MountAdd { mount } => self.add_mount(mount).await.map(serde_json::to_value),
            Question::MountRemove { destination } => {
                self.remove_mount(&destination).await.map(serde_json::to_value)
            }
            Question::Inspect => Ok(serde_json::to_value(inspect(&self.pod).await)),
            Question::MountList => self.list_mounts().map(serde_json::to_value),
            Question::Attach(attachment) => self.attach(&attachment).map(serde_json::to_value),
        };
        match answered {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_backend::{
        Backend,
        fake::{FakeBackend, FakeOptions},
    };
    use cofferdam_ledger::request::DiskKind;
    use cofferdam_vm::BootOptions;

    use super::*;

    const ADDRESS: ScsiAddress = ScsiAddress {
        controller: 1,
        lun: 2,
    };

    async fn owner() -> (FakeBackend, VmOwner) {
        let backend = FakeBackend::new(FakeOptions::default());
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default()).await;
        let (pod, _events) = Pod::new(vm.unwrap());
        (backend, VmOwner::new(pod, "web", None))
    }

    #[tokio::test]
    async fn what_nobody_holds_in_a_living_vm_is_found_and_freed() {
        let (backend, owner) = owner().await;
        assert_eq!(owner.check(false).await.unwrap(), CheckReport::default());
        let attach = HostRequest::AttachScsi {
            address: ADDRESS,
            path: "/d".into(),
            kind: DiskKind::Virtual,
            read_only: false,
        };
        backend.perform(&attach).await.unwrap();
        let mount = GuestRequest::MountScsi {
            address: ADDRESS,
            guest_path: "/run/gcs/c/9/mounts/m0".into(),
            read_only: false,
        };
        owner.vm.bridge().as_ref().perform(&mount).await.unwrap();

        let found = owner.check(false).await.unwrap().found;
        let words: Vec<_> = found
            .iter()
            .map(|line| (line.what.as_str(), line.freed))
            .collect();
        let expected = ["guest mount /run/gcs/c/9/mounts/m0", "SCSI 1:2"].map(|what| (what, false));
        assert_eq!(words, expected);
        let freed = owner.check(true).await.unwrap().found;
        assert!(freed.iter().all(|line| line.freed), "{freed:?}");
        assert_eq!(owner.check(false).await.unwrap(), CheckReport::default());
        assert!(backend.host_devices().is_empty() && backend.guest_mounts().is_empty());
    }

    #[tokio::test]
    async fn a_mount_needs_a_container_that_runs() {
        let (_backend, owner) = owner().await;
        let mount = serde_json::json!({ "type": "bind", "source": "/", "destination": "/d" });
        let refused = owner.answer(Question::MountAdd { mount }).await.unwrap_err();
        assert_eq!(refused, "it does not run yet");
    }
}
