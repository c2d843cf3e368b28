//! The calls of the protocol, typed.

use std::sync::Arc;

use cofferdam_protocol::{
    HResult, NULL_CONTAINER_ID, PROTOCOL_VERSION,
    frame::{self, Frame},
    json::InString,
    message::*,
    settings::{ModificationRequest, Resource},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    BridgeError, CallContext, CloseReason, ContainerExit, Options,
    connection::{self, Shared},
};

/// Frames queued for the writer. More wait in their calls, within their limits.
const QUEUED_FRAMES: usize = 64;

/// Linux signals that every guest delivers, whatever its capabilities.
const ALWAYS_DELIVERED: [i32; 2] = [SIGKILL, 15];

/// The connection to the agent of one utility VM. See the crate's documentation.
///
/// Dropping it ends the connection; futures of [`Bridge::container_exited`] then resolve with
/// [`CloseReason::Dropped`].
#[derive(Debug)]
pub struct Bridge {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
    options: Options,
    capabilities: Capabilities,
}

/// What host and guest have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The protocol version: 4.
    pub version: u32,
    /// The guest's system in lower case: `linux`, or `windows` where it names none.
    pub runtime_os: String,
    /// Everything the guest says of itself.
    pub capabilities: Capabilities,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.close(CloseReason::Dropped);
        // The tasks end by themselves on `close`; aborting them also ends a write that the guest does not take.
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Bridge {
    /// Takes over a stream the guest has opened to the bridge port, and negotiates version 4.
    ///
    /// Must be called within a tokio runtime; the tasks that own the stream are spawned there.
    pub async fn connect<S>(stream: S, options: Options) -> Result<(Arc<Self>, Negotiated), BridgeError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (queue, queued) = mpsc::channel(QUEUED_FRAMES);
        let shared = Arc::new(Shared::new());
        let tasks = [
            tokio::spawn(connection::read_all(shared.clone(), reader)),
            tokio::spawn(connection::write_all(shared.clone(), writer, queued)),
        ];
        let mut bridge = Self {
            shared,
            queue,
            tasks,
            options,
            capabilities: Capabilities::default(),
        };
        let negotiated = bridge.negotiate().await?;
        bridge.capabilities = negotiated.capabilities.clone();
        Ok((Arc::new(bridge), negotiated))
    }

    /// §5.
    async fn negotiate(&self) -> Result<Negotiated, BridgeError> {
        let call = context::<NegotiateProtocol>("", "");
        let NegotiateProtocolReply {
            version,
            capabilities,
        } = self.call(call.clone(), NegotiateProtocol::version_4()).await?;
        if version != PROTOCOL_VERSION {
            return Err(BridgeError::WrongVersion { call, version });
        }
        if capabilities.send_host_create_message {
            let config = ContainerConfig {
                system_type: "Container".to_owned(),
                ..Default::default()
            };
            self.create(NULL_CONTAINER_ID, config).await?;
            if capabilities.send_host_start_message {
                self.start(NULL_CONTAINER_ID).await?;
            }
        }
        Ok(Negotiated {
            version,
            runtime_os: capabilities.runtime_os(),
            capabilities,
        })
    }

    /// What the guest said of itself.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Resolves with the reason when the connection has ended; at once if it has. Any number of callers.
    pub async fn closed(&self) -> CloseReason {
        self.shared.closed().await
    }

    /// Waits for the container's exit notification, from now on. Call it before [`Bridge::create`]. A notification
    /// that nobody waits for, so also a second one, is logged and dropped.
    pub fn container_exited(&self, container_id: &str) -> ContainerExit {
        ContainerExit::register(self.shared.clone(), container_id)
    }

    /// How many calls are in flight and how many exits are waited for: 0 and 0 when nothing leaks.
    pub fn waiting(&self) -> (usize, usize) {
        self.shared.waiting()
    }

    /// Creates a container; its init process is held until [`Bridge::execute_process`].
    pub async fn create(&self, container_id: &str, config: ContainerConfig) -> Result<(), BridgeError> {
        let call = context::<Create>(container_id, "");
        self.call(
            call,
            Create {
                container_config: InString(config),
            },
        )
        .await
        .map(|Empty {}| ())
    }

    /// Starts a created container, formally; it is due before the init's [`Bridge::execute_process`].
    pub async fn start(&self, container_id: &str) -> Result<(), BridgeError> {
        self.call(context::<Start>(container_id, ""), Start {})
            .await
            .map(|Empty {}| ())
    }

    /// Starts a process and returns its process id in the VM. The host must be listening on the ports of `stdio`:
    /// the guest dials them before it answers.
    pub async fn execute_process(
        &self,
        container_id: &str,
        parameters: ProcessParameters,
        stdio: VsockStdioRelaySettings,
    ) -> Result<u32, BridgeError> {
        let program = parameters
            .command_args
            .first()
            .unwrap_or(&parameters.command_line)
            .clone();
        let call = context::<ExecuteProcess>(container_id, program);
        Ok(self
            .call(call, ExecuteProcess::new(parameters, stdio))
            .await?
            .process_id)
    }

    /// Waits until a process has exited and returns its exit code. There is no time limit.
    pub async fn wait_for_process(&self, container_id: &str, process_id: u32) -> Result<u32, BridgeError> {
        let call = context::<WaitForProcess>(container_id, format!("process {process_id}"));
        let wait = WaitForProcess {
            process_id,
            timeout_in_ms: INFINITE_TIMEOUT_MS,
        };
        Ok(self.call(call, wait).await?.exit_code)
    }

    /// Sends a Linux signal to a process; `None` sends SIGKILL. `false` if there was no such process any more.
    pub async fn signal_process(
        &self,
        container_id: &str,
        process_id: u32,
        signal: Option<i32>,
    ) -> Result<bool, BridgeError> {
        let signal = signal.unwrap_or(SIGKILL);
        let call = context::<SignalProcess>(container_id, format!("signal {signal} to process {process_id}"));
        let supported = self
            .capabilities
            .guest_defined_capabilities
            .signal_process_supported;
        if !supported && !ALWAYS_DELIVERED.contains(&signal) {
            return Err(BridgeError::Unsupported {
                call,
                what: "deliver signals other than 9 and 15",
            });
        }
        // A kill goes without options, as every guest understands it.
        let request = match signal {
            SIGKILL => SignalProcess::kill(process_id),
            signal => SignalProcess::with_signal(process_id, signal),
        };
        match self.call(call, request).await {
            Ok(Empty {}) => Ok(true),
            Err(error) if error.result() == Some(HResult::NOT_FOUND) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets the size of a process's terminal, in characters.
    pub async fn resize_console(
        &self,
        container_id: &str,
        process_id: u32,
        height: u16,
        width: u16,
    ) -> Result<(), BridgeError> {
        let call = context::<ResizeConsole>(container_id, format!("process {process_id}"));
        self.call(
            call,
            ResizeConsole {
                process_id,
                height,
                width,
            },
        )
        .await
        .map(|Empty {}| ())
    }

    /// Asks for properties of a container.
    pub async fn get_properties(
        &self,
        container_id: &str,
        property_types: &[PropertyType],
    ) -> Result<Properties, BridgeError> {
        let query = InString(PropertyQuery {
            property_types: property_types.to_vec(),
        });
        let reply = self
            .call(
                context::<GetProperties>(container_id, ""),
                GetProperties { query },
            )
            .await?;
        Ok(reply.properties.0)
    }

    /// Changes a resource of the VM.
    pub async fn modify(&self, request: ModificationRequest) -> Result<(), BridgeError> {
        let call = context::<ModifySettings>(NULL_CONTAINER_ID, subject(&request));
        self.call(call, ModifySettings { request })
            .await
            .map(|Empty {}| ())
    }

    /// Whether the guest changes the mounts of running containers.
    ///
    /// # Errors
    /// [`BridgeError::Unsupported`] where it does not.
    pub fn check_container_mounts(&self) -> Result<(), BridgeError> {
        self.container_mounts(context::<ModifySettings>(NULL_CONTAINER_ID, ""))
            .map(|_call| ())
    }

    fn container_mounts(&self, call: CallContext) -> Result<CallContext, BridgeError> {
        let supported = self
            .capabilities
            .guest_defined_capabilities
            .cofferdam_container_mounts;
        if supported {
            return Ok(call);
        }
        Err(BridgeError::Unsupported {
            call,
            what: "change the mounts of a running container",
        })
    }

    /// Changes a resource of a container. An extension, so a guest that has not announced it is not asked.
    pub async fn modify_container(
        &self,
        container_id: &str,
        request: ModificationRequest,
    ) -> Result<(), BridgeError> {
        let call = self.container_mounts(context::<ModifySettings>(container_id, subject(&request)))?;
        self.call(call, ModifySettings { request })
            .await
            .map(|Empty {}| ())
    }

    /// Asks a container's init to end (SIGTERM). For [`NULL_CONTAINER_ID`] the VM powers off, and this returns when
    /// the connection has ended. No such container, or one that has stopped, is no error.
    pub async fn shutdown_graceful(&self, container_id: &str) -> Result<(), BridgeError> {
        self.shut_down(container_id, ShutdownGraceful {}).await
    }

    /// Ends a container's init (SIGKILL). For [`NULL_CONTAINER_ID`] as [`Bridge::shutdown_graceful`].
    pub async fn shutdown_forced(&self, container_id: &str) -> Result<(), BridgeError> {
        self.shut_down(container_id, ShutdownForced {}).await
    }

    async fn shut_down<P>(&self, container_id: &str, request: P) -> Result<(), BridgeError>
    where
        P: Payload<Reply = Empty>,
    {
        const GONE: [Option<HResult>; 2] =
            [Some(HResult::CONTAINER_NOT_FOUND), Some(HResult::ALREADY_STOPPED)];
        match self.call(context::<P>(container_id, ""), request).await {
            Ok(Empty {}) => Ok(()),
            Err(error) if GONE.contains(&error.result()) => Ok(()),
            // Powering off is answered by the end of the connection.
            Err(BridgeError::Closed { .. }) if container_id == NULL_CONTAINER_ID => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks for the stacks of the agent's threads, as text for people.
    pub async fn dump_stacks(&self) -> Result<String, BridgeError> {
        let call = context::<DumpStacks>(NULL_CONTAINER_ID, "");
        if !self.capabilities.guest_defined_capabilities.dump_stacks_supported {
            return Err(BridgeError::Unsupported {
                call,
                what: "dump its stacks",
            });
        }
        Ok(self.call(call, DumpStacks {}).await?.guest_stacks)
    }

    /// Deletes what the guest keeps of a container. It comes after its layers and mounts are removed. No such
    /// container is no error.
    pub async fn delete_container_state(&self, container_id: &str) -> Result<(), BridgeError> {
        let call = context::<DeleteContainerState>(container_id, "");
        if !self
            .capabilities
            .guest_defined_capabilities
            .delete_container_state_supported
        {
            return Err(BridgeError::Unsupported {
                call,
                what: "delete a container's state",
            });
        }
        match self.call(call, DeleteContainerState {}).await {
            Err(error) if error.result() == Some(HResult::CONTAINER_NOT_FOUND) => Ok(()),
            answered => answered.map(|Empty {}| ()),
        }
    }

    /// Sends a request and waits for its answer, no longer than the operation's limit. Dropping the future at any
    /// point leaves nothing behind: the request is sent whole or not at all.
    pub(crate) async fn call<P: Payload>(
        &self,
        call: CallContext,
        payload: P,
    ) -> Result<P::Reply, BridgeError> {
        let body = Request::new(call.container_id.clone(), payload).to_body();
        let exchange = self.exchange(&call, &body);
        let answer = match self.options.timeouts.of(P::TYPE) {
            None => exchange.await?,
            Some(limit) => match tokio::time::timeout(limit, exchange).await {
                Ok(answered) => answered?,
                Err(_) => return Err(BridgeError::TimedOut { call, limit }),
            },
        };
        if !connection::answers(P::TYPE, &answer) {
            return Err(BridgeError::WrongReply {
                call,
                got: answer.message_type,
            });
        }
        let response = match Response::<P::Reply>::from_body(&answer.body) {
            Ok(response) => response,
            Err(source) => return Err(BridgeError::BadReply { call, source }),
        };
        if response.base.result.is_ok() {
            Ok(response.payload)
        } else {
            Err(BridgeError::Guest {
                call,
                failure: Box::new(response.base.into()),
            })
        }
    }

    async fn exchange(&self, call: &CallContext, body: &[u8]) -> Result<Frame, BridgeError> {
        let closed = |reason| BridgeError::Closed {
            call: call.clone(),
            reason,
        };
        let mut pending = self.shared.begin_call().map_err(closed)?;
        let frame = frame::encode(call.operation, pending.id, body, self.options.max_request_bytes).map_err(
            |source| BridgeError::NotSent {
                call: call.clone(),
                source,
            },
        )?;
        // While the queue is full the end of the connection must still be noticed: `answer` is part of the race.
        tokio::select! {
            sent = self.queue.send(frame) => sent.map_err(|_| closed(self.shared.close_reason()))?,
            ended = &mut pending.answer => return ended.map_err(|_| closed(self.shared.close_reason())),
        }
        (&mut pending.answer)
            .await
            .map_err(|_| closed(self.shared.close_reason()))
    }
}

pub(crate) fn context<P: Payload>(container_id: &str, subject: impl Into<String>) -> CallContext {
    CallContext {
        operation: P::TYPE,
        subject: subject.into(),
        container_id: container_id.to_owned(),
    }
}

/// What a modification is about, in words.
pub(crate) fn subject(request: &ModificationRequest) -> String {
    let place = match &request.resource {
        Resource::MappedVirtualDisk(disk) => {
            format!(" {}:{} on {}", disk.controller, disk.lun, disk.mount_path)
        }
        Resource::ScsiDevice(disk) => format!(" {}:{}", disk.controller, disk.lun),
        Resource::VpmemDevice(device) => format!(" {} on {}", device.device_number, device.mount_path),
        Resource::CombinedLayers(layers) => format!(" on {}", layers.container_root_path),
        Resource::MappedDirectory(share) => format!(" {} on {}", share.share_name, share.mount_path),
        Resource::Network(adapter) => format!(" {}", adapter.id),
        Resource::ContainerMount(mount) => format!(" on {}", mount.destination),
        Resource::Freezer(freezer) => format!(" to {}", if freezer.frozen { "stand still" } else { "go on" }),
        Resource::ContainerConstraints(_) | Resource::PodLimits(_) | Resource::Unknown { .. } => {
            String::new()
        }
    };
    format!("{:?} {}{place}", request.request_type, request.resource.name())
}
