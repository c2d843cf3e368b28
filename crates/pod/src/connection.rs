//! A client's connection, led to a TCP service in the VM.
//!
//! In the VM the agent's own program is the other end (`connect` in the guest): it dials the service, and its standard
//! streams are the connection. What it says on its standard error is why the connection broke, and comes before the end
//! of its output. Ends pass in both directions, and what broke on one side is broken on the other, not merely ended.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use cofferdam_protocol::{
    NULL_CONTAINER_ID,
    message::{ProcessParameters, VsockStdioRelaySettings},
};
use cofferdam_vm::UtilityVm;
use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::SetOnce,
};

use crate::PodError;

/// The agent, as a process of the VM sees it, and its program for one connection.
const AGENT: &str = "/proc/self/exe";
const CONNECT: &str = "connect";

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes taken of what the other end says went wrong.
const COMPLAINT_BYTES: u64 = 1 << 10;
/// A client that has said nothing for this long is asked whether it is still there, this often, and so many times.
const SILENCE: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(10);
const ASKED_TIMES: u32 = 3;

/// Why a connection is over before its time.
enum Lost {
    /// The client went away: nobody has to be told.
    Client(io::Error),
    Service(Box<dyn Error + Send + Sync>),
}

/// Leads `client` to the first of these addresses of the VM that takes a connection, until both directions have ended. A
/// client that goes away is no failure. After a failure the client's connection is reset, so that it takes nothing for the
/// end of an answer.
///
/// # Errors
/// [`PodError::Connection`]: no address took it, it broke in the VM, or the VM is gone.
pub async fn connect(vm: &UtilityVm, client: TcpStream, addresses: &[SocketAddr]) -> Result<(), PodError> {
    // Whatever ends this early, being dropped included, leaves a connection that broke.
    let _ = client.set_zero_linger();
    let lost = match dialled(vm, addresses).await {
        Ok(service) => relayed(client, service).await,
        Err(error) => Err(Lost::Service(error)),
    };
    match lost {
        Ok(()) => Ok(()),
        Err(Lost::Client(error)) => {
            tracing::debug!(%error, "a client went away");
            Ok(())
        }
        Err(Lost::Service(source)) => Err(PodError::Connection {
            to: addresses.first().map(ToString::to_string).unwrap_or_default(),
            source,
        }),
    }
}

/// The connection's other end: its streams.
struct Service<Stream> {
    input: Stream,
    output: Stream,
    errors: Stream,
}

async fn dialled(
    vm: &UtilityVm,
    addresses: &[SocketAddr],
) -> Result<Service<impl AsyncRead + AsyncWrite + Send + Unpin + use<>>, Box<dyn Error + Send + Sync>> {
    let (input, output, errors) = (
        vm.open_stdio().await?,
        vm.open_stdio().await?,
        vm.open_stdio().await?,
    );
    let ports = VsockStdioRelaySettings {
        std_in: Some(input.port()),
        std_out: Some(output.port()),
        std_err: Some(errors.port()),
    };
    let words = [AGENT, CONNECT].map(str::to_owned);
    let parameters = ProcessParameters {
        command_args: words
            .into_iter()
            .chain(addresses.iter().map(ToString::to_string))
            .collect(),
        create_std_in_pipe: true,
        create_std_out_pipe: true,
        create_std_err_pipe: true,
        ..ProcessParameters::default()
    };
    let bridge = vm.bridge();
    bridge
        .execute_process(NULL_CONTAINER_ID, parameters, ports)
        .await?;
    Ok(Service {
        input: input.accept().await?,
        output: output.accept().await?,
        errors: errors.accept().await?,
    })
}

async fn relayed<Stream>(mut client: TcpStream, mut service: Service<Stream>) -> Result<(), Lost>
where
    Stream: AsyncRead + AsyncWrite + Send + Unpin,
{
    // Without it a client that is gone without a word is noticed later.
    let _ = kept_alive(&client);
    let (from_client, to_client) = client.split();
    let client_ended = SetOnce::new();
    let both_ended = async {
        down(&mut service.output, to_client).await?;
        client_ended.wait().await;
        Ok(())
    };
    // Of what comes in one instant the complaint counts: it says why the others end.
    let outcome = tokio::select! {
        biased;
        why = complaint(&mut service.errors, &client_ended) => Err(Lost::Service(why.into())),
        error = up(from_client, &mut service.input, &client_ended) => Err(Lost::Client(error)),
        outcome = both_ended => outcome,
    };
    if outcome.is_ok() {
        // The last bytes may still be on their way to the client.
        let _ = sockopt::set_socket_linger(&client, None);
    }
    outcome
}

/// From the client to the service; it says when that direction has ended, and returns when the client is gone.
async fn up(mut from: ReadHalf<'_>, to: &mut (impl AsyncWrite + Unpin), ended: &SetOnce<()>) -> io::Error {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) => break,
            Ok(length) => {
                let sent = async {
                    to.write_all(&chunk[..length]).await?;
                    to.flush().await
                };
                // A service that takes nothing more may still have something to say.
                if sent.await.is_err() {
                    break;
                }
            }
            Err(error) => return error,
        }
    }
    let _ = to.shutdown().await;
    let _ = ended.set(());
    // One that has ended its direction and then gone altogether, which it cannot say, is noticed by its silence.
    match from.ready(Interest::ERROR).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

/// From the service to the client.
async fn down(from: &mut (impl AsyncRead + Unpin), mut to: WriteHalf<'_>) -> Result<(), Lost> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) => break,
            Ok(length) => to.write_all(&chunk[..length]).await.map_err(Lost::Client)?,
            Err(error) => return Err(Lost::Service(error.into())),
        }
    }
    to.shutdown().await.map_err(Lost::Client)
}

/// What the other end says went wrong, or that it is gone. It does not return where all is well: the other end lets go of
/// its standard error after its output, and only once both directions have ended.
async fn complaint(errors: &mut (impl AsyncRead + Unpin), client_ended: &SetOnce<()>) -> String {
    let mut text = Vec::new();
    let read = errors.take(COMPLAINT_BYTES).read_to_end(&mut text).await;
    if !text.is_empty() {
        // The guest is not to write lines of its own into a log.
        let letters = String::from_utf8_lossy(&text).into_owned();
        return letters.trim_end().replace(char::is_control, " ");
    }
    match read {
        Err(error) => error.to_string(),
        Ok(_) if client_ended.initialized() => std::future::pending().await,
        Ok(_) => "its other end in the VM is gone".to_owned(),
    }
}

fn kept_alive(client: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(client, SILENCE)?;
    sockopt::set_tcp_keepintvl(client, ASKED_EVERY)?;
    sockopt::set_tcp_keepcnt(client, ASKED_TIMES)?;
    sockopt::set_socket_keepalive(client, true)
}
