//! The fake guest's boot and its end of the bridge.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cofferdam_protocol::{
    HResult, PROTOCOL_VERSION,
    frame::{self, Decoder, Frame, MAX_GUEST_FRAME_BYTES, MAX_HOST_FRAME_BYTES},
    json::InString,
    message::*,
    message_type::Kind,
    ports,
    settings::Resource,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};

use super::{
    FaultPoint, GuestStep, containers, control,
    host::Refusal,
    vm::{StepError, Vm},
};

/// SIGTERM.
const TERM: i32 = 15;

/// Boots the guest: entropy, log, then the bridge, dialled again whenever it is lost.
pub(super) async fn boot(vm: Arc<Vm>) {
    if let Some(mut entropy) = vm.dial(ports::ENTROPY) {
        // The end of the stream is all that matters.
        let _ = tokio::io::copy(&mut entropy, &mut tokio::io::sink()).await;
    }
    if let Some(mut log) = vm.dial(ports::LOG) {
        let (sender, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
        let first = r#"{"time":"2026-01-01T00:00:00Z","level":"info","msg":"the fake agent has started"}"#;
        // The receiver is right here.
        let _ = sender.send(format!("{first}\n").into_bytes());
        vm.state().log = Some(sender);
        vm.spawn(async move {
            while let Some(line) = lines.recv().await {
                if log.write_all(&line).await.is_err() {
                    return;
                }
            }
        });
    }
    loop {
        let stream = vm.dial_until_answered(ports::BRIDGE).await;
        serve(&vm, stream).await;
    }
}

/// Serves one bridge connection until it ends. Its version state starts anew.
async fn serve(vm: &Arc<Vm>, stream: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (sender, mut frames) = mpsc::unbounded_channel::<Vec<u8>>();
    vm.spawn(async move {
        while let Some(frame) = frames.recv().await {
            if writer.write_all(&frame).await.is_err() {
                return;
            }
        }
    });
    let agent = Arc::new(Agent {
        vm: vm.clone(),
        replies: sender,
        negotiated: AtomicBool::new(false),
    });
    let mut decoder = Decoder::new(MAX_HOST_FRAME_BYTES);
    let mut buffer = vec![0; 16 << 10];
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => {
                let agent = agent.clone();
                vm.spawn(async move { agent.handle(frame).await });
            }
            Ok(None) => match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => decoder.push(&buffer[..read]),
            },
            Err(error) => {
                vm.state()
                    .violations
                    .push(format!("the host broke the framing: {error}"));
                return;
            }
        }
    }
}

struct Agent {
    vm: Arc<Vm>,
    replies: mpsc::UnboundedSender<Vec<u8>>,
    negotiated: AtomicBool,
}

/// What becomes of a request.
enum Answer<R> {
    Reply(R),
    /// The VM powers off, which is answer enough.
    PowerOff,
}

impl Agent {
    async fn handle(&self, frame: Frame) {
        if frame.message_type.kind() != Kind::Request {
            self.vm
                .state()
                .violations
                .push(format!("the host sent a {}", frame.message_type));
            return;
        }
        if !self.negotiated.load(Ordering::Relaxed) && frame.message_type != NEGOTIATE_PROTOCOL {
            let message = format!("{} before the negotiation", frame.message_type);
            return self.refuse(&frame, HResult::NOT_IMPLEMENTED, message);
        }
        match frame.message_type {
            NEGOTIATE_PROTOCOL => self.answer(&frame, Self::negotiate).await,
            CREATE => self.answer(&frame, Self::create).await,
            START => self.answer(&frame, Self::start).await,
            SHUTDOWN_GRACEFUL => self.answer(&frame, Self::shutdown_graceful).await,
            SHUTDOWN_FORCED => self.answer(&frame, Self::shutdown_forced).await,
            EXECUTE_PROCESS => self.answer(&frame, Self::execute).await,
            WAIT_FOR_PROCESS => self.wait(&frame).await,
            SIGNAL_PROCESS => self.answer(&frame, Self::signal).await,
            RESIZE_CONSOLE => self.answer(&frame, Self::resize).await,
            GET_PROPERTIES => self.answer(&frame, Self::properties).await,
            MODIFY_SETTINGS => self.answer(&frame, Self::modify).await,
            DUMP_STACKS => self.answer(&frame, Self::dump_stacks).await,
            DELETE_CONTAINER_STATE => self.answer(&frame, Self::delete).await,
            WAIT_FOR_OOM => self.wait_for_oom(&frame).await,
            other => self.refuse(&frame, HResult::UNKNOWN_MESSAGE, format!("{other} is not known")),
        }
    }

    /// Reads a request, takes it through the faults, does it and answers.
    async fn answer<P: Payload + std::fmt::Debug>(
        &self,
        frame: &Frame,
        act: impl FnOnce(&Self, &Request<P>) -> Result<Answer<P::Reply>, Refusal>,
    ) {
        let Some((request, step)) = self.read::<P>(frame).await else {
            return;
        };
        self.settle(frame, &request.base.activity_id, step.finish(act(self, &request)));
    }

    /// As [`Agent::answer`], for a request whose answer takes its time.
    async fn wait(&self, frame: &Frame) {
        let Some((request, step)) = self.read::<WaitForProcess>(frame).await else {
            return;
        };
        let exited = containers::wait(&self.vm, &request.payload).await;
        let answer = exited.map(|exit_code| Answer::Reply(WaitForProcessReply { exit_code }));
        self.settle(frame, &request.base.activity_id, step.finish(answer));
    }

    async fn wait_for_oom(&self, frame: &Frame) {
        let Some((request, step)) = self.read::<WaitForOom>(frame).await else {
            return;
        };
        let told = control::wait_for_oom(&self.vm, &request.base.container_id, &request.payload).await;
        self.settle(
            frame,
            &request.base.activity_id,
            step.finish(told.map(Answer::Reply)),
        );
    }

    async fn read<P: Payload + std::fmt::Debug>(
        &self,
        frame: &Frame,
    ) -> Option<(Request<P>, super::vm::RunningStep<'_>)> {
        let request = match Request::<P>::from_body(&frame.body) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(frame, HResult::INVALID_JSON, error.to_string());
                return None;
            }
        };
        let text = format!("{} {:?}", request.base.container_id, request.payload);
        match self.vm.begin(FaultPoint::Guest(guest_step(frame)), text).await {
            Ok(step) => Some((request, step)),
            Err(error) => {
                self.settle::<P::Reply>(frame, &request.base.activity_id, Err(error));
                None
            }
        }
    }

    fn settle<R>(&self, frame: &Frame, activity_id: &str, done: Result<Answer<R>, StepError>)
    where
        R: Serialize + DeserializeOwned + Default,
    {
        match done {
            Ok(Answer::Reply(reply)) => self.reply(frame, &Response::success(activity_id, reply).to_body()),
            Ok(Answer::PowerOff) => self.vm.die(true, "exited with status 0"),
            Err(StepError::Refused(refusal)) => self.refuse(frame, refusal.result, refusal.message),
            Err(StepError::Gone(_)) => {}
        }
    }

    fn refuse(&self, frame: &Frame, result: HResult, message: String) {
        let activity_id = RequestBase::from_body(&frame.body)
            .unwrap_or_default()
            .activity_id;
        self.reply(frame, &Response::failure(activity_id, result, message).to_body());
    }

    fn reply(&self, request: &Frame, body: &[u8]) {
        let message_type = request.message_type.response();
        let encoded = frame::encode(message_type, request.id, body, MAX_GUEST_FRAME_BYTES).or_else(|error| {
            let body = Response::failure("", HResult::FAIL, error.to_string()).to_body();
            frame::encode(message_type, request.id, &body, MAX_GUEST_FRAME_BYTES)
        });
        if let Ok(bytes) = encoded {
            // A host that has gone needs no answer.
            let _ = self.replies.send(bytes);
        }
    }

    fn notify(&self, notification: Option<ContainerNotification>) {
        if let Some(notification) = notification {
            send_notification(&self.replies, &notification);
        }
    }

    fn negotiate(
        &self,
        request: &Request<NegotiateProtocol>,
    ) -> Result<Answer<NegotiateProtocolReply>, Refusal> {
        if request.payload.select().is_none() {
            let message = format!("only version {PROTOCOL_VERSION} is spoken here");
            return Err(Refusal::with(HResult::UNSUPPORTED_PROTOCOL_VERSION, message));
        }
        self.negotiated.store(true, Ordering::Relaxed);
        Ok(Answer::Reply(NegotiateProtocolReply {
            version: PROTOCOL_VERSION,
            capabilities: Capabilities {
                supported_schema_versions: vec![SchemaVersion::V2_1],
                runtime_os_type: "Linux".to_owned(),
                guest_defined_capabilities: GuestDefinedCapabilities {
                    namespace_add_request_supported: true,
                    signal_process_supported: true,
                    dump_stacks_supported: true,
                    delete_container_state_supported: true,
                    cofferdam_container_mounts: !self.vm.options.without_container_mounts,
                    cofferdam_mounts: true,
                    cofferdam_limits: true,
                    cofferdam_copy: true,
                },
                ..Default::default()
            },
        }))
    }

    fn create(&self, request: &Request<Create>) -> Result<Answer<Empty>, Refusal> {
        let config = &request.payload.container_config.0;
        if config.schema_version.unwrap_or_default() < SchemaVersion::V2_1 {
            return Err(Refusal::with(
                HResult::INVALID_JSON,
                "the schema version is below 2.1",
            ));
        }
        let RequestBase {
            container_id,
            activity_id,
            ..
        } = &request.base;
        self.vm.state().create(container_id, activity_id, config)?;
        Ok(Answer::Reply(Empty {}))
    }

    fn start(&self, _: &Request<Start>) -> Result<Answer<Empty>, Refusal> {
        Ok(Answer::Reply(Empty {}))
    }

    fn shutdown_graceful(&self, request: &Request<ShutdownGraceful>) -> Result<Answer<Empty>, Refusal> {
        self.shut_down(&request.base, TERM, NotificationType::GracefulExit)
    }

    fn shutdown_forced(&self, request: &Request<ShutdownForced>) -> Result<Answer<Empty>, Refusal> {
        self.shut_down(&request.base, SIGKILL, NotificationType::ForcedExit)
    }

    fn shut_down(
        &self,
        base: &RequestBase,
        signal: i32,
        end: NotificationType,
    ) -> Result<Answer<Empty>, Refusal> {
        if base.is_vm() {
            return Ok(Answer::PowerOff);
        }
        let notification = self.vm.state().shut_down(&base.container_id, signal, end)?;
        self.notify(notification);
        Ok(Answer::Reply(Empty {}))
    }

    fn execute(&self, request: &Request<ExecuteProcess>) -> Result<Answer<ExecuteProcessReply>, Refusal> {
        let in_vm =
            request.base.is_vm() || request.payload.settings.process_parameters.0.create_in_utility_vm;
        let container_id = (!in_vm).then_some(request.base.container_id.as_str());
        let replies = self.replies.clone();
        let notify = move |notification| send_notification(&replies, &notification);
        let process_id = containers::execute(&self.vm, container_id, &request.payload, notify)?;
        Ok(Answer::Reply(ExecuteProcessReply { process_id }))
    }

    fn signal(&self, request: &Request<SignalProcess>) -> Result<Answer<Empty>, Refusal> {
        self.vm
            .state()
            .signal(&request.base.container_id, &request.payload)?;
        Ok(Answer::Reply(Empty {}))
    }

    fn resize(&self, _: &Request<ResizeConsole>) -> Result<Answer<Empty>, Refusal> {
        Ok(Answer::Reply(Empty {}))
    }

    fn properties(&self, request: &Request<GetProperties>) -> Result<Answer<GetPropertiesReply>, Refusal> {
        let wanted = &request.payload.query.0.property_types;
        let mut properties = Properties::default();
        if request.base.is_vm() {
            if wanted.contains(&PropertyType::Mounts) {
                properties.mounts = Some(self.vm.state().mounts.listed());
            }
            if wanted.contains(&PropertyType::Statistics) {
                let running = self.vm.state().running_containers();
                properties.metrics = Some(serde_json::json!({"pids": {"current": running}}));
            }
            if wanted.contains(&PropertyType::AgentMemory) {
                properties.agent_memory = Some(AgentMemory::default());
            }
            return Ok(Answer::Reply(GetPropertiesReply {
                properties: InString(properties),
            }));
        }
        let all = self.vm.state().properties(&request.base.container_id)?;
        if wanted.contains(&PropertyType::ProcessList) {
            properties.process_list = all.process_list;
        }
        if wanted.contains(&PropertyType::Statistics) {
            properties.metrics = all.metrics;
        }
        if wanted.contains(&PropertyType::OutOfMemory) {
            properties.out_of_memory = all.out_of_memory;
        }
        Ok(Answer::Reply(GetPropertiesReply {
            properties: InString(properties),
        }))
    }

    fn modify(&self, request: &Request<ModifySettings>) -> Result<Answer<Empty>, Refusal> {
        let mut state = self.vm.state();
        if !request.base.is_vm() {
            state.modify_container(&request.base.container_id, &request.payload.request)?;
            return Ok(Answer::Reply(Empty {}));
        }
        if let Resource::PodLimits(limits) = &request.payload.request.resource {
            state.constrain_pod(limits)?;
            return Ok(Answer::Reply(Empty {}));
        }
        let in_use = state.paths_in_use();
        let state = &mut *state;
        state
            .mounts
            .apply(&request.payload.request, &mut state.devices, &in_use)?;
        Ok(Answer::Reply(Empty {}))
    }

    fn dump_stacks(&self, _: &Request<DumpStacks>) -> Result<Answer<DumpStacksReply>, Refusal> {
        Ok(Answer::Reply(DumpStacksReply {
            guest_stacks: "the fake guest has one task\n".to_owned(),
        }))
    }

    fn delete(&self, request: &Request<DeleteContainerState>) -> Result<Answer<Empty>, Refusal> {
        let notification = self.vm.state().delete(&request.base.container_id)?;
        self.notify(notification);
        Ok(Answer::Reply(Empty {}))
    }
}

fn guest_step(frame: &Frame) -> GuestStep {
    if frame.message_type == MODIFY_SETTINGS
        && let Ok(request) = Request::<ModifySettings>::from_body(&frame.body)
    {
        return (&request.payload.request).into();
    }
    frame.message_type.into()
}

fn send_notification(replies: &mpsc::UnboundedSender<Vec<u8>>, notification: &ContainerNotification) {
    if let Ok(bytes) = frame::encode(
        CONTAINER_NOTIFICATION,
        0,
        &notification.to_body(),
        MAX_GUEST_FRAME_BYTES,
    ) {
        // A host that has gone needs no notification.
        let _ = replies.send(bytes);
    }
}
