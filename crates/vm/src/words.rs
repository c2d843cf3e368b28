//! Steps in words, for errors and logs.

use std::fmt;

use cofferdam_ledger::{
    Request,
    request::{GuestRequest, HostRequest},
};

/// A request in words, with its device and its paths.
pub(crate) fn described(request: &Request) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| match request {
        Request::Host(request) => described_host(request, f),
        Request::Guest(request) => described_guest(request, f),
    })
}

fn described_host(request: &HostRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match request {
        HostRequest::AttachScsi { address, path, .. } => {
            write!(f, "attaching {} as {address}", path.display())
        }
        HostRequest::DetachScsi { address } => write!(f, "detaching {address}"),
        HostRequest::AttachVpmem { index, path } => {
            write!(f, "attaching {} as VPMEM {index}", path.display())
        }
        HostRequest::DetachVpmem { index } => write!(f, "detaching VPMEM {index}"),
        HostRequest::AddShare { share, path, .. } => write!(f, "sharing {} as share {share}", path.display()),
        HostRequest::RemoveShare { share } => write!(f, "withdrawing share {share}"),
        HostRequest::DeleteFile { path } => write!(f, "deleting {}", path.display()),
    }
}

fn described_guest(request: &GuestRequest, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match request {
        GuestRequest::MountScsi {
            address, guest_path, ..
        } => write!(f, "mounting {address} on {guest_path}"),
        GuestRequest::UnmountScsi {
            address, guest_path, ..
        } => {
            write!(f, "unmounting {address} from {guest_path}")
        }
        GuestRequest::EjectScsi { address } => write!(f, "ejecting {address}"),
        GuestRequest::MountVpmem { index, guest_path } => write!(f, "mounting VPMEM {index} on {guest_path}"),
        GuestRequest::UnmountVpmem { index, guest_path } => {
            write!(f, "unmounting VPMEM {index} from {guest_path}")
        }
        GuestRequest::MountShare {
            share, guest_path, ..
        } => write!(f, "mounting share {share} on {guest_path}"),
        GuestRequest::UnmountShare {
            share, guest_path, ..
        } => {
            write!(f, "unmounting share {share} from {guest_path}")
        }
        GuestRequest::CombineLayers { root, layers, .. } => {
            write!(f, "combining {} layers at {root}", layers.len())
        }
        GuestRequest::RemoveCombinedLayers { root } => write!(f, "removing the combined layers at {root}"),
        GuestRequest::AddContainerMount {
            container,
            source,
            destination,
            ..
        } => write!(f, "mounting {source} on {destination} of container {container}"),
        GuestRequest::RemoveContainerMount {
            container,
            destination,
            ..
        } => write!(f, "unmounting {destination} of container {container}"),
    }
}
