//! Standard streams through FIFOs.

use std::time::{Duration, Instant};

use cofferdam_backend::fake::FakeProgram;
use cofferdam_pod::{Endpoints, PodError, ProcessName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::unix::pipe,
};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_the_output_is_lost_when_a_process_ends() {
    let scene = Scene::new().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    scene.program("c", FakeProgram::exits(0).stdout(sent.clone()));
    let fifo = scene.fifo("stdout");
    let mut reader = scene.reader(&fifo);
    let endpoints = Endpoints {
        stdout: Some(fifo),
        ..Endpoints::default()
    };
    scene.create_with("c", endpoints).await.unwrap();
    let name = ProcessName::init("c");
    scene.pod.start(&name).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        received
    });
    assert_eq!(scene.exit(&name).await, 0);
    scene.pod.delete(&name).await.unwrap();
    assert_eq!(reading.await.unwrap(), sent);
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_process_reads_what_clients_send_until_its_input_is_closed() {
    let scene = Scene::new().await;
    scene.program("c", FakeProgram::exits(0).echoes_stdin());
    let (stdin, stdout) = (scene.fifo("stdin"), scene.fifo("stdout"));
    let mut reader = scene.reader(&stdout);
    let endpoints = Endpoints {
        stdin: Some(stdin.clone()),
        stdout: Some(stdout),
        ..Endpoints::default()
    };
    scene.create_with("c", endpoints).await.unwrap();
    let name = ProcessName::init("c");
    scene.pod.start(&name).await.unwrap();
    // A client that vanishes in the middle, and another one.
    for part in ["half a line, ", "the other half\n"] {
        let mut client = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
        client.write_all(part.as_bytes()).await.unwrap();
    }
    scene.pod.close_stdin(&name).unwrap();
    assert_eq!(scene.exit(&name).await, 0);
    let mut received = vec![0; 28];
    reader.read_exact(&mut received).await.unwrap();
    assert_eq!(received, b"half a line, the other half\n");
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_nobody_reads_holds_up_neither_the_exit_nor_other_containers() {
    let scene = Scene::new().await;
    scene.program("full", FakeProgram::exits(0).stdout(vec![b'x'; 1 << 20]));
    let endpoints = Endpoints {
        stdout: Some(scene.fifo("nobody")),
        ..Endpoints::default()
    };
    scene.create_with("full", endpoints).await.unwrap();
    let full = ProcessName::init("full");
    scene.pod.start(&full).await.unwrap();

    let other = scene.running("other").await;
    scene.pod.kill(&other, 15, false).await.unwrap();
    assert_eq!(scene.exit(&other).await, 128 + 15);
    scene.pod.delete(&other).await.unwrap();

    // The process itself waits for its reader, as on a host; it can be killed.
    scene.pod.kill(&full, 9, false).await.ok();
    scene.exit(&full).await;
    let begun = Instant::now();
    scene.pod.delete(&full).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_terminal_takes_a_size_before_and_after_its_start_and_others_have_none() {
    let scene = Scene::new().await;
    scene.program("t", FakeProgram::runs());
    let endpoints = Endpoints {
        terminal: true,
        ..Endpoints::default()
    };
    scene.create_with("t", endpoints).await.unwrap();
    let terminal = ProcessName::init("t");
    scene.pod.resize(&terminal, 31, 97).await.unwrap();
    scene.pod.start(&terminal).await.unwrap();
    scene.pod.resize(&terminal, 25, 80).await.unwrap();
    let plain = scene.running("p").await;
    assert!(matches!(
        scene.pod.resize(&plain, 1, 1).await,
        Err(PodError::NoTerminal(_))
    ));
    for name in [terminal, plain] {
        scene.pod.kill(&name, 9, false).await.unwrap();
        scene.exit(&name).await;
        scene.pod.delete(&name).await.unwrap();
    }
    scene.assert_nothing_left();
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_named_and_the_process_has_ended() {
    let scene = Scene::new().await;
    let endpoints = Endpoints {
        stdin: Some("/no/such/fifo".to_owned()),
        ..Endpoints::default()
    };
    scene.create_with("c", endpoints).await.unwrap();
    let name = ProcessName::init("c");
    let error = scene.pod.start(&name).await.unwrap_err().to_string();
    assert!(error.starts_with("opening stdin at /no/such/fifo: "), "{error}");
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
}
