//! containerd's task API over the containers of one VM.
//!
//! [`Service`] translates between the API's messages and a [`cofferdam_pod::Pod`]; the process it is in is an [`Owner`], which
//! knows where VMs and roots come from. [`serve()`] puts it on a socket, under both names of the API.

mod carried;
mod convert;
mod metrics;
mod owner;
mod server;
mod service;

pub use crate::{
    convert::timestamp,
    owner::{Owner, OwnerFailure, Up},
    server::serve,
    service::{COPY, Service},
};
