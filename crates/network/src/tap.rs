//! A tap device in the place of an interface.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use cofferdam_netlink::{Ingress, Link, Netlink, NetlinkError};

use crate::{description::Description, device, error::NetworkError, namespace::inside};

/// A tap device that has taken an interface's place. Dropping it gives the place back, so far as that can be done.
#[derive(Debug)]
#[must_use = "dropping it parts the tap device from the interface"]
pub struct Tap {
    namespace: PathBuf,
    interface: String,
    name: String,
    index: i32,
    description: Description,
    device: Arc<OwnedFd>,
    parted: bool,
}

impl Tap {
    /// Makes a tap device in the network namespace at `namespace` (a file such as `/run/netns/NAME` or `/proc/PID/ns/net`),
    /// and redirects what `interface` receives to it and what it sends to `interface`. Until then nothing is changed, and after
    /// a failure nothing is.
    ///
    /// # Errors
    /// The namespace cannot be entered, the interface is none that a VM's adapter can replace or somebody redirects it
    /// already, or the kernel lacks tap devices, `sch_ingress`, `cls_u32` or `act_mirred`.
    pub fn join(namespace: &Path, interface: &str) -> Result<Self, NetworkError> {
        inside(namespace, || {
            let failed = |source| NetworkError::Kernel {
                namespace: namespace.to_owned(),
                source,
            };
            let refused = |problem| NetworkError::Interface {
                namespace: namespace.to_owned(),
                interface: interface.to_owned(),
                problem,
            };
            let mut kernel = Netlink::open().map_err(failed)?;
            let link = named(&mut kernel, interface)
                .map_err(failed)?
                .ok_or_else(|| refused("there is none of this name"))?;
            let mac = match link.mac {
                Some(mac) if !link.loopback => mac,
                _ => return Err(refused("it is no Ethernet interface")),
            };
            let description = Description::of(&mut kernel, &link, mac).map_err(failed)?;
            let (device, name) = device::open().map_err(|source| NetworkError::Io {
                action: format!(
                    "making a tap device in the network namespace {}",
                    namespace.display()
                ),
                source,
            })?;
            // The kernel would speak IPv6 over it to the guest, in nobody's name. Without IPv6 there is nothing to set.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
            // With an error from here on, the device goes with its descriptor, and what is on it.
            let index = redirect_both(&mut kernel, &link, &name).map_err(failed)?;
            tracing::debug!(namespace = %namespace.display(), interface, tap = name, "joined");
            Ok(Self {
                namespace: namespace.to_owned(),
                interface: interface.to_owned(),
                name,
                index,
                description,
                device: Arc::new(device),
                parted: false,
            })
        })
    }

    /// What the guest has to be told.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The same, to be completed with what an interface does not say.
    pub fn description_mut(&mut self) -> &mut Description {
        &mut self.description
    }

    /// The tap device's name in its network namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface whose place it has.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The tap device's number in its network namespace, which no other device gets later.
    #[must_use]
    pub fn index(&self) -> i32 {
        self.index
    }

    /// The open device, for a hypervisor to inherit. The tap device is as long as anybody has it open.
    #[must_use]
    pub fn device(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.device)
    }

    /// Gives the interface its place back. The tap device goes once the hypervisor's copy of it is closed too. A namespace that
    /// is gone has taken everything along: that is no error.
    ///
    /// # Errors
    /// As for [`restore`], which can be called again then.
    pub fn remove(mut self) -> Result<(), NetworkError> {
        self.part()
    }

    fn part(&mut self) -> Result<(), NetworkError> {
        // Once: what is redirected later is somebody else's.
        if std::mem::replace(&mut self.parted, true) {
            return Ok(());
        }
        restore(&self.namespace, &self.interface)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Err(error) = self.part() {
            tracing::warn!(%error, "an interface stays redirected to a tap device that is gone");
        }
    }
}

/// Ends the redirection of an interface, whoever began it: also what a killed owner has left. None is no error, nor is a
/// namespace or an interface that is gone.
///
/// # Errors
/// The system's.
pub fn restore(namespace: &Path, interface: &str) -> Result<(), NetworkError> {
    on_interface(namespace, interface, |kernel, link| {
        kernel.stop_redirecting(link.index)
    })
    .map(|_| ())
}

/// Does something with an interface; `None` where it or its namespace is gone.
fn on_interface<T: Send>(
    namespace: &Path,
    interface: &str,
    work: impl FnOnce(&mut Netlink, &Link) -> Result<T, NetlinkError> + Send,
) -> Result<Option<T>, NetworkError> {
    if matches!(fs::metadata(namespace), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(None);
    }
    inside(namespace, || {
        let failed = |source| NetworkError::Kernel {
            namespace: namespace.to_owned(),
            source,
        };
        let mut kernel = Netlink::open().map_err(failed)?;
        match named(&mut kernel, interface).map_err(failed)? {
            Some(link) => work(&mut kernel, &link).map(Some).map_err(failed),
            None => Ok(None),
        }
    })
}

/// How it stands with the redirection of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirection {
    /// It is not redirected, or is no more.
    Absent,
    /// It leads to a device that is gone, or was never completed: what a killed owner has left.
    Abandoned,
    /// It leads to the device of this number ([`Tap::index`]), which somebody has open.
    InUse(i32),
}

/// How it stands with the redirection of an interface: whether [`restore`] is due. Nothing is changed.
///
/// # Errors
/// The system's.
pub fn redirection(namespace: &Path, interface: &str) -> Result<Redirection, NetworkError> {
    let found = on_interface(namespace, interface, |kernel, link| {
        Ok(match kernel.ingress(link.index)? {
            Ingress::Absent | Ingress::Other => Redirection::Absent,
            Ingress::Redirected(to) if kernel.links()?.iter().any(|link| link.index == to) => {
                Redirection::InUse(to)
            }
            Ingress::Empty | Ingress::Redirected(_) => Redirection::Abandoned,
        })
    });
    Ok(found?.unwrap_or(Redirection::Absent))
}

/// The names of the interfaces in a network namespace that a VM's adapter can take the place of: Ethernet, and up.
///
/// # Errors
/// The namespace cannot be entered; the kernel's.
pub fn interfaces(namespace: &Path) -> Result<Vec<String>, NetworkError> {
    inside(namespace, || {
        let links = Netlink::open().and_then(|mut kernel| kernel.links());
        let links = links.map_err(|source| NetworkError::Kernel {
            namespace: namespace.to_owned(),
            source,
        })?;
        let fitting = links
            .into_iter()
            .filter(|link| link.up && !link.loopback && link.mac.is_some());
        Ok(fitting.map(|link| link.name).collect())
    })
}

fn named(kernel: &mut Netlink, name: &str) -> Result<Option<Link>, NetlinkError> {
    Ok(kernel.links()?.into_iter().find(|link| link.name == name))
}

/// The tap device's number.
fn redirect_both(kernel: &mut Netlink, link: &Link, tap: &str) -> Result<i32, NetlinkError> {
    let tap = named(kernel, tap)?.map_or(0, |tap| tap.index);
    kernel.set_link(tap, true, Some(link.mtu))?;
    kernel.redirect(tap, link.index)?;
    // Last, as this is what changes the interface.
    kernel.redirect(link.index, tap)?;
    Ok(tap)
}
