//! A guest that is slow, confused or hostile, and callers that give up.

mod peer;

use std::time::Duration;

use cofferdam_bridge::{Bridge, BridgeError, CloseReason, Options};
use cofferdam_protocol::{
    HResult, MessageType,
    frame::{FrameError, HEADER_BYTES, MAX_GUEST_FRAME_BYTES, encode},
    message::*,
};
use futures_check::poll_once;
use peer::{Peer, connected, ends, linux};
use tokio::io::AsyncWriteExt;

mod futures_check {
    use std::{future::Future, pin::Pin, task::Poll};

    /// Polls a future once, so that it can be dropped half way.
    pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }
}

/// Checks that the bridge still works.
async fn works(bridge: &Bridge, peer: &mut Peer) {
    let (started, ()) = tokio::join!(bridge.start("probe"), async {
        loop {
            let frame = peer.next().await;
            if Request::<Start>::from_body(&frame.body).is_ok_and(|r| r.base.container_id == "probe") {
                return peer.succeed::<Start>(frame.id, Empty {}).await;
            }
        }
    });
    started.expect("the bridge still works");
}

#[tokio::test]
async fn many_calls_in_flight_are_answered_in_any_order() {
    let (bridge, mut peer) = connected().await;
    let calls: Vec<_> = (0..200)
        .map(|pid| {
            let bridge = bridge.clone();
            tokio::spawn(async move { (pid, bridge.wait_for_process("c", pid).await) })
        })
        .collect();
    let mut requests = Vec::new();
    for _ in 0..200 {
        requests.push(peer.expect::<WaitForProcess>().await);
    }
    assert_eq!(bridge.waiting(), (200, 0));
    for (id, request) in requests.into_iter().rev() {
        let exit_code = request.payload.process_id + 1000;
        peer.succeed::<WaitForProcess>(id, WaitForProcessReply { exit_code })
            .await;
    }
    for call in calls {
        let (pid, exit_code) = call.await.unwrap();
        assert_eq!(exit_code.unwrap(), pid + 1000);
    }
    assert_eq!(bridge.waiting(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_a_call_that_timed_out_is_dropped() {
    let (bridge, mut peer) = connected().await;
    let (answer, (id, _)) = tokio::join!(bridge.start("c"), peer.expect::<Start>());
    assert!(matches!(answer, Err(BridgeError::TimedOut { .. })));
    assert_eq!(bridge.waiting(), (0, 0));
    peer.fail::<Start>(id, HResult::FAIL, "late").await;
    peer.succeed::<Start>(id, Empty {}).await;
    works(&bridge, &mut peer).await;
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_and_its_answer_reaches_nobody_else() {
    let (bridge, mut peer) = connected().await;
    // Sent, then dropped.
    {
        let mut call = Box::pin(bridge.start("c"));
        assert!(poll_once(call.as_mut()).await.is_pending());
        assert_eq!(bridge.waiting(), (1, 0));
        let (id, _) = peer.expect::<Start>().await;
        drop(call);
        assert_eq!(bridge.waiting(), (0, 0));
        peer.fail::<Start>(id, HResult::FAIL, "nobody listens").await;
    }
    // Never polled.
    drop(bridge.start("c"));
    // A wait for an exit, registered and dropped.
    drop(bridge.container_exited("c"));
    assert_eq!(bridge.waiting(), (0, 0));
    works(&bridge, &mut peer).await;
}

#[tokio::test]
async fn calls_dropped_while_the_guest_takes_nothing_leave_whole_frames_only() {
    // A stream of 32 bytes: the writer is stuck within the first frame, and the queue fills up behind it.
    let (host, mut peer) = ends(32);
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, _) = peer.expect::<NegotiateProtocol>().await;
        peer.succeed::<NegotiateProtocol>(id, linux(true)).await;
    });
    let (bridge, _) = connected.unwrap();
    let mut calls: Vec<_> = (0..200).map(|_| Box::pin(bridge.start("c"))).collect();
    for call in &mut calls {
        assert!(poll_once(call.as_mut()).await.is_pending());
    }
    tokio::task::yield_now().await;
    drop(calls);
    assert_eq!(bridge.waiting(), (0, 0));
    // What was queued arrives whole; what was not never does; the bridge goes on.
    works(&bridge, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_takes_nothing_costs_each_call_its_limit_only() {
    let (host, mut peer) = ends(256);
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, _) = peer.expect::<NegotiateProtocol>().await;
        peer.succeed::<NegotiateProtocol>(id, linux(true)).await;
    });
    let (bridge, _) = connected.unwrap();
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let bridge = bridge.clone();
            tokio::spawn(async move { bridge.start("c").await })
        })
        .collect();
    for call in calls {
        assert!(matches!(call.await.unwrap(), Err(BridgeError::TimedOut { .. })));
    }
    assert_eq!(bridge.waiting(), (0, 0));
    // Letting go of the bridge ends the stuck writer too: the stream closes.
    drop(bridge);
    tokio::time::timeout(Duration::from_secs(1), peer.stream.closed_by_host())
        .await
        .unwrap();
}

trait ClosedByHost {
    async fn closed_by_host(&mut self);
}

impl ClosedByHost for tokio::io::DuplexStream {
    async fn closed_by_host(&mut self) {
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(self, &mut rest)
            .await
            .expect("the stream ends");
    }
}

#[tokio::test]
async fn unknown_answers_and_notifications_are_survived() {
    let (bridge, mut peer) = connected().await;
    peer.succeed::<Start>(999, Empty {}).await;
    peer.notify("nobody").await;
    peer.send(CONTAINER_NOTIFICATION, 0, b"not json").await;
    peer.send(MessageType(0x3010_0201), 0, b"{}").await;
    peer.send(START, 1, b"{}").await;
    peer.send(MessageType(0xffff_ffff), 0, b"").await;
    works(&bridge, &mut peer).await;
}

#[tokio::test]
async fn a_second_notification_is_ignored() {
    let (bridge, mut peer) = connected().await;
    let exited = bridge.container_exited("c");
    peer.notify("c").await;
    exited.await.unwrap();
    peer.notify("c").await;
    works(&bridge, &mut peer).await;
}

#[tokio::test]
async fn every_waiter_of_one_container_is_notified() {
    let (bridge, mut peer) = connected().await;
    let (first, second, other) = (
        bridge.container_exited("c"),
        bridge.container_exited("c"),
        bridge.container_exited("d"),
    );
    drop(first);
    let third = bridge.container_exited("c");
    peer.notify("c").await;
    second.await.unwrap();
    third.await.unwrap();
    assert_eq!(bridge.waiting(), (0, 1));
    drop(other);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_fails_its_call_alone() {
    let (bridge, mut peer) = connected().await;
    let (answer, ()) = tokio::join!(bridge.start("c"), async {
        let (id, _) = peer.expect::<Start>().await;
        peer.send(START.response(), id, b"{\"Result\":").await;
    });
    assert!(matches!(answer, Err(BridgeError::BadReply { .. })));
    let (answer, ()) = tokio::join!(bridge.start("c"), async {
        let (id, _) = peer.expect::<Start>().await;
        peer.succeed::<Create>(id, Empty {}).await;
    });
    assert!(matches!(answer, Err(BridgeError::WrongReply { got, .. }) if got == CREATE.response()));
    works(&bridge, &mut peer).await;
}

#[tokio::test]
async fn a_broken_frame_ends_the_bridge_with_a_clear_reason_for_everybody() {
    let (bridge, mut peer) = connected().await;
    let exited = bridge.container_exited("c");
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let bridge = bridge.clone();
            tokio::spawn(async move { bridge.wait_for_process("c", 1).await })
        })
        .collect();
    for _ in 0..3 {
        peer.expect::<WaitForProcess>().await;
    }
    let oversized = encode(
        START.response(),
        0,
        &vec![b' '; MAX_GUEST_FRAME_BYTES],
        usize::MAX,
    )
    .unwrap();
    peer.stream.write_all(&oversized[..HEADER_BYTES]).await.unwrap();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("the guest broke the protocol: a frame of 65552 bytes"),
            "{text}"
        );
        assert!(error.is_closed());
    }
    for reason in [exited.await.unwrap_err(), bridge.closed().await] {
        let CloseReason::Malformed(source) = reason else {
            panic!("{reason:?}")
        };
        assert!(matches!(*source, FrameError::TooLarge { .. }));
    }
    // A call after the end fails at once with the same reason, and an exit is not waited for in vain.
    assert!(
        bridge
            .start("c")
            .await
            .unwrap_err()
            .to_string()
            .contains("broke the protocol")
    );
    bridge.container_exited("c").await.unwrap_err();
    assert_eq!(bridge.waiting(), (0, 0));
}

#[tokio::test]
async fn the_end_of_the_stream_is_told_from_the_middle_of_a_frame() {
    let (bridge, peer) = connected().await;
    let exited = bridge.container_exited("c");
    drop(peer);
    assert!(matches!(exited.await, Err(CloseReason::Ended)));
    assert!(matches!(bridge.closed().await, CloseReason::Ended));

    let (bridge, mut peer) = connected().await;
    peer.stream.write_all(&[1, 2, 3]).await.unwrap();
    drop(peer);
    assert!(matches!(bridge.closed().await, CloseReason::Malformed(_)));
}

#[tokio::test]
async fn dropping_the_bridge_closes_the_stream_and_wakes_who_waits() {
    let (bridge, mut peer) = connected().await;
    let exited = bridge.container_exited("c");
    drop(bridge);
    assert!(matches!(exited.await, Err(CloseReason::Dropped)));
    assert_eq!(peer.try_next().await, None);
}
