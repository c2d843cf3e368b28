//! Port-forward: what connects to `localhost` in the pod's network namespace reaches the pod's services in the VM.
//!
//! The CRI plugin enters that namespace and dials there. The listener that gets its connections, whichever port is meant,
//! is [`Loopback`]'s; each is led to the same port of the VM.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use cofferdam_network::{Loopback, asked_for};
use cofferdam_vm::UtilityVm;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

/// Connections led into a VM at once. Each is a process in it and three streams; more wait to be accepted.
const MOST: usize = 64;
/// Between two tries to accept, where the system is short of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Leads connections until it is dropped, which breaks those there are.
pub(crate) struct Forwarding {
    accepting: JoinHandle<()>,
    _loopback: Loopback,
}

impl Forwarding {
    /// Begins, where the pod has a network namespace of its own. A pod runs without it where the kernel refuses.
    pub(crate) fn begin(namespace: Option<&Path>, vm: &Arc<UtilityVm>) -> Option<Self> {
        match Self::begun(namespace?, vm.clone()) {
            Ok(forwarding) => Some(forwarding),
            Err(error) => {
                tracing::warn!("port-forward will not reach the pod: {error:#}");
                None
            }
        }
    }

    fn begun(namespace: &Path, vm: Arc<UtilityVm>) -> Result<Self> {
        let (loopback, listener) = Loopback::take(namespace)?;
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .context("serving the listener of the loopback addresses")?;
        Ok(Self {
            accepting: tokio::spawn(accept(listener, vm)),
            _loopback: loopback,
        })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        // The connections' tasks are the accepting one's.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, vm: Arc<UtilityVm>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = JoinSet::new();
    // It is closed by nobody.
    while let Ok(place) = places.clone().acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match accepted(&listener).await {
            Ok((client, asked)) => {
                let vm = vm.clone();
                connections.spawn(async move {
                    let addresses = addresses(asked);
                    if let Err(error) = cofferdam_pod::connect(&vm, client, &addresses).await {
                        tracing::info!(%error, "port-forward");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the pod's loopback addresses was not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accepted(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        let (client, _) = listener.accept().await?;
        // What came to the listener's own port asked for nothing.
        if let Some(asked) = asked_for(client.local_addr()?) {
            return Ok((client, asked));
        }
    }
}

/// Where a connection is led: to what was asked for, then to the other version's address, since by now the client cannot
/// try that itself.
fn addresses(asked: SocketAddr) -> [SocketAddr; 2] {
    let other = match asked.ip() {
        IpAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    [asked, SocketAddr::new(other, asked.port())]
}

#[cfg(test)]
mod tests {
    use cofferdam_backend::fake::{FakeBackend, FakeOptions, FakeProgram, ProgramFor};
    use cofferdam_vm::BootOptions;
    use tokio::{io::AsyncReadExt as _, time::timeout};

    use super::*;

    /// For what must happen.
    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn there_is_a_bound_to_connections_and_more_wait_for_their_turn() {
        let backend = FakeBackend::new(FakeOptions::default());
        backend.set_program(ProgramFor::Anything, FakeProgram::runs().stdout("in"));
        let booted = UtilityVm::boot(Arc::new(backend), &BootOptions::default()).await;
        // Its connections are to a loopback address, as those that the program hands over.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(accept(listener, booted.unwrap()));
        let mut clients = Vec::new();
        for _ in 0..=MOST {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut waiting = clients.pop().unwrap();
        for client in &mut clients {
            let led = timeout(SOON, client.read_exact(&mut [0; 2])).await;
            led.expect("it is led").unwrap();
        }
        let early = timeout(Duration::from_millis(200), waiting.read(&mut [0; 2])).await;
        assert!(early.is_err(), "{early:?}");
        let gone = clients.pop().unwrap();
        gone.set_zero_linger().unwrap();
        drop(gone);
        let led = timeout(SOON, waiting.read_exact(&mut [0; 2])).await;
        led.expect("it has its turn").unwrap();
        accepting.abort();
        // Nothing is led on once nobody accepts.
        for client in &mut clients {
            let ended = timeout(SOON, client.read(&mut [0])).await.expect("it is over");
            assert!(!matches!(ended, Ok(1)), "{ended:?}");
        }
    }

    #[test]
    fn a_service_is_found_whichever_version_it_listens_on() {
        for (asked, expected) in [
            ("127.0.0.9:80", ["127.0.0.9:80", "[::1]:80"]),
            ("[::1]:443", ["[::1]:443", "127.0.0.1:443"]),
        ] {
            let addresses = addresses(asked.parse().unwrap());
            assert_eq!(addresses.map(|address| address.to_string()), expected);
        }
    }
}
