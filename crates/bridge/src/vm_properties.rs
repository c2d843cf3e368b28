//! What the VM says of itself: its mount table and its agent's memory. An extension of cofferdam's own agent.

use cofferdam_protocol::{
    NULL_CONTAINER_ID,
    message::{GetProperties, GuestMount, Properties, PropertyType},
};

use crate::{Bridge, BridgeError, calls::context};

/// The VM's mount table, so far as the guest's answer could hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestMounts {
    /// Mounts made since the agent started, in the order the kernel lists them.
    pub listed: Vec<GuestMount>,
    /// Further ones that did not fit the guest's answer.
    pub omitted: u64,
}

impl GuestMounts {
    /// Whether nothing at all is mounted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.omitted == 0
    }
}

impl Bridge {
    /// Asks for the mounts the VM has made since its agent started, containers' own left out.
    ///
    /// # Errors
    /// [`BridgeError::Unsupported`] where the guest is not cofferdam's agent.
    pub async fn guest_mounts(&self) -> Result<GuestMounts, BridgeError> {
        let what = "tell its mounts";
        let properties = self.vm_property(PropertyType::Mounts, what).await?;
        Ok(GuestMounts {
            listed: properties.mounts.ok_or_else(|| unsupported(what))?,
            omitted: properties.mounts_omitted,
        })
    }

    /// Asks for the agent's resident memory, in bytes.
    ///
    /// # Errors
    /// [`BridgeError::Unsupported`] where the guest is not cofferdam's agent, or its kernel does not say.
    pub async fn agent_memory_bytes(&self) -> Result<u64, BridgeError> {
        let what = "tell its agent's memory";
        let properties = self.vm_property(PropertyType::AgentMemory, what).await?;
        let memory = properties.agent_memory.and_then(|memory| memory.rss_bytes);
        memory.ok_or_else(|| unsupported(what))
    }

    async fn vm_property(
        &self,
        property: PropertyType,
        what: &'static str,
    ) -> Result<Properties, BridgeError> {
        if !self.capabilities().guest_defined_capabilities.cofferdam_mounts {
            return Err(unsupported(what));
        }
        self.get_properties(NULL_CONTAINER_ID, &[property]).await
    }
}

fn unsupported(what: &'static str) -> BridgeError {
    BridgeError::Unsupported {
        call: context::<GetProperties>(NULL_CONTAINER_ID, ""),
        what,
    }
}
