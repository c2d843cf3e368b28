//! What was asked of the fake VM, in order.

use std::fmt;

use cofferdam_ledger::request::HostRequest;
use cofferdam_protocol::{
    MessageType, message as m,
    settings::{ModificationRequest, RequestType, Resource},
};

use super::faults::FaultPoint;

/// A step of the host, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostStep {
    /// [`crate::Backend::start`].
    Start,
    /// [`HostRequest::AttachScsi`].
    AttachScsi,
    /// [`HostRequest::DetachScsi`].
    DetachScsi,
    /// [`HostRequest::AttachVpmem`].
    AttachVpmem,
    /// [`HostRequest::DetachVpmem`].
    DetachVpmem,
    /// [`HostRequest::AddShare`].
    AddShare,
    /// [`HostRequest::RemoveShare`].
    RemoveShare,
    /// [`HostRequest::DeleteFile`].
    DeleteFile,
}

impl From<&HostRequest> for HostStep {
    fn from(request: &HostRequest) -> Self {
        match request {
            HostRequest::AttachScsi { .. } => Self::AttachScsi,
            HostRequest::DetachScsi { .. } => Self::DetachScsi,
            HostRequest::AttachVpmem { .. } => Self::AttachVpmem,
            HostRequest::DetachVpmem { .. } => Self::DetachVpmem,
            HostRequest::AddShare { .. } => Self::AddShare,
            HostRequest::RemoveShare { .. } => Self::RemoveShare,
            HostRequest::DeleteFile { .. } => Self::DeleteFile,
        }
    }
}

/// A request to the guest, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GuestStep {
    /// `NegotiateProtocol`.
    Negotiate,
    /// `Create`.
    Create,
    /// `Start`.
    Start,
    /// `ExecuteProcess`.
    ExecuteProcess,
    /// `WaitForProcess`.
    WaitForProcess,
    /// `SignalProcess`.
    SignalProcess,
    /// `ResizeConsole`.
    ResizeConsole,
    /// `GetProperties`.
    GetProperties,
    /// `ShutdownGraceful` or `ShutdownForced`.
    Shutdown,
    /// `DumpStacks`.
    DumpStacks,
    /// `DeleteContainerState`.
    DeleteContainerState,
    /// `MappedVirtualDisk` Add.
    MountScsi,
    /// `MappedVirtualDisk` Remove.
    UnmountScsi,
    /// `SCSIDevice` Remove.
    EjectScsi,
    /// `VPMemDevice` Add.
    MountVpmem,
    /// `VPMemDevice` Remove.
    UnmountVpmem,
    /// `MappedDirectory` Add.
    MountShare,
    /// `MappedDirectory` Remove.
    UnmountShare,
    /// `CombinedLayers` Add.
    CombineLayers,
    /// `CombinedLayers` Remove.
    RemoveCombinedLayers,
    /// `CofferdamContainerMount` Add.
    AddContainerMount,
    /// `CofferdamContainerMount` Remove.
    RemoveContainerMount,
    /// The wait for a container to run out of memory.
    WaitForOom,
    /// `ContainerConstraints`.
    UpdateContainer,
    /// `CofferdamPodLimits`.
    UpdatePod,
    /// `CofferdamFreezer`, either way.
    Freeze,
    /// Anything else.
    Other,
}

impl From<&ModificationRequest> for GuestStep {
    fn from(request: &ModificationRequest) -> Self {
        use RequestType::{Add, Remove, Update};
        match (&request.resource, request.request_type) {
            (Resource::MappedVirtualDisk(_), Add) => Self::MountScsi,
            (Resource::MappedVirtualDisk(_), Remove) => Self::UnmountScsi,
            (Resource::ScsiDevice(_), Remove) => Self::EjectScsi,
            (Resource::VpmemDevice(_), Add) => Self::MountVpmem,
            (Resource::VpmemDevice(_), Remove) => Self::UnmountVpmem,
            (Resource::MappedDirectory(_), Add) => Self::MountShare,
            (Resource::MappedDirectory(_), Remove) => Self::UnmountShare,
            (Resource::CombinedLayers(_), Add) => Self::CombineLayers,
            (Resource::CombinedLayers(_), Remove) => Self::RemoveCombinedLayers,
            (Resource::ContainerMount(_), Add) => Self::AddContainerMount,
            (Resource::ContainerMount(_), Remove) => Self::RemoveContainerMount,
            (Resource::ContainerConstraints(_), Update) => Self::UpdateContainer,
            (Resource::PodLimits(_), Update) => Self::UpdatePod,
            (Resource::Freezer(_), Update) => Self::Freeze,
            _ => Self::Other,
        }
    }
}

impl From<MessageType> for GuestStep {
    /// For all messages but `ModifySettings`, whose step depends on what it carries.
    fn from(message_type: MessageType) -> Self {
        match message_type {
            m::NEGOTIATE_PROTOCOL => Self::Negotiate,
            m::CREATE => Self::Create,
            m::START => Self::Start,
            m::EXECUTE_PROCESS => Self::ExecuteProcess,
            m::WAIT_FOR_PROCESS => Self::WaitForProcess,
            m::SIGNAL_PROCESS => Self::SignalProcess,
            m::RESIZE_CONSOLE => Self::ResizeConsole,
            m::GET_PROPERTIES => Self::GetProperties,
            m::SHUTDOWN_GRACEFUL | m::SHUTDOWN_FORCED => Self::Shutdown,
            m::DUMP_STACKS => Self::DumpStacks,
            m::DELETE_CONTAINER_STATE => Self::DeleteContainerState,
            m::WAIT_FOR_OOM => Self::WaitForOom,
            _ => Self::Other,
        }
    }
}

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is under way.
    Pending,
    /// It was done.
    Done,
    /// It was refused or failed; why.
    Failed(String),
    /// Its caller gave up, or the VM went, before it was done.
    Abandoned,
}

/// One step asked of the fake VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number, from 0, in the order in which steps began.
    pub number: usize,
    /// What kind of step.
    pub point: FaultPoint,
    /// What exactly was asked: the request as it is printed for debugging.
    pub request: String,
    /// How it went.
    pub outcome: Outcome,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:3} {:?}: {} -> {:?}",
            self.number, self.point, self.request, self.outcome
        )
    }
}
