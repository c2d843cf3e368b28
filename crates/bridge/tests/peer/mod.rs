//! A scripted guest at the other end of a bridge.

#![allow(dead_code, reason = "each test file uses its part of the peer")]

use std::sync::Arc;

use cofferdam_bridge::{Bridge, Options};
use cofferdam_protocol::{
    HResult, MessageType, NULL_CONTAINER_ID,
    frame::{Decoder, Frame, MAX_HOST_FRAME_BYTES, encode},
    message::*,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The guest's end of the stream.
pub(crate) struct Peer {
    pub(crate) stream: DuplexStream,
    decoder: Decoder,
}

impl Peer {
    /// The next request.
    pub(crate) async fn next(&mut self) -> Frame {
        self.try_next().await.expect("the host sends one more request")
    }

    /// The next request, `None` when the host has closed the stream.
    pub(crate) async fn try_next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("the host keeps the framing") {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self
                .stream
                .read(&mut buffer)
                .await
                .expect("the stream is readable")
            {
                0 => {
                    self.decoder.finish().expect("the host ends between two frames");
                    return None;
                }
                n => self.decoder.push(&buffer[..n]),
            }
        }
    }

    /// The next request, which must be a `P`.
    pub(crate) async fn expect<P: Payload>(&mut self) -> (u64, Request<P>) {
        let frame = self.next().await;
        assert_eq!(frame.message_type, P::TYPE);
        (
            frame.id,
            Request::from_body(&frame.body).expect("the host's request reads back"),
        )
    }

    pub(crate) async fn send(&mut self, message_type: MessageType, id: u64, body: &[u8]) {
        // The guest's own limit is not kept here: the host's must hold.
        let bytes = encode(message_type, id, body, usize::MAX).expect("it fits 32 bits");
        self.stream.write_all(&bytes).await.expect("the host still reads");
    }

    pub(crate) async fn succeed<P: Payload>(&mut self, id: u64, reply: P::Reply) {
        let body = Response::success(NULL_CONTAINER_ID, reply).to_body();
        self.send(P::TYPE.response(), id, &body).await;
    }

    pub(crate) async fn fail<P: Payload>(&mut self, id: u64, result: HResult, message: &str) {
        let body = Response::failure(NULL_CONTAINER_ID, result, message).to_body();
        self.send(P::TYPE.response(), id, &body).await;
    }

    pub(crate) async fn notify(&mut self, container_id: &str) {
        let notification = ContainerNotification {
            container_id: container_id.to_owned(),
            ..Default::default()
        };
        self.send(CONTAINER_NOTIFICATION, 0, &notification.to_body())
            .await;
    }
}

pub(crate) fn linux(everything: bool) -> NegotiateProtocolReply {
    NegotiateProtocolReply {
        version: 4,
        capabilities: Capabilities {
            supported_schema_versions: vec![SchemaVersion::V2_1],
            runtime_os_type: "Linux".into(),
            guest_defined_capabilities: GuestDefinedCapabilities {
                namespace_add_request_supported: everything,
                signal_process_supported: everything,
                dump_stacks_supported: everything,
                delete_container_state_supported: everything,
                cofferdam_container_mounts: everything,
                cofferdam_mounts: everything,
                cofferdam_limits: everything,
                cofferdam_copy: everything,
            },
            ..Default::default()
        },
    }
}

/// The two ends of a stream that holds `buffer_bytes`.
pub(crate) fn ends(buffer_bytes: usize) -> (DuplexStream, Peer) {
    let (host, guest) = tokio::io::duplex(buffer_bytes);
    (
        host,
        Peer {
            stream: guest,
            decoder: Decoder::new(MAX_HOST_FRAME_BYTES),
        },
    )
}

/// A negotiated bridge, and its guest.
pub(crate) async fn connected() -> (Arc<Bridge>, Peer) {
    connected_with(linux(true)).await
}

pub(crate) async fn connected_with(reply: NegotiateProtocolReply) -> (Arc<Bridge>, Peer) {
    let (host, mut peer) = ends(64 << 10);
    let (connected, ()) = tokio::join!(Bridge::connect(host, Options::default()), async {
        let (id, request) = peer.expect::<NegotiateProtocol>().await;
        assert_eq!((id, request.base.container_id.as_str()), (0, ""));
        peer.succeed::<NegotiateProtocol>(id, reply).await;
    });
    (connected.expect("the guest accepts").0, peer)
}
