//! A utility VM's adapter in the place of an interface of a network namespace.
//!
//! Whoever makes a pod's network (CNI plugins, `ip netns`) puts an interface into a network namespace and gives it
//! addresses and routes. [`Tap::join`] makes a tap device there and redirects what the one receives to the other, both ways:
//! the VM then sends and receives as if it were that interface, with its hardware address. What the guest has to be told is
//! read from the interface ([`Description`]). [`Loopback::take`] gets what connects to the namespace's own addresses, to be
//! carried into the VM in another way.
//!
//! ```no_run
//! # fn example() -> Result<(), cofferdam_network::NetworkError> {
//! use std::path::Path;
//!
//! use cofferdam_network::Tap;
//!
//! let tap = Tap::join(Path::new("/run/netns/pod"), "eth0")?;
//! let device = tap.device(); // for the hypervisor: an adapter with the hardware address of the description
//! let request = tap.description().settings("an id of the adapter"); // for the guest, once it has booted
//! // … the VM lives and ends …
//! # drop((device, request));
//! tap.remove()?; // the interface is as it was
//! # Ok(()) }
//! ```
//!
//! Modules: `namespace` does things inside of a network namespace, `device` opens tap devices, `description` says what an
//! interface is, `tap` joins the two and `adapters` all of a pod's; `loopback` takes the namespace's own addresses.

mod adapters;
mod description;
mod device;
mod error;
mod loopback;
mod namespace;
mod tap;

pub use adapters::Adapters;
pub use description::{Description, Resolver};
pub use error::NetworkError;
pub use loopback::{Loopback, asked_for};
pub use tap::{Redirection, Tap, interfaces, redirection, restore};
