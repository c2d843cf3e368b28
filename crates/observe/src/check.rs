//! A living VM whose sides do not agree: what nobody holds is found, and freed.

use std::{collections::BTreeSet, time::Duration};

use cofferdam_backend::BackendError;
use cofferdam_bridge::BridgeError;
use cofferdam_ledger::{
    address::ScsiAddress,
    request::{GuestRequest, HostRequest, ShareId},
};
use cofferdam_owner::audit::{Difference, GuestMount, Problem, Thing, compare};
use cofferdam_vm::{Guest, UtilityVm};
use serde::{Deserialize, Serialize};

/// Between two looks at a VM in which something seemed to be wrong: a step may just have been under way.
const SECOND_LOOK: Duration = Duration::from_millis(200);

/// Why the sides could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The host does not tell its devices.
    #[error("asking for the devices: {0}")]
    Host(#[source] BackendError),
    /// The guest does not tell its mounts.
    #[error("asking for the guest's mounts: {0}")]
    Guest(#[source] BridgeError),
}

/// What a check of a living VM found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// In words: what, and how it is.
    pub found: Vec<FoundLine>,
}

/// One disagreement, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundLine {
    /// What it is about.
    pub what: String,
    /// How it is.
    pub state: String,
    /// What frees it; absent where nothing can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// With repair: how that went; absent where it was freed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// With repair: whether it was freed.
    pub freed: bool,
}

async fn differences(vm: &UtilityVm) -> Result<Vec<(Difference, Option<GuestMount>)>, CheckError> {
    let host = vm.backend().devices().await.map_err(CheckError::Host)?;
    let mounts = vm.bridge().guest_mounts().await.map_err(CheckError::Guest)?;
    let guest: Vec<_> = mounts
        .listed
        .into_iter()
        .map(|mount| GuestMount {
            path: mount.path,
            fs_type: mount.fs_type,
        })
        .collect();
    let found = compare(&vm.driver().ledger().view(), &host, &guest);
    let with_mount = |difference: Difference| {
        let mount = guest
            .iter()
            .find(|mount| difference.thing == Thing::Mount(mount.path.clone()));
        (difference, mount.cloned())
    };
    Ok(found.into_iter().map(with_mount).collect())
}

/// What is wrong at both of two looks.
async fn lasting(vm: &UtilityVm) -> Result<Vec<(Difference, Option<GuestMount>)>, CheckError> {
    let first = differences(vm).await?;
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let mut second = differences(vm).await?;
    second.retain(|found| first.contains(found));
    Ok(second)
}

/// Compares the three sides of a living VM: its ledger, its host's devices, its guest's mounts. With `repair`, what nobody
/// holds is freed.
///
/// # Errors
/// That one of the sides could not be asked. What could not be freed is in the report.
pub async fn check(vm: &UtilityVm, repair: bool) -> Result<CheckReport, CheckError> {
    let mut report = CheckReport::default();
    let mut found = lasting(vm).await?;
    if found.is_empty() {
        return Ok(report);
    }
    // Mounts before the devices they are on, inner ones before outer ones.
    found.sort_by_key(|(difference, _)| match &difference.thing {
        Thing::Mount(path) => (0, std::cmp::Reverse(path.clone())),
        _ => (1, std::cmp::Reverse(String::new())),
    });
    let disks = vm.backend().devices().await.map_err(CheckError::Host)?.scsi;
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
            match free(vm, &remedy).await {
                Ok(()) => line.freed = true,
                Err(error) => line.failure = Some(error),
            }
        }
        report.found.push(line);
    }
    Ok(report)
}

async fn free(vm: &UtilityVm, remedy: &Remedy) -> Result<(), String> {
    let mut first_failure = None;
    let mut succeeded = remedy.guest.is_empty();
    for request in &remedy.guest {
        match vm.bridge().as_ref().perform(request).await {
            Ok(()) => succeeded = true,
            Err(error) => first_failure = first_failure.or(Some(error)),
        }
    }
    match first_failure {
        Some(error) if !(remedy.any_will_do && succeeded) => return Err(error.to_string()),
        _ => {}
    }
    for request in &remedy.host {
        vm.backend()
            .perform(request)
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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

    #[tokio::test]
    async fn what_nobody_holds_in_a_living_vm_is_found_and_freed() {
        let backend = FakeBackend::new(FakeOptions::default());
        let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default())
            .await
            .unwrap();
        assert_eq!(check(&vm, false).await.unwrap(), CheckReport::default());
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
        vm.bridge().as_ref().perform(&mount).await.unwrap();

        let found = check(&vm, false).await.unwrap().found;
        let words: Vec<_> = found
            .iter()
            .map(|line| (line.what.as_str(), line.freed))
            .collect();
        let expected = ["guest mount /run/gcs/c/9/mounts/m0", "SCSI 1:2"].map(|what| (what, false));
        assert_eq!(words, expected);
        let freed = check(&vm, true).await.unwrap().found;
        assert!(freed.iter().all(|line| line.freed), "{freed:?}");
        assert_eq!(check(&vm, false).await.unwrap(), CheckReport::default());
        assert!(backend.host_devices().is_empty() && backend.guest_mounts().is_empty());
    }
}
