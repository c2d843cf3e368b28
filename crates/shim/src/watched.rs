//! What others see of this process beside containerd: `cofferdam inspect`, `events` and `fsck`.

use std::{io, path::Path, sync::Arc};

use cofferdam_observe::{Events, LookedAt};
use cofferdam_owner::control;
use cofferdam_pod::{Event, Pod};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

/// Answers and tells until it is dropped.
pub(crate) struct Watched {
    control: JoinHandle<()>,
    events: Events,
}

impl Watched {
    /// Opens the sockets in the owner's directory. The events are passed on once they were told.
    pub(crate) fn serve(
        dir: &Path,
        pod: &Arc<Pod>,
        events: UnboundedReceiver<Event>,
    ) -> io::Result<(Self, UnboundedReceiver<Event>)> {
        let answers = LookedAt::new(pod.clone(), "containerd manages its containers");
        let listener = control::listen(dir)?;
        let (events, passed_on) = Events::pass_on(dir, events)?;
        let control = tokio::spawn(control::serve(listener, Arc::new(answers)));
        Ok((Self { control, events }, passed_on))
    }

    /// Tells the last of the events, and answers no longer.
    pub(crate) async fn finish(self) {
        self.control.abort();
        self.events.finish().await;
    }
}
