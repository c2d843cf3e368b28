//! A container's life on a fake VM: streams, statuses, signals, deletion.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_pod;

use cofferdam_backend::fake::{FakeProgram, FaultPoint, GuestStep, ProgramFor};
use cofferdam_container::{Allocation, Created, RunError, Stdio, delete_state};
use fake_pod::Pod;
use tokio::io::AsyncReadExt;

async fn created(pod: &Pod, name: &str) -> (Allocation, Created) {
    let plan = pod.container(name);
    let allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
    let created = Created::create(pod.vm.clone(), name, &plan.container_root, &plan.spec)
        .await
        .unwrap();
    (allocation, created)
}

#[tokio::test]
async fn streams_and_status_come_back_and_the_guest_forgets_the_container() {
    let pod = Pod::boot().await;
    let program = FakeProgram::exits(42)
        .stdout(vec![b'o'; 300_000])
        .stderr("err")
        .echoes_stdin();
    pod.backend.set_program(ProgramFor::Anything, program);
    let (mut allocation, created) = created(&pod, "a").await;
    let (out, mut seen_out) = tokio::io::duplex(1 << 20);
    let (err, mut seen_err) = tokio::io::duplex(1 << 20);
    let stdio = Stdio {
        stdin: Some(Box::new(&b"question"[..])),
        stdout: Some(Box::new(out)),
        stderr: Some(Box::new(err)),
    };
    let running = created.start(stdio, None).await.unwrap();
    assert_eq!(running.wait().await.unwrap(), 42);
    let (mut output, mut errors) = (Vec::new(), String::new());
    seen_out.read_to_end(&mut output).await.unwrap();
    seen_err.read_to_string(&mut errors).await.unwrap();
    assert_eq!(output.len(), 300_000 + "question".len());
    assert!(output.ends_with(b"question"));
    assert_eq!(errors, "err");
    allocation.release().await.unwrap();
    delete_state(&pod.vm, "a").await.unwrap();
    assert!(pod.backend.guest_containers().is_empty());
    assert_eq!(pod.vm.bridge().waiting(), (0, 0));
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn a_signal_ends_a_container_and_comes_back_as_its_status() {
    let pod = Pod::boot().await;
    pod.backend.set_program(ProgramFor::Anything, FakeProgram::runs());
    let (mut allocation, created) = created(&pod, "a").await;
    let running = created.start(Stdio::default(), None).await.unwrap();
    let handle = running.handle();
    assert!(handle.signal(15).await.unwrap());
    assert_eq!(running.wait().await.unwrap(), 128 + 15);
    assert!(
        !handle.signal(15).await.unwrap(),
        "a process that has ended takes no signal"
    );
    allocation.release().await.unwrap();
}

#[tokio::test]
async fn a_program_that_cannot_start_says_why_and_is_released() {
    let pod = Pod::boot().await;
    let (mut allocation, created) = created(&pod, "a").await;
    pod.backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::ExecuteProcess), 1, "no such file");
    let Err(error) = created.start(Stdio::default(), None).await else {
        panic!("started")
    };
    assert!(matches!(error, RunError::Start(_)));
    assert!(error.to_string().contains("no such file"), "{error}");
    allocation.release().await.unwrap();
    pod.assert_empty("after the release");
}

#[tokio::test]
async fn a_vm_that_dies_ends_the_wait_at_once() {
    let pod = Pod::boot().await;
    pod.backend.set_program(ProgramFor::Anything, FakeProgram::runs());
    let (mut allocation, created) = created(&pod, "a").await;
    let running = created.start(Stdio::default(), None).await.unwrap();
    let waiting = tokio::spawn(running.wait());
    tokio::task::yield_now().await;
    pod.backend.kill_vm();
    waiting.await.unwrap().unwrap_err();
    allocation.release().await.unwrap();
    assert!(pod.vm.is_gone().await);
}
