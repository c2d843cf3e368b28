//! The ledger of one VM: its tables, and the leases on their slots.

use std::{error::Error, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    LedgerView, Request,
    address::{LUNS_PER_CONTROLLER, Limits},
    device::{At, Disk, LayerNeed, Overlay, OverlayNeed, Pmem, Share, Want},
    error::LeaseError,
    injected::Injected,
    request::DiskKind,
    slot::Part,
    slots::{Machine, NoSlot, Reserved, Slots},
};

/// Why a step failed, kept for everybody who waited for it.
pub type StepFailure = Arc<dyn Error + Send + Sync>;

/// A kind of slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// SCSI disks.
    Scsi,
    /// Persistent-memory devices.
    Vpmem,
    /// Plan 9 shares; unbounded.
    Shares,
    /// Combined layers; unbounded.
    Overlays,
    /// Mounts of running containers; unbounded.
    ContainerMounts,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scsi => "SCSI disks",
            Self::Vpmem => "persistent-memory devices",
            Self::Shares => "shares",
            Self::Overlays => "combined layers",
            Self::ContainerMounts => "mounts of running containers",
        })
    }
}

/// A hold on one mount of one device. Once the hold is gone it acts on nothing, whoever has the slot by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[must_use = "a lease is released, or it holds its slot for the VM's life"]
pub struct Lease {
    pub(crate) table: Table,
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    pub(crate) holder: u64,
}

impl Lease {
    /// Which kind of slot it holds.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table
    }

    /// The slot's index in its table.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }
}

/// What a step's outcome is reported under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepToken {
    pub(crate) table: Table,
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    pub(crate) part: Part,
    /// Counts the steps of a table: a second report under one token is nobody's.
    pub(crate) serial: u64,
}

/// One thing to perform. Its outcome must be reported, whatever it is: others may wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a step that is never reported blocks its slot"]
pub struct Step {
    /// For [`Ledger::outcome`].
    pub token: StepToken,
    /// What is to be done.
    pub request: Request,
}

/// What comes next for a lease.
#[derive(Debug)]
pub enum Next {
    /// Perform this, report the outcome, and ask again.
    Perform(Step),
    /// Somebody else is performing a step of the same slot; ask again when an outcome has been reported.
    Wait,
    /// It is attached and mounted.
    Ready,
    /// A step of the way in failed, of this lease or of another one it shares the slot with. Release it.
    Failed(StepFailure),
    /// The lease holds nothing: it has been released.
    Gone,
}

/// Everything one VM has given away.
#[derive(Debug)]
pub struct Ledger {
    scsi: Slots<Disk>,
    vpmem: Slots<Pmem>,
    shares: Slots<Share>,
    overlays: Slots<Overlay>,
    injected: Slots<Injected>,
    limits: Limits,
    layer_base: String,
}

/// What a want has got, until it is known whether the others get theirs.
pub(crate) enum Taken {
    Scsi(Reserved<Disk>),
    Vpmem(Reserved<Pmem>),
    Share(Reserved<Share>),
    Overlay(Reserved<Overlay>),
    Injected(Reserved<Injected>),
}

impl Taken {
    pub(crate) fn lease(&self) -> Lease {
        match self {
            Self::Scsi(reserved) => reserved.lease,
            Self::Vpmem(reserved) => reserved.lease,
            Self::Share(reserved) => reserved.lease,
            Self::Overlay(reserved) => reserved.lease,
            Self::Injected(reserved) => reserved.lease,
        }
    }

    /// Whether it took a slot of its own, rather than a further hold on one.
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Self::Scsi(reserved) => reserved.is_new(),
            Self::Vpmem(reserved) => reserved.is_new(),
            Self::Share(reserved) => reserved.is_new(),
            Self::Overlay(reserved) => reserved.is_new(),
            Self::Injected(reserved) => reserved.is_new(),
        }
    }
}

impl Ledger {
    /// An empty ledger of a VM with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let disks = usize::from(limits.scsi_controllers) * usize::from(LUNS_PER_CONTROLLER);
        Self {
            scsi: Slots::new(disks),
            vpmem: Slots::new(limits.vpmem_devices as usize),
            shares: Slots::new(usize::MAX),
            overlays: Slots::new(usize::MAX),
            injected: Slots::new(usize::MAX),
            limits,
            layer_base: "/run".to_owned(),
        }
    }

    /// Mounts shared layers below another directory than `/run` of the VM: in process isolation, where the host's own
    /// `/run` is not ours.
    #[must_use]
    pub fn with_layers_below(mut self, directory: impl Into<String>) -> Self {
        self.layer_base = directory.into();
        self
    }

    /// In reverse, so that a device joined twice is as it was before the first time.
    pub(crate) fn undo_all(&mut self, taken: Vec<Taken>) {
        for one in taken.into_iter().rev() {
            self.undo(one);
        }
    }

    pub(crate) fn take_with(&mut self, taken: &[Taken], want: Want) -> Result<Taken, (Table, NoSlot)> {
        if let Want::Overlay(overlay) = &want {
            let claimed = self.claim_scratch(taken, overlay);
            claimed.map_err(|reason| (Table::Overlays, NoSlot::Conflict(reason)))?;
        }
        self.take(want)
    }

    /// Two overlays on one scratch would write to the same upper and work directories.
    fn claim_scratch(&mut self, taken: &[Taken], overlay: &OverlayNeed) -> Result<(), String> {
        let leases = taken.iter().map(Taken::lease);
        let mut disks = leases.filter(|lease| lease.table == Table::Scsi);
        let scratch = disks.find(|lease| self.guest_path(*lease) == Some(&overlay.scratch));
        let Some(disk) = scratch.and_then(|lease| self.scsi.device_mut(lease)) else {
            return Ok(());
        };
        match &disk.scratch_of {
            // A root that is combined no longer writes no longer.
            Some(root) if *root != overlay.root && self.overlays.holds(root) => Err(format!(
                "{} is in use as the scratch of {root}; another container needs a scratch of its own",
                disk.path.display()
            )),
            _ => {
                disk.scratch_of = Some(overlay.root.clone());
                Ok(())
            }
        }
    }

    fn take(&mut self, want: Want) -> Result<Taken, (Table, NoSlot)> {
        match want {
            Want::Layer(layer) => self.take_layer(layer),
            Want::Disk(need) => {
                if (need.auto_manage || !need.read_only) && self.vpmem.holds(&need.key) {
                    // Two devices would show the guest one file system while one of them changes or deletes it.
                    let reason = format!("{} is in use as a read-only layer", need.path.display());
                    return Err((Table::Scsi, NoSlot::Conflict(reason)));
                }
                let at = At {
                    guest_path: need.guest_path,
                    read_only: need.read_only,
                };
                let (path, key, kind) = (need.path, need.key, need.kind);
                let disk = Disk {
                    path,
                    key,
                    kind,
                    read_only: need.read_only,
                    auto_manage: need.auto_manage,
                    layer: false,
                    scratch_of: None,
                };
                self.scsi
                    .reserve(disk, |_| at)
                    .map(Taken::Scsi)
                    .map_err(|why| (Table::Scsi, why))
            }
            Want::Share(need) => {
                let at = At {
                    guest_path: need.guest_path,
                    read_only: need.read_only,
                };
                let share = Share {
                    path: need.path,
                    read_only: need.read_only,
                    allowed_names: need.allowed_names,
                };
                self.shares
                    .reserve(share, |_| at)
                    .map(Taken::Share)
                    .map_err(|why| (Table::Shares, why))
            }
            Want::Overlay(need) => {
                let at = At {
                    guest_path: need.root.clone(),
                    read_only: false,
                };
                let taken = self.overlays.reserve(Overlay(need), |_| at);
                taken.map(Taken::Overlay).map_err(|why| (Table::Overlays, why))
            }
            Want::ContainerMount(need) => {
                let at = At {
                    guest_path: need.path(),
                    read_only: need.read_only,
                };
                let taken = self.injected.reserve(Injected(need), |_| at);
                taken
                    .map(Taken::Injected)
                    .map_err(|why| (Table::ContainerMounts, why))
            }
        }
    }

    /// Where the layer is already, else persistent memory while there is room and it fits, else SCSI.
    fn take_layer(&mut self, layer: LayerNeed) -> Result<Taken, (Table, NoSlot)> {
        let fits = self.vpmem.has_room() && layer.bytes <= self.limits.vpmem_max_bytes;
        let on_vpmem = self.vpmem.holds(&layer.key) || (fits && !self.scsi.holds(&layer.key));
        if on_vpmem {
            let pmem = Pmem {
                path: layer.path,
                key: layer.key,
            };
            let base = &self.layer_base;
            let at = |index| At {
                guest_path: format!("{base}/layers/p{index}"),
                read_only: true,
            };
            return self
                .vpmem
                .reserve(pmem, at)
                .map(Taken::Vpmem)
                .map_err(|why| (Table::Vpmem, why));
        }
        let disk = Disk {
            path: layer.path,
            key: layer.key,
            kind: DiskKind::Virtual,
            read_only: true,
            auto_manage: false,
            layer: true,
            scratch_of: None,
        };
        let base = &self.layer_base;
        let at = |index| At {
            guest_path: format!("{base}/mounts/scsi/m{index}"),
            read_only: true,
        };
        self.scsi
            .reserve(disk, at)
            .map(Taken::Scsi)
            .map_err(|why| (Table::Scsi, why))
    }

    fn undo(&mut self, taken: Taken) {
        match taken {
            Taken::Scsi(reserved) => self.scsi.undo(reserved),
            Taken::Vpmem(reserved) => self.vpmem.undo(reserved),
            Taken::Share(reserved) => self.shares.undo(reserved),
            Taken::Overlay(reserved) => self.overlays.undo(reserved),
            Taken::Injected(reserved) => self.injected.undo(reserved),
        }
    }

    /// What comes next for a lease.
    pub fn next(&mut self, lease: Lease) -> Next {
        self.machine_mut(lease.table).next(lease)
    }

    /// Turns a lease round: from now on [`Ledger::next`] leads out. Harmless when repeated.
    ///
    /// # Errors
    /// [`LeaseError::Stale`] where it holds nothing.
    pub fn release(&mut self, lease: Lease) -> Result<(), LeaseError> {
        self.machine_mut(lease.table).release(lease, false)
    }

    /// Like [`Ledger::release`], for an allocation that is being undone: an auto-managed file is kept, since its
    /// container never was. It goes all the same where another holder has released it.
    ///
    /// # Errors
    /// As for [`Ledger::release`].
    pub fn abandon(&mut self, lease: Lease) -> Result<(), LeaseError> {
        self.machine_mut(lease.table).release(lease, true)
    }

    /// Notes what became of a step.
    ///
    /// # Errors
    /// [`LeaseError`] where nobody waits for it; nothing is changed then.
    pub fn outcome(&mut self, token: &StepToken, result: Result<(), StepFailure>) -> Result<(), LeaseError> {
        self.machine_mut(token.table).outcome(token, result)
    }

    /// Where the lease's mount is in the guest, for a mount of a running container as `<container>:<destination>`;
    /// `None` for a stale one.
    #[must_use]
    pub fn guest_path(&self, lease: Lease) -> Option<&str> {
        self.machine(lease.table).guest_path(lease)
    }

    /// Everything that is held now.
    #[must_use]
    pub fn view(&self) -> LedgerView {
        let slots = [
            Table::Scsi,
            Table::Vpmem,
            Table::Shares,
            Table::Overlays,
            Table::ContainerMounts,
        ];
        LedgerView {
            scsi: self.scsi.usage(),
            vpmem: self.vpmem.usage(),
            slots: slots
                .into_iter()
                .flat_map(|table| self.machine(table).view())
                .collect(),
        }
    }

    pub(crate) fn machine(&self, table: Table) -> &dyn Machine {
        match table {
            Table::Scsi => &self.scsi,
            Table::Vpmem => &self.vpmem,
            Table::Shares => &self.shares,
            Table::Overlays => &self.overlays,
            Table::ContainerMounts => &self.injected,
        }
    }

    fn machine_mut(&mut self, table: Table) -> &mut dyn Machine {
        match table {
            Table::Scsi => &mut self.scsi,
            Table::Vpmem => &mut self.vpmem,
            Table::Shares => &mut self.shares,
            Table::Overlays => &mut self.overlays,
            Table::ContainerMounts => &mut self.injected,
        }
    }
}
