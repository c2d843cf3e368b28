//! The pod's events as containerd's.

use cofferdam_pod::{Event, Exit, ProcessName};
use cofferdam_task::timestamp;
use containerd_shim::{
    protos::{
        events::task::{
            TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
            TaskResumed, TaskStart,
        },
        protobuf::MessageDyn,
        ttrpc::context::Context,
    },
    publisher::RemotePublisher,
};
use tokio::sync::mpsc::UnboundedReceiver;

/// Publishes in the order in which things happened, until the pod is gone.
pub(crate) async fn publish(
    mut events: UnboundedReceiver<Event>,
    publisher: RemotePublisher,
    namespace: String,
    pid: u32,
) {
    while let Some(event) = events.recv().await {
        let Some((topic, message)) = message(event, pid) else {
            continue;
        };
        if let Err(error) = publisher
            .publish(Context::default(), &topic, &namespace, message)
            .await
        {
            tracing::error!(%error, topic, "an event was not taken");
        }
    }
}

fn message(event: Event, pid: u32) -> Option<(String, Box<dyn MessageDyn>)> {
    Some(match event {
        Event::Created {
            container,
            bundle,
            endpoints,
        } => boxed(TaskCreate {
            container_id: container,
            bundle: bundle.to_string_lossy().into_owned(),
            io: Some(TaskIO {
                stdin: endpoints.stdin.unwrap_or_default(),
                stdout: endpoints.stdout.unwrap_or_default(),
                stderr: endpoints.stderr.unwrap_or_default(),
                terminal: endpoints.terminal,
                ..TaskIO::default()
            })
            .into(),
            pid,
            ..TaskCreate::default()
        }),
        Event::Started {
            name: ProcessName {
                container,
                exec: None,
            },
        } => boxed(TaskStart {
            container_id: container,
            pid,
            ..TaskStart::default()
        }),
        Event::Started {
            name: ProcessName {
                container,
                exec: Some(exec),
            },
        } => boxed(TaskExecStarted {
            container_id: container,
            exec_id: exec,
            pid,
            ..TaskExecStarted::default()
        }),
        Event::ExecAdded { name } => boxed(TaskExecAdded {
            container_id: name.container,
            exec_id: name.exec.unwrap_or_default(),
            ..TaskExecAdded::default()
        }),
        Event::Paused { container } => boxed(TaskPaused {
            container_id: container,
            ..TaskPaused::default()
        }),
        Event::Resumed { container } => boxed(TaskResumed {
            container_id: container,
            ..TaskResumed::default()
        }),
        Event::OutOfMemory { container, .. } => boxed(TaskOOM {
            container_id: container,
            ..TaskOOM::default()
        }),
        Event::Exited { name, exit } => exited(name, exit, pid),
        Event::Deleted { name, exit } => deleted(name, exit, pid),
        _ => return None,
    })
}

fn boxed<E: containerd_shim::event::Event>(event: E) -> (String, Box<dyn MessageDyn>) {
    (event.topic(), Box::new(event))
}

/// The id of a process: its own, or its container's for the init.
fn id_of(name: &ProcessName) -> String {
    name.exec.clone().unwrap_or_else(|| name.container.clone())
}

fn exited(name: ProcessName, exit: Exit, pid: u32) -> (String, Box<dyn MessageDyn>) {
    boxed(TaskExit {
        id: id_of(&name),
        container_id: name.container,
        pid,
        exit_status: exit.status.into(),
        exited_at: Some(timestamp(exit.at)).into(),
        ..TaskExit::default()
    })
}

fn deleted(name: ProcessName, exit: Exit, pid: u32) -> (String, Box<dyn MessageDyn>) {
    boxed(TaskDelete {
        id: id_of(&name),
        container_id: name.container,
        pid,
        exit_status: exit.status.into(),
        exited_at: Some(timestamp(exit.at)).into(),
        ..TaskDelete::default()
    })
}
