//! The Plan 9 exports of one VM, and their server on the vsock port that the guest dials.

use std::{ffi::OsString, path::Path, sync::Arc, time::Duration};

use cofferdam_backend::BoxListener;
use cofferdam_ledger::request::ShareId;
use cofferdam_p9::{Export, Exports, P9Error, Server, ServerOptions};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

/// Connections of one guest served at the same time; further ones are closed at once.
const MAX_CONNECTIONS: usize = 1024;
/// For requests under way on a withdrawn export to end.
const WITHDRAW_LIMIT: Duration = Duration::from_secs(5);

/// What one VM is offered. An export's name is its share's number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    exports: Arc<Exports>,
}

impl Shares {
    /// Offers a directory.
    pub(crate) async fn add(
        &self,
        share: ShareId,
        path: &Path,
        read_only: bool,
        allowed_names: Option<&[String]>,
    ) -> Result<(), P9Error> {
        let export = Export {
            path: path.to_owned(),
            read_only,
            allowed_names: allowed_names.map(|names| names.iter().map(OsString::from).collect()),
        };
        let exports = Arc::clone(&self.exports);
        // Opening a directory can take long on a network file system.
        match tokio::task::spawn_blocking(move || exports.add(share.to_string(), export)).await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Withdraws it; what the guest still had open there is closed.
    pub(crate) async fn remove(&self, share: ShareId) {
        let name = share.to_string();
        if timeout(WITHDRAW_LIMIT, self.exports.remove_and_wait(&name))
            .await
            .is_err()
        {
            tracing::warn!(%share, "a withdrawn export's last request still runs");
        }
    }

    /// The shares on offer.
    pub(crate) fn live(&self) -> impl Iterator<Item = ShareId> {
        self.exports
            .names()
            .into_iter()
            .filter_map(|name| name.parse().ok().map(ShareId))
    }

    /// Serves every connection that comes, until dropped.
    pub(crate) async fn serve(self, mut listener: BoxListener) {
        let server = Server::new(self.exports, ServerOptions::default());
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stream = listener.accept() => {
                    let stream = match stream {
                        Ok(stream) => stream,
                        Err(error) => {
                            tracing::debug!(%error, "no more connections for shares");
                            break;
                        }
                    };
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        tracing::warn!("the guest holds {MAX_CONNECTIONS} connections for shares; one more is refused");
                        continue;
                    };
                    let server = server.clone();
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = server.serve(stream).await {
                            tracing::debug!(%error, "a connection for shares ended");
                        }
                    });
                }
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "serving a share failed");
                    }
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }
}
