//! What a container's state does not allow, and figures that make no sense.

use cofferdam_backend::fake::{FakeProgram, ProgramFor};
use containerd_shim::{
    api::{DeleteRequest, KillRequest, PauseRequest, ResizePtyRequest, ResumeRequest, StartRequest},
    protos::ttrpc::Code,
};

use crate::scene::{Scene, answer, context, execution, refused};

fn kill(id: &str, signal: u32) -> KillRequest {
    KillRequest {
        id: id.to_owned(),
        signal,
        ..KillRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_state_does_not_allow_is_refused_with_the_state() {
    let scene = Scene::new().await;
    scene.create("c").await;
    let (start, delete) = (
        StartRequest {
            id: "c".to_owned(),
            ..StartRequest::default()
        },
        DeleteRequest {
            id: "c".to_owned(),
            ..DeleteRequest::default()
        },
    );
    let pause = PauseRequest {
        id: "c".to_owned(),
        ..PauseRequest::default()
    };
    let resume = ResumeRequest {
        id: "c".to_owned(),
        ..ResumeRequest::default()
    };
    let exec = execution("c", "e", r#"{"args":["true"],"cwd":"/"}"#);
    let client = &scene.client;
    let early = Code::FAILED_PRECONDITION;
    refused(
        answer(client.pause(context(), &pause)).await,
        early,
        "container c is created",
    );
    refused(
        answer(client.exec(context(), &exec)).await,
        early,
        "container c is created",
    );
    refused(
        answer(client.kill(context(), &kill("c", 10))).await,
        early,
        "container c is created",
    );
    answer(client.start(context(), &start)).await.unwrap();
    refused(
        answer(client.start(context(), &start)).await,
        early,
        "container c is running",
    );
    refused(
        answer(client.delete(context(), &delete)).await,
        early,
        "container c is running",
    );
    refused(
        answer(client.resume(context(), &resume)).await,
        early,
        "container c is running",
    );
    answer(client.pause(context(), &pause)).await.unwrap();
    refused(
        answer(client.pause(context(), &pause)).await,
        early,
        "container c is paused",
    );
    refused(
        answer(client.delete(context(), &delete)).await,
        early,
        "container c is paused",
    );
    answer(client.resume(context(), &resume)).await.unwrap();
    scene.end("c").await;
    refused(
        answer(client.delete(context(), &delete)).await,
        Code::NOT_FOUND,
        "container c does not exist",
    );
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_that_there_is_not_is_refused_and_0_only_asks() {
    let scene = Scene::new().await;
    scene.running("c").await;
    for signal in [65, 1000, i32::MAX.unsigned_abs(), u32::MAX] {
        let answered = answer(scene.client.kill(context(), &kill("c", signal))).await;
        let words = format!("there is no signal {signal}");
        refused(answered, Code::INVALID_ARGUMENT, &words);
    }
    answer(scene.client.kill(context(), &kill("c", 0))).await.unwrap();
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_may_have_no_size_and_not_an_absurd_one() {
    let scene = Scene::new().await;
    scene.running("plain").await;
    let resize = |id: &str, height: u32, width: u32| ResizePtyRequest {
        id: id.to_owned(),
        height,
        width,
        ..ResizePtyRequest::default()
    };
    let client = &scene.client;
    let without = answer(client.resize_pty(context(), &resize("plain", 24, 80))).await;
    refused(
        without,
        Code::FAILED_PRECONDITION,
        "container plain has no terminal",
    );
    let mut creation = scene.creation("t");
    creation.terminal = true;
    let init = ProgramFor::Init("t".to_owned());
    scene.backend.set_program(init, FakeProgram::runs());
    answer(client.create(context(), &creation)).await.unwrap();
    let start = StartRequest {
        id: "t".to_owned(),
        ..StartRequest::default()
    };
    answer(client.start(context(), &start)).await.unwrap();
    for (height, width) in [(0, 0), (0, 80), (65_535, 65_535)] {
        answer(client.resize_pty(context(), &resize("t", height, width)))
            .await
            .unwrap();
    }
    for (height, width) in [(65_536, 80), (24, u32::MAX)] {
        let absurd = answer(client.resize_pty(context(), &resize("t", height, width))).await;
        refused(absurd, Code::INVALID_ARGUMENT, "a terminal has no ");
    }
    scene.end("plain").await;
    scene.end("t").await;
    scene.assert_nothing_left();
}
