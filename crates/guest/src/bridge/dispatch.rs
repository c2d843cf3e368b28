//! Which part serves which message (GCS bridge protocol §6).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cofferdam_protocol::{
    MessageType, PROTOCOL_VERSION,
    frame::Frame,
    message::{
        self as m, Capabilities, Create, DumpStacksReply, Empty, ExecuteProcess, ExecuteProcessReply,
        GuestDefinedCapabilities, INFINITE_TIMEOUT_MS, ModifySettings, NegotiateProtocol,
        NegotiateProtocolReply, Request, RequestBase, ResizeConsole, SchemaVersion, SignalProcess,
        WaitForOom, WaitForProcess, WaitForProcessReply,
    },
};
use rustix::process::Signal;

use super::{
    Session, properties,
    reply::{FirstReply, Reply, halve},
    settings,
};
use crate::{
    agent::{Agent, stacks},
    error::{AgentError, During, Result},
    power,
    process::{Process, stdio, stdio::Streams, vm},
};

/// Whether a message is served by the reading thread: it never blocks, and a wait must not hold a thread for as long
/// as a process lives.
pub(super) fn is_immediate(message_type: MessageType) -> bool {
    matches!(
        message_type,
        m::NEGOTIATE_PROTOCOL | m::WAIT_FOR_PROCESS | m::WAIT_FOR_OOM
    )
}

/// Serves one request.
pub(super) fn serve(agent: &Arc<Agent>, session: &Arc<Session>, frame: Frame, mut reply: Reply) {
    let base = match RequestBase::from_body(&frame.body) {
        Ok(base) => base,
        Err(error) => return reply.send::<Empty>(Err(error.into())),
    };
    reply.set_activity(&base.activity_id);
    let negotiated = session.negotiated.load(Ordering::Acquire);
    if !negotiated && frame.message_type != m::NEGOTIATE_PROTOCOL {
        return reply.send::<Empty>(Err(AgentError::NotNegotiated(frame.message_type.0)));
    }
    let body = &frame.body;
    match frame.message_type {
        m::NEGOTIATE_PROTOCOL => {
            let outcome = negotiate(body);
            let agreed = outcome.is_ok();
            session.negotiated.store(agreed, Ordering::Release);
            reply.send(outcome);
            if agreed {
                agent.outbox.attach(Arc::clone(session));
            }
        }
        m::CREATE => reply.send(create(agent, &base, body)),
        m::START => reply.send(
            container_id(&base)
                .and_then(|id| agent.containers.get(id))
                .map(|_| Empty {}),
        ),
        m::SHUTDOWN_GRACEFUL => shut_down(agent, &base, false, reply),
        m::SHUTDOWN_FORCED => shut_down(agent, &base, true, reply),
        m::EXECUTE_PROCESS => reply.send(execute(agent, &base, body)),
        m::WAIT_FOR_PROCESS => wait(agent, body, reply),
        m::SIGNAL_PROCESS => reply.send(signal(agent, &base, body)),
        m::RESIZE_CONSOLE => reply.send(resize(agent, &base, body)),
        m::GET_PROPERTIES => reply.send_shrinking(get_properties(agent, &base, body), properties::shrink),
        m::MODIFY_SETTINGS => reply.send(modify(agent, &base, body)),
        m::DUMP_STACKS => reply.send_shrinking(
            Ok(DumpStacksReply {
                guest_stacks: stacks(),
            }),
            |answer| halve(&mut answer.guest_stacks),
        ),
        m::WAIT_FOR_OOM => wait_for_oom(agent, &base, body, reply),
        m::DELETE_CONTAINER_STATE => reply.send(delete(agent, &base)),
        unknown => reply.send::<Empty>(Err(AgentError::UnknownMessage(unknown.0))),
    }
}

/// The negotiated version, and what this agent can do.
fn negotiate(body: &[u8]) -> Result<NegotiateProtocolReply> {
    let request = Request::<NegotiateProtocol>::from_body(body)?.payload;
    if request.select().is_none() {
        return Err(AgentError::ProtocolVersion {
            minimum: request.minimum_version,
            maximum: request.maximum_version,
        });
    }
    Ok(NegotiateProtocolReply {
        version: PROTOCOL_VERSION,
        capabilities: Capabilities {
            supported_schema_versions: vec![SchemaVersion::V2_1],
            runtime_os_type: "Linux".to_owned(),
            guest_defined_capabilities: GuestDefinedCapabilities {
                namespace_add_request_supported: true,
                signal_process_supported: true,
                dump_stacks_supported: true,
                delete_container_state_supported: true,
                cofferdam_container_mounts: true,
                cofferdam_mounts: true,
                cofferdam_limits: true,
                cofferdam_copy: true,
            },
            ..Capabilities::default()
        },
    })
}

/// The id of a real container.
fn container_id(base: &RequestBase) -> Result<&str> {
    if base.is_vm() {
        return Err(AgentError::NotSupported(
            "this message is for containers, not for the VM itself".into(),
        ));
    }
    Ok(&base.container_id)
}

fn create(agent: &Agent, base: &RequestBase, body: &[u8]) -> Result<Empty> {
    let id = container_id(base)?;
    let request = Request::<Create>::from_body(body)?.payload;
    agent
        .containers
        .create(id, &base.activity_id, request.container_config.0)?;
    Ok(Empty {})
}

fn shut_down(agent: &Agent, base: &RequestBase, forced: bool, reply: Reply) {
    if base.is_vm() {
        tracing::info!(forced, "the host ends the VM");
        // There is no answer: the connection just ends.
        power::off();
    }
    reply.send(
        agent
            .containers
            .shut_down(&base.container_id, forced)
            .map(|()| Empty {}),
    );
}

fn execute(agent: &Agent, base: &RequestBase, body: &[u8]) -> Result<ExecuteProcessReply> {
    let settings = Request::<ExecuteProcess>::from_body(body)?.payload.settings;
    let parameters = settings.process_parameters.0;
    let ports = settings.vsock_stdio_relay_settings;
    let dial = |console: bool| Streams::dial(&agent.dialer, &parameters, ports, console);
    let process = if base.is_vm() || parameters.create_in_utility_vm {
        let streams = dial(parameters.emulate_console)?;
        vm::start(&agent.reaper, &parameters, streams)?
    } else {
        match &parameters.oci_process {
            None => agent
                .containers
                .start(&base.container_id, parameters.console_size, dial)?,
            Some(document) => agent
                .containers
                .exec(&base.container_id, &parameters, document, dial)?,
        }
    };
    agent.processes.insert(Arc::clone(&process));
    Ok(ExecuteProcessReply {
        process_id: process.pid(),
    })
}

fn wait(agent: &Arc<Agent>, body: &[u8], reply: Reply) {
    let request = match Request::<WaitForProcess>::from_body(body) {
        Ok(request) => request.payload,
        Err(error) => return reply.send::<Empty>(Err(error.into())),
    };
    let pid = request.process_id;
    let Some(process) = agent.processes.get(pid) else {
        return reply.send::<Empty>(Err(AgentError::UnknownProcess(pid)));
    };
    // Both the end and the time-out want the reply.
    let reply = FirstReply::new(reply);
    let at_end = reply.clone();
    let waiting = process.wait(move |code| at_end.send(Ok(WaitForProcessReply { exit_code: code })));
    match waiting {
        Err(()) => {
            let error = AgentError::InvalidState(format!("too many wait for process {pid} already"));
            reply.send::<Empty>(Err(error));
        }
        Ok(Some(key)) if request.timeout_in_ms != INFINITE_TIMEOUT_MS => {
            let timeout_ms = request.timeout_in_ms;
            agent
                .timer
                .after(Duration::from_millis(timeout_ms.into()), move || {
                    process.cancel_wait(key);
                    reply.send::<Empty>(Err(AgentError::WaitTimeout { pid, timeout_ms }));
                });
        }
        Ok(_) => {}
    }
}

fn wait_for_oom(agent: &Agent, base: &RequestBase, body: &[u8], reply: Reply) {
    let request = match Request::<WaitForOom>::from_body(body) {
        Ok(request) => request.payload,
        Err(error) => return reply.send::<Empty>(Err(error.into())),
    };
    // The wait answers only if it is accepted.
    let reply = FirstReply::new(reply);
    let when_due = reply.clone();
    let waiting = container_id(base).and_then(|id| {
        agent
            .containers
            .wait_for_oom(id, request.kills_seen, move |answer| when_due.send(Ok(answer)))
    });
    if let Err(error) = waiting {
        reply.send::<Empty>(Err(error));
    }
}

/// A process, if it is the VM's or that container's.
fn process_of(agent: &Agent, base: &RequestBase, pid: u32) -> Result<Arc<Process>> {
    if !base.is_vm() {
        agent.containers.get(&base.container_id)?;
    }
    let owner = (!base.is_vm()).then_some(base.container_id.as_str());
    agent
        .processes
        .get(pid)
        // The host names the VM's processes by a container's id too (CreateInUtilityVM).
        .filter(|process| owner.is_none() || process.container().is_none() || process.container() == owner)
        .ok_or(AgentError::UnknownProcess(pid))
}

fn signal(agent: &Agent, base: &RequestBase, body: &[u8]) -> Result<Empty> {
    let request = Request::<SignalProcess>::from_body(body)?.payload;
    let number = request.signal();
    let signal = Signal::from_named_raw(number)
        .ok_or_else(|| AgentError::Invalid(format!("there is no signal {number}")))?;
    let process = process_of(agent, base, request.process_id)?;
    let pid = process.pid();
    if agent
        .containers
        .signal(&process, signal)
        .during(|| format!("signalling process {pid}"))?
    {
        Ok(Empty {})
    } else {
        Err(AgentError::UnknownProcess(pid))
    }
}

fn resize(agent: &Agent, base: &RequestBase, body: &[u8]) -> Result<Empty> {
    let request = Request::<ResizeConsole>::from_body(body)?.payload;
    let process = process_of(agent, base, request.process_id)?;
    stdio::resize(&process, request.height, request.width)?;
    Ok(Empty {})
}

fn get_properties(agent: &Agent, base: &RequestBase, body: &[u8]) -> Result<properties::Answer> {
    let names = properties::wanted(body)?;
    if base.is_vm() {
        properties::of_vm(agent, &names)
    } else {
        properties::of_container(agent, &base.container_id, &names)
    }
}

fn modify(agent: &Agent, base: &RequestBase, body: &[u8]) -> Result<Empty> {
    let request = Request::<ModifySettings>::from_body(body)?.payload.request;
    // An older host leaves the id empty where it means the VM.
    if !base.is_vm() && !base.container_id.is_empty() {
        settings::modify_container(agent, &base.container_id, &request)?;
        return Ok(Empty {});
    }
    settings::modify(agent, &request)?;
    Ok(Empty {})
}

fn delete(agent: &Agent, base: &RequestBase) -> Result<Empty> {
    let id = container_id(base)?;
    agent.containers.delete(id)?;
    agent.processes.forget_container(id);
    Ok(Empty {})
}
