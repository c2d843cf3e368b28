//! The few routing messages (`rtnetlink(7)`) that the agent and the host send the kernel: links, addresses, routes,
//! neighbours, and the redirection of everything one interface receives to another.
//!
//! A codec of our own, because every VM loads the agent into memory at each boot, and the crates for the whole of
//! rtnetlink carry a parser for each of its attributes (docs/decisions/0112-network.md). What the kernel answers is read
//! with bounds all the same.
//!
//! ```no_run
//! use cofferdam_netlink::{Netlink, Prefix};
//!
//! # fn example() -> Result<(), cofferdam_netlink::NetlinkError> {
//! let mut kernel = Netlink::open()?; // of the network namespace the calling thread is in
//! for link in kernel.links()? {
//!     if link.name == "eth0" {
//!         kernel.set_link(link.index, true, Some(1450))?;
//!         kernel.add_address(link.index, Prefix::new([10, 0, 2, 15].into(), 24)?)?;
//!     }
//! }
//! # Ok(()) }
//! ```

mod address;
mod error;
mod link;
mod message;
mod prefix;
mod route;
mod socket;
mod traffic;

pub use address::Neighbour;
pub use error::NetlinkError;
pub use link::Link;
pub use prefix::{MacAddress, Prefix};
pub use route::Route;
pub use socket::Netlink;
pub use traffic::Ingress;
