//! All interfaces of a pod carried into its VM.

use std::path::Path;

use cofferdam_protocol::settings::{ModificationRequest, RequestType, Resource};

use crate::{Description, NetworkError, Resolver, Tap};

/// The adapters of a VM that have taken interfaces' places. Dropping it gives them back, so far as that can be done.
#[derive(Debug, Default)]
pub struct Adapters {
    taps: Vec<Tap>,
}

impl Adapters {
    /// Takes the place of these interfaces of the network namespace at `namespace`, which
    /// [`interfaces`](crate::interfaces) lists. After a failure none is taken.
    ///
    /// # Errors
    /// As for [`Tap::join`].
    pub fn join(namespace: &Path, interfaces: &[String]) -> Result<Self, NetworkError> {
        let joined = interfaces.iter().map(|name| Tap::join(namespace, name));
        Ok(Self {
            taps: joined.collect::<Result<_, _>>()?,
        })
    }

    /// Each of them, in the order of the interfaces.
    pub fn taps(&self) -> impl Iterator<Item = &Tap> {
        self.taps.iter()
    }

    /// Has all of them ask these servers for names.
    pub fn ask(&mut self, resolver: &Resolver) {
        for tap in &mut self.taps {
            tap.description_mut().resolver = resolver.clone();
        }
    }

    /// What has the guest set each of them up as the interface was.
    #[must_use]
    pub fn requests(&self) -> Vec<ModificationRequest> {
        self.taps.iter().map(|tap| request(tap.description())).collect()
    }

    /// Gives the interfaces their places back, each of them whatever becomes of the others.
    ///
    /// # Errors
    /// As for [`Tap::remove`]; several of them are [`NetworkError::Several`].
    pub fn remove(self) -> Result<(), NetworkError> {
        let outcomes = self.taps.into_iter().map(Tap::remove);
        let mut failures: Vec<_> = outcomes.filter_map(Result::err).collect();
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(NetworkError::Several(failures)),
        }
    }
}

/// The name between host and guest is made of the hardware address.
fn request(description: &Description) -> ModificationRequest {
    let digits = description.mac.to_string().replace(':', "");
    ModificationRequest {
        request_type: RequestType::Add,
        resource: Resource::Network(description.settings(&format!("00000000-0000-0000-0000-{digits}"))),
    }
}
