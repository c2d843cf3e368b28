//! Connections led to the VM's services, whose other end is a process of the guest's.

use std::{io::ErrorKind, net::SocketAddr};

use cofferdam_backend::fake::FakeProgram;
use cofferdam_pod::connect;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::scene::{SOON, Scene};

/// The agent's program, as the fake guest knows it.
const AGENT: &str = "/proc/self/exe";

fn service() -> [SocketAddr; 1] {
    ["127.0.0.1:80".parse().unwrap()]
}

/// A client, and its connection's other end.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_is_lost_in_either_direction_and_the_clients_end_reaches_the_service() {
    let scene = Scene::new().await;
    let greeting: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let echo = FakeProgram::exits(0).stdout(greeting.clone()).echoes_stdin();
    scene.command(AGENT, echo);
    let (mut client, accepted) = connection().await;
    let vm = scene.pod.vm().clone();
    let led = tokio::spawn(async move { connect(&vm, accepted, &service()).await });
    let question: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 241) as u8).collect();
    let (mut reading, mut writing) = client.split();
    let mut answer = Vec::new();
    let asking = async {
        writing.write_all(&question).await.unwrap();
        writing.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reading.read_to_end(&mut answer), asking);
    read.unwrap();
    assert!(answer == [greeting, question].concat());
    timeout(SOON, led).await.unwrap().unwrap().unwrap();
    scene.assert_nothing_left();
}

#[tokio::test]
async fn what_the_other_end_complains_of_is_told_and_resets_the_client() {
    let scene = Scene::new().await;
    scene.command(
        AGENT,
        FakeProgram::exits(1).stderr("127.0.0.1:80:\nConnection refused\n"),
    );
    let (mut client, accepted) = connection().await;
    let told = timeout(SOON, connect(scene.pod.vm(), accepted, &service()))
        .await
        .unwrap();
    assert_eq!(
        told.unwrap_err().to_string(),
        "leading a connection to 127.0.0.1:80 in the VM: 127.0.0.1:80: Connection refused"
    );
    // Whether an end comes first or not.
    let mut answer = Vec::new();
    let broken = loop {
        if let Err(error) = client.write_all(b"?").await {
            break error;
        }
        if let Err(error) = client.read_to_end(&mut answer).await {
            break error;
        }
    };
    assert!(
        matches!(broken.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
        "{broken:?}"
    );
    assert!(answer.is_empty());
}

#[tokio::test]
async fn an_other_end_that_ends_before_its_time_is_told_of() {
    let scene = Scene::new().await;
    scene.command(AGENT, FakeProgram::exits(0).stdout("half"));
    let (mut client, accepted) = connection().await;
    let told = timeout(SOON, connect(scene.pod.vm(), accepted, &service()))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        told.to_string(),
        "leading a connection to 127.0.0.1:80 in the VM: its other end in the VM is gone"
    );
    let mut answer = Vec::new();
    while client.write_all(b"?").await.is_ok() {}
    let _ = client.read_to_end(&mut answer).await;
    assert!(b"half".starts_with(&answer));
}

#[tokio::test]
async fn a_client_that_goes_away_ends_it_and_is_no_failure() {
    let scene = Scene::new().await;
    // It has said all it has to say, and waits.
    scene.command(AGENT, FakeProgram::runs().stdout("hello"));
    for has_ended_before in [false, true] {
        let (mut client, accepted) = connection().await;
        let vm = scene.pod.vm().clone();
        let led = tokio::spawn(async move { connect(&vm, accepted, &service()).await });
        client.read_exact(&mut [0; 5]).await.unwrap();
        if has_ended_before {
            client.shutdown().await.unwrap();
            // Long enough for the end to be seen first.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        client.set_zero_linger().unwrap();
        drop(client);
        timeout(SOON, led).await.expect("it is noticed").unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_vm_that_is_gone_is_told_and_resets_the_client() {
    let scene = Scene::new().await;
    let (mut client, accepted) = connection().await;
    scene.backend.kill_vm();
    let told = timeout(SOON, connect(scene.pod.vm(), accepted, &service()))
        .await
        .unwrap();
    let told = told.unwrap_err().to_string();
    assert!(
        told.starts_with("leading a connection to 127.0.0.1:80 in the VM: "),
        "{told}"
    );
    let reset = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}
