//! Our standard input on its way to a process.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
    task::JoinHandle,
};

use super::{detach_keys::DetachKeys, pipes::CHUNK_BYTES};

/// How our input ended.
pub(super) enum Typed {
    /// There is no more.
    End,
    /// The keys were pressed that let go.
    Detached,
}

/// Passes our input on. With `keys` it is typed, and they end it.
pub(super) async fn typed(mut fifo: pipe::Sender, keys: Option<DetachKeys>) -> Typed {
    let mut watch = keys.map(DetachKeys::watch);
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = stdin.read(&mut chunk).await.unwrap_or(0);
        let (passed, detached) = match &mut watch {
            Some(watch) => watch.pass(&chunk[..length]),
            None => (chunk[..length].to_vec(), false),
        };
        // Whether the process still reads is its business.
        let written = fifo.write_all(&passed).await;
        if detached {
            return Typed::Detached;
        }
        if length == 0 || written.is_err() {
            return Typed::End;
        }
    }
}

/// Waits until our input has ended, once; for ever where there is none.
pub(super) async fn finished(input: &mut Option<JoinHandle<Typed>>) -> Typed {
    let Some(typing) = input else {
        return std::future::pending().await;
    };
    let how = typing.await.unwrap_or(Typed::End);
    *input = None;
    how
}
