//! What containers may use, whether they run, what they have used, and whether they ran out of memory.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use cofferdam_protocol::{
    HResult, NULL_CONTAINER_ID,
    message::{
        Empty, GetProperties, Metrics, ModifySettings, OutOfMemory, Payload, PropertyType, WaitForOom,
        WaitForOomReply,
    },
    settings::{Constraints, Freezer, ModificationRequest, Resource},
};
use serde_json::Value;

use crate::{
    Bridge, BridgeError,
    calls::{context, subject},
};

impl Bridge {
    /// Changes the limits of a container that has not ended: `resources` is `linux.resources` of the OCI runtime
    /// specification. What it does not name stays as it is; if one limit cannot be had, none is changed.
    ///
    /// This is the original's own message (GCS bridge protocol §7.7), so any guest is asked.
    ///
    /// # Errors
    /// [`BridgeError::Guest`] with the member that makes no sense or does not hold in the VM.
    pub async fn update_container(&self, container_id: &str, resources: &Value) -> Result<(), BridgeError> {
        let limits = Constraints::linux(resources.clone());
        self.update(container_id, Resource::ContainerConstraints(limits))
            .await
    }

    /// Changes the limits of all containers of the VM together, as [`Bridge::update_container`] those of one.
    ///
    /// # Errors
    /// As there; and [`BridgeError::Unsupported`] where the guest is not cofferdam's agent.
    pub async fn update_pod(&self, resources: &Value) -> Result<(), BridgeError> {
        self.check_limits::<ModifySettings>(NULL_CONTAINER_ID, "limit all containers together")?;
        let limits = Constraints::linux(resources.clone());
        self.update(NULL_CONTAINER_ID, Resource::PodLimits(limits)).await
    }

    /// Makes all processes of a running container stand still. Repeating it is no error. Until it is resumed it can be
    /// killed, but no process can be started in it.
    ///
    /// # Errors
    /// [`BridgeError::Guest`] where it does not run, or one of its processes does not stop in time: then all go on.
    /// [`BridgeError::Unsupported`] where the guest is not cofferdam's agent.
    pub async fn pause(&self, container_id: &str) -> Result<(), BridgeError> {
        self.freeze(container_id, true).await
    }

    /// Lets them go on. Repeating it is no error.
    ///
    /// # Errors
    /// As [`Bridge::pause`].
    pub async fn resume(&self, container_id: &str) -> Result<(), BridgeError> {
        self.freeze(container_id, false).await
    }

    async fn freeze(&self, container_id: &str, frozen: bool) -> Result<(), BridgeError> {
        self.check_limits::<ModifySettings>(container_id, "make a container stand still")?;
        self.update(container_id, Resource::Freezer(Freezer { frozen }))
            .await
    }

    async fn update(&self, container_id: &str, resource: Resource) -> Result<(), BridgeError> {
        let request = ModificationRequest::update(resource);
        let call = context::<ModifySettings>(container_id, subject(&request));
        self.call(call, ModifySettings { request })
            .await
            .map(|Empty {}| ())
    }

    /// What a container has used since it was created; also after its end, until its state is deleted.
    ///
    /// # Errors
    /// [`BridgeError::BadReply`] where the figures make no sense.
    pub async fn statistics(&self, container_id: &str) -> Result<Metrics, BridgeError> {
        let properties = self
            .get_properties(container_id, &[PropertyType::Statistics])
            .await?;
        let Some(metrics) = properties.metrics else {
            return Ok(Metrics::default());
        };
        Metrics::from_value(metrics).map_err(|source| BridgeError::BadReply {
            call: context::<GetProperties>(container_id, "Statistics"),
            source,
        })
    }

    /// What all containers of the VM have used together.
    ///
    /// # Errors
    /// As [`Bridge::statistics`]; and [`BridgeError::Unsupported`] where the guest is not cofferdam's agent.
    pub async fn pod_statistics(&self) -> Result<Metrics, BridgeError> {
        self.check_limits::<GetProperties>(NULL_CONTAINER_ID, "tell what its containers have used together")?;
        self.statistics(NULL_CONTAINER_ID).await
    }

    /// Whether a container ran out of memory; also after its end, until its state is deleted.
    ///
    /// # Errors
    /// [`BridgeError::Unsupported`] where the guest is not cofferdam's agent.
    pub async fn out_of_memory(&self, container_id: &str) -> Result<OutOfMemory, BridgeError> {
        let what = "tell whether a container ran out of memory";
        self.check_limits::<GetProperties>(container_id, what)?;
        let properties = self
            .get_properties(container_id, &[PropertyType::OutOfMemory])
            .await?;
        properties.out_of_memory.ok_or_else(|| BridgeError::Unsupported {
            call: context::<GetProperties>(container_id, "OutOfMemory"),
            what,
        })
    }

    /// What happens to a container's processes for want of memory, from its creation on. The container must have been
    /// created.
    ///
    /// # Errors
    /// [`BridgeError::Unsupported`] where the guest is not cofferdam's agent.
    pub fn container_oom(self: &Arc<Self>, container_id: &str) -> Result<OomEvents, BridgeError> {
        self.check_limits::<WaitForOom>(container_id, "tell when a container runs out of memory")?;
        Ok(OomEvents {
            bridge: Arc::clone(self),
            container_id: container_id.to_owned(),
            last: WaitForOomReply::default(),
            asked: None,
        })
    }

    fn check_limits<P: Payload>(&self, container_id: &str, what: &'static str) -> Result<(), BridgeError> {
        if self.capabilities().guest_defined_capabilities.cofferdam_limits {
            return Ok(());
        }
        Err(BridgeError::Unsupported {
            call: context::<P>(container_id, ""),
            what,
        })
    }
}

/// How often the kernel kills processes of a container for want of memory.
pub struct OomEvents {
    bridge: Arc<Bridge>,
    container_id: String,
    last: WaitForOomReply,
    /// The request under way. It outlives the future of a caller that gave up: the guest would keep each one.
    asked: Option<Asked>,
}

type Asked = Pin<Box<dyn Future<Output = Result<WaitForOomReply, BridgeError>> + Send>>;

impl fmt::Debug for OomEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OomEvents")
            .field("container_id", &self.container_id)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl OomEvents {
    /// Waits until more processes have been killed than it said before, and returns how many those are since the
    /// container was created; `None` once nothing more can happen, since the container has ended. There is no time
    /// limit. Dropping the future loses nothing: what happened meanwhile is told by the next call.
    ///
    /// # Errors
    /// The bridge's.
    pub async fn next(&mut self) -> Result<Option<u64>, BridgeError> {
        if self.last.ended {
            return Ok(None);
        }
        let asked = self.asked.get_or_insert_with(|| {
            let (bridge, call) = (
                Arc::clone(&self.bridge),
                context::<WaitForOom>(&self.container_id, ""),
            );
            let wait = WaitForOom {
                kills_seen: self.last.kills,
            };
            Box::pin(async move { bridge.call(call, wait).await })
        });
        let answered = asked.await;
        self.asked = None;
        let reply = match answered {
            // Its state has been deleted meanwhile.
            Err(error) if error.result() == Some(HResult::CONTAINER_NOT_FOUND) => WaitForOomReply {
                ended: true,
                ..self.last
            },
            answered => answered?,
        };
        let more = reply.kills > self.last.kills;
        self.last = reply;
        Ok(more.then_some(reply.kills))
    }
}
