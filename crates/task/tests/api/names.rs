//! Names that nobody has, that somebody has already, and that nobody should have.

use cofferdam_backend::fake::{FakeProgram, ProgramFor};
use containerd_shim::{
    api::{
        CheckpointTaskRequest, CloseIORequest, DeleteRequest, KillRequest, PauseRequest, PidsRequest,
        ResizePtyRequest, ResumeRequest, StartRequest, StateRequest, StatsRequest, UpdateTaskRequest,
        WaitRequest,
    },
    protos::{protobuf::well_known_types::any::Any, ttrpc::Code},
};

use crate::scene::{Scene, answer, context, execution, refused};

const PROCESS: &str = r#"{"args":["sleep"],"cwd":"/"}"#;

/// Asks everything that can be asked about a container or one of its processes. Every answer must be a refusal.
macro_rules! all_refused {
    ($scene:expr, $code:expr, $words:expr, { $($method:ident: $request:ident { $($member:ident: $value:expr),* }),* $(,)? }) => {
        $({
            let request = $request { $($member: $value.into(),)* ..$request::default() };
            refused(answer($scene.client.$method(context(), &request)).await, $code, $words);
        })*
    };
}

fn limits() -> Any {
    let mut limits = Any::new();
    limits.value = b"{}".to_vec();
    limits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_not_there_is_told_as_such_by_every_method() {
    let scene = Scene::new().await;
    // Before there is any container, beside one, and after it has gone.
    for round in 0..3 {
        if round == 1 {
            scene.running("other").await;
        }
        if round == 2 {
            scene.end("other").await;
        }
        let words = "container nobody does not exist";
        all_refused!(scene, Code::NOT_FOUND, words, {
            start: StartRequest { id: "nobody" },
            delete: DeleteRequest { id: "nobody" },
            kill: KillRequest { id: "nobody", signal: 9u32 },
            resize_pty: ResizePtyRequest { id: "nobody" },
            close_io: CloseIORequest { id: "nobody", stdin: true },
            state: StateRequest { id: "nobody" },
            wait: WaitRequest { id: "nobody" },
            pids: PidsRequest { id: "nobody" },
            pause: PauseRequest { id: "nobody" },
            resume: ResumeRequest { id: "nobody" },
            stats: StatsRequest { id: "nobody" },
            update: UpdateTaskRequest { id: "nobody", resources: Some(limits()) },
        });
        let exec = execution("nobody", "e", PROCESS);
        refused(
            answer(scene.client.exec(context(), &exec)).await,
            Code::NOT_FOUND,
            words,
        );
    }
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_not_there_is_told_as_such_by_every_method() {
    let scene = Scene::new().await;
    scene.running("c").await;
    all_refused!(scene, Code::NOT_FOUND, "process e of container c does not exist", {
        start: StartRequest { id: "c", exec_id: "e" },
        delete: DeleteRequest { id: "c", exec_id: "e" },
        kill: KillRequest { id: "c", exec_id: "e", signal: 9u32 },
        resize_pty: ResizePtyRequest { id: "c", exec_id: "e" },
        close_io: CloseIORequest { id: "c", exec_id: "e", stdin: true },
        state: StateRequest { id: "c", exec_id: "e" },
        wait: WaitRequest { id: "c", exec_id: "e" },
    });
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_is_refused_and_whoever_has_it_keeps_it() {
    let scene = Scene::new().await;
    scene.running("c").await;
    let again = answer(scene.client.create(context(), &scene.creation("c"))).await;
    refused(again, Code::ALREADY_EXISTS, "container c exists already");
    assert_eq!(*scene.service.owner().roots.lock().unwrap(), 1);

    let program = ProgramFor::Command("sleep".to_owned());
    scene.backend.set_program(program, FakeProgram::runs());
    let exec = execution("c", "e", PROCESS);
    answer(scene.client.exec(context(), &exec)).await.unwrap();
    let again = answer(scene.client.exec(context(), &exec)).await;
    refused(
        again,
        Code::ALREADY_EXISTS,
        "process e of container c exists already",
    );
    let own = answer(scene.client.exec(context(), &execution("c", "c", PROCESS))).await;
    refused(own, Code::ALREADY_EXISTS, "container c exists already");
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_creations_at_once_one_gets_the_name_and_its_root() {
    let scene = Scene::new().await;
    let clients: Vec<_> = (0..8).map(|_| scene.another()).collect();
    let tries = clients.into_iter().map(|client| {
        let request = scene.creation("c");
        tokio::spawn(async move { answer(client.create(context(), &request)).await })
    });
    let mut created = 0;
    for attempt in tries.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(_) => created += 1,
            refusal => refused(refusal, Code::ALREADY_EXISTS, "container c exists already"),
        }
    }
    assert_eq!((created, *scene.service.owner().roots.lock().unwrap()), (1, 1));
    let delete = DeleteRequest {
        id: "c".to_owned(),
        ..DeleteRequest::default()
    };
    answer(scene.client.delete(context(), &delete)).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_could_be_something_else_are_refused() {
    let scene = Scene::new().await;
    scene.running("c").await;
    let long = "x".repeat(3 << 20);
    for hostile in [
        "",
        "..",
        "../../etc",
        "a b",
        "a\0b",
        "a\nlevel=info",
        "-\u{202e}",
        "/",
        &long,
    ] {
        let created = answer(scene.client.create(context(), &scene.creation(hostile))).await;
        refused(created, Code::INVALID_ARGUMENT, "a container cannot be called ");
        let exec = execution("c", hostile, PROCESS);
        refused(
            answer(scene.client.exec(context(), &exec)).await,
            Code::INVALID_ARGUMENT,
            "a process cannot be called ",
        );
    }
    assert_eq!(scene.pod.names(), ["c"]);
    scene.end("c").await;
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_told_to_be_unimplemented() {
    let scene = Scene::new().await;
    scene.running("c").await;
    all_refused!(scene, Code::UNIMPLEMENTED, "checkpoint", {
        checkpoint: CheckpointTaskRequest { id: "c", path: "/tmp" },
    });
    let mut restored = scene.creation("d");
    restored.checkpoint = "/tmp/checkpoint".to_owned();
    let created = answer(scene.client.create(context(), &restored)).await;
    refused(created, Code::UNIMPLEMENTED, "checkpoint");
    scene.end("c").await;
    scene.assert_nothing_left();
}
