//! Clients that vanish, or speak another language.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use cofferdam_backend::fake::{FaultPoint, GuestStep};
use containerd_shim::{
    api::{StartRequest, StateRequest, WaitRequest},
    protos::ttrpc::Code,
};

use crate::scene::{Scene, answer, context, refused};

fn state(id: &str) -> StateRequest {
    StateRequest {
        id: id.to_owned(),
        ..StateRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_while_it_waits_is_missed_by_nobody() {
    let scene = Scene::new().await;
    scene.running("c").await;
    let wait = WaitRequest {
        id: "c".to_owned(),
        ..WaitRequest::default()
    };
    let gone = scene.another();
    let waiting = tokio::spawn({
        let wait = wait.clone();
        async move { gone.wait(context(), &wait).await.map(drop) }
    });
    let other = scene.another();
    let staying = tokio::spawn(async move { answer(other.wait(context(), &wait)).await });
    answer(scene.client.state(context(), &state("c"))).await.unwrap();
    waiting.abort();
    scene.end("c").await;
    assert_eq!(staying.await.unwrap().unwrap().exit_status, 137);
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_began_that_vanishes_is_there_for_the_next() {
    let scene = Scene::new().await;
    scene.create("c").await;
    let point = FaultPoint::Guest(GuestStep::Start);
    scene.backend.faults().hang(point, 1);
    let gone = scene.another();
    let starting = tokio::spawn(async move {
        let start = StartRequest {
            id: "c".to_owned(),
            ..StartRequest::default()
        };
        gone.start(context(), &start).await.map(drop)
    });
    scene.backend.faults().hanging(1).await;
    starting.abort();
    let starts = StartRequest {
        id: "c".to_owned(),
        ..StartRequest::default()
    };
    refused(
        answer(scene.client.start(context(), &starts)).await,
        Code::FAILED_PRECONDITION,
        "container c is being started",
    );
    scene.backend.faults().release();
    let begun = std::time::Instant::now();
    loop {
        let found = answer(scene.client.state(context(), &state("c"))).await.unwrap();
        if found.status == containerd_shim::api::Status::RUNNING.into() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{found:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_ends_at_most_its_own_connection() {
    let scene = Scene::new().await;
    scene.running("c").await;
    let header = |length: u32, stream: u32, kind: u8| {
        let mut bytes = Vec::new();
        bytes.extend(length.to_be_bytes());
        bytes.extend(stream.to_be_bytes());
        bytes.extend([kind, 0]);
        bytes
    };
    let mut cases = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 100_000],
        vec![0; 100_000],
        // A message that is longer than any may be, one that never comes, one of another kind, one that is garbage.
        header(u32::MAX, 1, 1),
        header(1 << 20, 1, 1),
        header(0, 1, 9),
        [header(4, 1, 1), vec![0xff; 4]].concat(),
        [header(4, 2, 1), vec![0xff; 4]].concat(),
    ];
    // Cut off in the middle of a header.
    cases.push(header(10, 1, 1)[..7].to_vec());
    for bytes in cases {
        let mut stream = scene.stream();
        // It may be closed before everything was sent.
        let _ = stream.write_all(&bytes);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let found = answer(scene.client.state(context(), &state("c"))).await.unwrap();
        assert_eq!(found.pid, 4242);
        drop(stream);
        answer(scene.another().state(context(), &state("c")))
            .await
            .unwrap();
    }
    scene.end("c").await;
    scene.assert_nothing_left();
}
