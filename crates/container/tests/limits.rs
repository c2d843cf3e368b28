//! Limits, pauses and memory of a container on a fake VM.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake_pod;

use cofferdam_backend::fake::{FaultPoint, GuestStep};
use cofferdam_container::{delete_state, limit_pod, pod_stats};
use cofferdam_protocol::{HResult, message::OutOfMemory};
use fake_pod::{Pod, running::started};
use serde_json::json;

#[tokio::test]
async fn a_container_stands_still_until_it_is_resumed_and_can_be_killed() {
    let pod = Pod::boot().await;
    let (mut allocation, running) = started(&pod, "a").await;
    let handle = running.handle();
    for paused in [true, true, false, true] {
        let done = if paused {
            handle.pause().await
        } else {
            handle.resume().await
        };
        done.unwrap();
        assert_eq!(pod.backend.is_paused("a"), paused);
    }
    assert!(handle.signal(9).await.unwrap());
    assert_eq!(running.wait().await.unwrap(), 137);
    let late = handle.pause().await.unwrap_err();
    assert_eq!(late.result(), Some(HResult::INVALID_STATE), "{late}");
    assert!(late.to_string().contains("to stand still"), "{late}");
    assert_eq!(
        handle.out_of_memory().await.unwrap(),
        OutOfMemory::default(),
        "killed by the host"
    );
    allocation.release().await.unwrap();
    delete_state(&pod.vm, "a").await.unwrap();
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn new_limits_leave_what_they_do_not_name() {
    let pod = Pod::boot().await;
    let (mut allocation, running) = started(&pod, "a").await;
    let handle = running.handle();
    handle
        .update(&json!({"memory": {"limit": 1 << 20}, "pids": {"limit": 5}}))
        .await
        .unwrap();
    handle
        .update(&json!({"memory": {"reservation": 7}}))
        .await
        .unwrap();
    assert_eq!(
        pod.backend.container_limits("a").unwrap(),
        json!({"memory": {"limit": 1 << 20, "reservation": 7}, "pids": {"limit": 5}})
    );
    limit_pod(&pod.vm, &json!({"pids": {"limit": 100}}))
        .await
        .unwrap();
    assert_eq!(pod.backend.pod_limits(), json!({"pids": {"limit": 100}}));
    assert_eq!(handle.stats().await.unwrap().pids.unwrap().current, 1);
    assert_eq!(pod_stats(&pod.vm).await.unwrap().pids.unwrap().current, 1);
    pod.backend
        .faults()
        .fail(FaultPoint::Guest(GuestStep::UpdateContainer), 1, "no such limit");
    let refused = handle.update(&json!({})).await.unwrap_err().to_string();
    assert!(refused.contains("no such limit"), "{refused}");
    handle.signal(9).await.unwrap();
    running.wait().await.unwrap();
    handle.update(&json!({})).await.unwrap_err();
    allocation.release().await.unwrap();
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn a_container_that_runs_out_of_memory_is_told_from_one_that_is_killed() {
    let pod = Pod::boot().await;
    let (mut allocation, running) = started(&pod, "a").await;
    let handle = running.handle();
    let mut events = running.oom().unwrap();
    assert!(pod.backend.run_out_of_memory("a", false));
    assert_eq!(events.next().await.unwrap(), Some(1));
    let child = handle.out_of_memory().await.unwrap();
    assert_eq!((child.kills, child.init_killed), (1, false));
    let waiting = tokio::spawn(async move { events.next().await.unwrap() });
    tokio::task::yield_now().await;
    assert!(pod.backend.run_out_of_memory("a", true));
    assert_eq!(waiting.await.unwrap(), Some(2));
    assert_eq!(running.wait().await.unwrap(), 137);
    // The reason outlives the container, until it is forgotten.
    let verdict = handle.out_of_memory().await.unwrap();
    assert_eq!((verdict.kills, verdict.init_killed), (2, true));
    allocation.release().await.unwrap();
    delete_state(&pod.vm, "a").await.unwrap();
    handle.out_of_memory().await.unwrap_err();
    assert_eq!(pod.vm.bridge().waiting(), (0, 0));
    pod.assert_empty("at the end");
}

#[tokio::test]
async fn whoever_waits_for_memory_hears_of_the_end_and_of_a_dead_vm() {
    let pod = Pod::boot().await;
    let (mut allocation, running) = started(&pod, "a").await;
    let handle = running.handle();
    let (mut first, mut second) = (handle.oom().unwrap(), handle.oom().unwrap());
    let waiting = tokio::spawn(async move { first.next().await });
    tokio::task::yield_now().await;
    handle.signal(15).await.unwrap();
    running.wait().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), None);
    pod.backend.kill_vm();
    assert!(second.next().await.unwrap_err().is_closed());
    allocation.release().await.unwrap();
}
