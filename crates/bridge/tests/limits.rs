//! Limits, the freezer and memory events, as the host asks for them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod peer;

use cofferdam_bridge::BridgeError;
use cofferdam_protocol::{
    HResult,
    json::InString,
    message::*,
    settings::{Constraints, Freezer, ModificationRequest, Resource},
};
use peer::{connected, connected_with, linux};
use serde_json::json;

#[tokio::test]
async fn changes_are_sent_to_the_container_or_to_the_vm() {
    let (bridge, mut peer) = connected().await;
    let resources = json!({"memory": {"limit": 1 << 20}});
    let limits = || Constraints::linux(resources.clone());
    let vm = cofferdam_protocol::NULL_CONTAINER_ID;
    let asked = async {
        bridge.update_container("c", &resources).await.unwrap();
        bridge.update_pod(&resources).await.unwrap();
        bridge.pause("c").await.unwrap();
        bridge.resume("c").await.unwrap();
    };
    let answered = async {
        for (container, resource) in [
            ("c", Resource::ContainerConstraints(limits())),
            (vm, Resource::PodLimits(limits())),
            ("c", Resource::Freezer(Freezer { frozen: true })),
            ("c", Resource::Freezer(Freezer { frozen: false })),
        ] {
            let (id, got) = peer.expect::<ModifySettings>().await;
            assert_eq!(got.base.container_id, container);
            assert_eq!(got.payload.request, ModificationRequest::update(resource));
            peer.succeed::<ModifySettings>(id, Empty {}).await;
        }
    };
    tokio::join!(asked, answered);
}

#[tokio::test]
async fn each_death_is_told_once_and_the_end_of_the_container_ends_the_waiting() {
    let (bridge, mut peer) = connected().await;
    let mut events = bridge.container_oom("c").unwrap();
    let mut replies = [(1, false), (3, false), (3, true)].into_iter();
    let answered = async {
        for seen in [0, 1, 3] {
            let (id, got) = peer.expect::<WaitForOom>().await;
            assert_eq!(got.payload.kills_seen, seen);
            let (kills, ended) = replies.next().unwrap();
            peer.succeed::<WaitForOom>(id, WaitForOomReply { kills, ended })
                .await;
        }
    };
    let heard = async {
        let mut heard = Vec::new();
        while let Some(kills) = events.next().await.unwrap() {
            heard.push(kills);
        }
        heard
    };
    let (heard, ()) = tokio::join!(heard, answered);
    assert_eq!(heard, [1, 3]);
    assert_eq!(events.next().await.unwrap(), None, "without asking again");
}

#[tokio::test]
async fn a_death_that_ends_the_container_is_told_before_the_end() {
    let (bridge, mut peer) = connected().await;
    let mut events = bridge.container_oom("c").unwrap();
    let (heard, ()) = tokio::join!(events.next(), async {
        let (id, _) = peer.expect::<WaitForOom>().await;
        peer.succeed::<WaitForOom>(
            id,
            WaitForOomReply {
                kills: 1,
                ended: true,
            },
        )
        .await;
    });
    assert_eq!(heard.unwrap(), Some(1));
    assert_eq!(events.next().await.unwrap(), None);
}

#[tokio::test]
async fn giving_up_and_waiting_again_asks_the_guest_once_and_loses_nothing() {
    let (bridge, mut peer) = connected().await;
    let mut events = bridge.container_oom("c").unwrap();
    for _ in 0..3 {
        tokio::select! {
            biased;
            heard = events.next() => panic!("{heard:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    let (id, _) = peer.expect::<WaitForOom>().await;
    peer.succeed::<WaitForOom>(
        id,
        WaitForOomReply {
            kills: 1,
            ended: false,
        },
    )
    .await;
    assert_eq!(events.next().await.unwrap(), Some(1));
    drop(events);
    drop(bridge);
    assert_eq!(peer.try_next().await, None, "nothing else was asked");
}

#[tokio::test]
async fn a_container_whose_state_is_deleted_has_ended() {
    let (bridge, mut peer) = connected().await;
    let mut events = bridge.container_oom("c").unwrap();
    let (heard, ()) = tokio::join!(events.next(), async {
        let (id, _) = peer.expect::<WaitForOom>().await;
        peer.fail::<WaitForOom>(id, HResult::CONTAINER_NOT_FOUND, "gone")
            .await;
    });
    assert_eq!(heard.unwrap(), None);
}

#[tokio::test]
async fn figures_come_typed_and_nonsense_fails_the_call_alone() {
    let (bridge, mut peer) = connected().await;
    let asked = async {
        let good = bridge.statistics("c").await.unwrap();
        assert_eq!(good.pids.unwrap(), PidsMetrics { current: 2, limit: 0 });
        let bad = bridge.statistics("c").await.unwrap_err();
        assert!(matches!(bad, BridgeError::BadReply { .. }), "{bad}");
        assert_eq!(bridge.statistics("c").await.unwrap(), Metrics::default());
        let oom = bridge.out_of_memory("c").await.unwrap();
        assert!(oom.init_killed);
        bridge.out_of_memory("c").await.unwrap_err();
    };
    let answered = async {
        let metrics = |metrics| Properties {
            metrics: Some(metrics),
            ..Properties::default()
        };
        for properties in [
            metrics(json!({"pids": {"current": 2}, "rdma": {}})),
            metrics(json!({"pids": "many"})),
            Properties::default(),
            Properties {
                out_of_memory: Some(OutOfMemory {
                    kills: 1,
                    init_killed: true,
                }),
                ..Properties::default()
            },
            Properties::default(),
        ] {
            let (id, _) = peer.expect::<GetProperties>().await;
            let properties = InString(properties);
            peer.succeed::<GetProperties>(id, GetPropertiesReply { properties })
                .await;
        }
    };
    tokio::join!(asked, answered);
}

#[tokio::test]
async fn a_guest_without_the_extension_is_asked_for_nothing_but_what_the_original_knows() {
    let (bridge, mut peer) = connected_with(linux(false)).await;
    let resources = json!({});
    for refused in [
        bridge.update_pod(&resources).await.unwrap_err(),
        bridge.pause("c").await.unwrap_err(),
        bridge.resume("c").await.unwrap_err(),
        bridge.pod_statistics().await.unwrap_err(),
        bridge.out_of_memory("c").await.unwrap_err(),
        bridge.container_oom("c").unwrap_err(),
    ] {
        assert!(matches!(refused, BridgeError::Unsupported { .. }), "{refused}");
    }
    let (done, ()) = tokio::join!(bridge.update_container("c", &resources), async {
        let (id, _) = peer.expect::<ModifySettings>().await;
        peer.fail::<ModifySettings>(id, HResult::NOT_IMPLEMENTED, "no")
            .await;
    });
    assert_eq!(done.unwrap_err().result(), Some(HResult::NOT_IMPLEMENTED));
}
