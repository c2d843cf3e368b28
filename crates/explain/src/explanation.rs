//! From a plan to what is shown of it.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_ledger::{Lease, Ledger, LedgerView, SlotView, Table, address::Limits};
use cofferdam_plan::Plan;
use cofferdam_reserve::{ReserveRefusal, Reserved, reserve};
use serde::Serialize;
use serde_json::Value;

use crate::{
    document::{DeviceDocument, DiskDocument, LayerDocument, LimitsDocument, Resources},
    hcs::{self, HcsRequest},
    rows::{self, Row},
    steps, table,
};

/// Why a plan cannot be carried out on an empty VM.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// It does not fit, or contradicts itself.
    #[error(transparent)]
    Refused(#[from] ReserveRefusal),
    /// The ledger led nowhere although every step succeeded: a defect of the ledger.
    #[error("the ledger does not finish an allocation in which every step succeeds")]
    Stuck,
}

impl ExplainError {
    /// The mount at fault, if one is.
    #[must_use]
    pub fn mount_index(&self) -> Option<usize> {
        match self {
            Self::Refused(refusal) => refusal.mount_index,
            Self::Stuck => None,
        }
    }
}

/// What allocation would do, ready to be shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The rewritten OCI spec.
    pub spec: Value,
    /// What the container takes.
    pub resources: Resources,
    /// How much of the VM that is.
    pub limits: LimitsDocument,
    #[serde(skip)]
    rows: Vec<Row>,
    #[serde(skip)]
    share_count: usize,
    #[serde(skip)]
    hcs: Vec<HcsRequest>,
}

impl Explanation {
    /// One JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings, numbers and a JSON value only: nothing of it can fail to be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A table for a person: plain text, aligned, a line for each mount and layer, and the use against the limits.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(&self.rows, &self.limits, self.share_count)
    }

    /// The HCS documents, in an order they may be sent in. None in process isolation.
    #[must_use]
    pub fn hcs(&self) -> &[HcsRequest] {
        &self.hcs
    }

    /// The HCS documents as a JSON array.
    #[must_use]
    pub fn hcs_json(&self) -> String {
        // As for [`Explanation::json`].
        serde_json::to_string_pretty(&self.hcs).unwrap_or_default()
    }
}

/// Explains a plan on an empty VM with `limits`; with `process_isolation` the plan must have been made for that, and
/// nothing of a VM is taken.
///
/// # Errors
/// [`ExplainError`]; nothing has been touched in any case.
pub fn explain(plan: &Plan, limits: Limits, process_isolation: bool) -> Result<Explanation, ExplainError> {
    let mut ledger = Ledger::new(limits);
    let reserved = if process_isolation {
        Reserved::default()
    } else {
        reserve(&mut ledger, plan)?
    };
    let mut shown = Shown::of(&ledger);
    let resources = resources(plan, &ledger, &shown.devices, &reserved, process_isolation)?;
    let rows = shown.rows(plan, &resources, &reserved, process_isolation);
    let steps = steps::all(&mut ledger, &reserved)?;
    Ok(Explanation {
        spec: plan.spec.clone(),
        resources,
        limits: shown.limits,
        rows,
        share_count: shown.shares.len(),
        hcs: hcs::documents(&steps),
    })
}

/// What is shown of a ledger once everything has been reserved, and what of it earlier lines have shown.
pub(crate) struct Shown {
    pub(crate) devices: Devices,
    pub(crate) limits: LimitsDocument,
    /// Slots of shares that have a line of their own.
    pub(crate) shares: BTreeSet<usize>,
    seen: BTreeSet<DeviceDocument>,
}

impl Shown {
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let view = ledger.view();
        Self {
            devices: Devices::of(&view),
            limits: LimitsDocument {
                scsi: view.scsi,
                vpmem: view.vpmem,
            },
            shares: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    /// The lines of one container.
    pub(crate) fn rows(
        &mut self,
        plan: &Plan,
        resources: &Resources,
        reserved: &Reserved,
        process_isolation: bool,
    ) -> Vec<Row> {
        let leases = reserved.shares.iter();
        let new_shares: Vec<_> = leases.map(|lease| self.shares.insert(lease.slot())).collect();
        rows::of(plan, resources, &new_shares, process_isolation, &mut self.seen)
    }
}

/// Where each slot's device sits, in the ledger's own words.
pub(crate) struct Devices(BTreeMap<(Table, usize), DeviceDocument>);

impl Devices {
    fn of(view: &LedgerView) -> Self {
        let device = |slot: &SlotView| {
            let device = DeviceDocument::attached_by(slot.attach.as_ref()?)?;
            Some(((slot.table, slot.slot), device))
        };
        Self(view.slots.iter().filter_map(device).collect())
    }

    fn at(&self, lease: Lease) -> Result<DeviceDocument, ExplainError> {
        let device = self.0.get(&(lease.table(), lease.slot()));
        device.copied().ok_or(ExplainError::Stuck)
    }
}

pub(crate) fn resources(
    plan: &Plan,
    ledger: &Ledger,
    devices: &Devices,
    reserved: &Reserved,
    process_isolation: bool,
) -> Result<Resources, ExplainError> {
    let mounted = |lease: Lease| {
        let guest_path = ledger.guest_path(lease).ok_or(ExplainError::Stuck)?;
        Ok::<_, ExplainError>((guest_path.to_owned(), devices.at(lease)?))
    };
    let mut layers = Vec::new();
    let mut scratch = None;
    if let Some(needs) = &plan.needs.layers {
        for (n, layer) in needs.read_only.iter().enumerate() {
            let guest = reserved.layers.get(n).copied().map(mounted).transpose()?;
            layers.push(LayerDocument::new(layer, guest));
        }
        let guest = reserved.scratch.map(mounted).transpose()?;
        scratch = Some(LayerDocument::new(&needs.scratch, guest));
    }
    let disks = plan.needs.disks.iter().zip(&reserved.disks);
    let disks = disks.map(|(disk, lease)| Ok(DiskDocument::new(disk, devices.at(*lease)?)));
    let disks = disks.collect::<Result<Vec<_>, ExplainError>>()?;
    let shares = if process_isolation {
        Vec::new()
    } else {
        plan.needs.shares.iter().map(Into::into).collect()
    };
    Ok(Resources {
        container_root: plan.container_root.clone(),
        layers,
        scratch,
        disks,
        shares,
    })
}
