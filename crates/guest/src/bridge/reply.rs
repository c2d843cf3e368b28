//! Answers: every request gets exactly one, with its own id, and none larger than the host takes.

use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_protocol::{
    HResult, MessageType, NULL_CONTAINER_ID,
    frame::{HEADER_BYTES, MAX_GUEST_FRAME_BYTES},
    message::{Empty, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use super::Session;
use crate::error::Result;

/// Largest body that fits a frame to the host.
const BODY_BYTES: usize = MAX_GUEST_FRAME_BYTES - HEADER_BYTES;
/// Longest error text; it appears twice in an answer, escaped.
const MESSAGE_BYTES: usize = 4 * 1024;
/// Longest activity id echoed; a GUID has 36 bytes.
const ACTIVITY_BYTES: usize = 256;

/// The right to answer one request.
pub(super) struct Reply {
    session: Arc<Session>,
    message_type: MessageType,
    id: u64,
    activity_id: String,
    sent: bool,
}

impl Drop for Reply {
    /// A request whose service broke off is answered too.
    fn drop(&mut self) {
        if !self.sent {
            self.write(&failure(
                &self.activity_id,
                HResult::FAIL,
                "the request broke off inside the agent",
            ));
        }
    }
}

impl Reply {
    pub(super) fn new(session: Arc<Session>, message_type: MessageType, id: u64) -> Self {
        Self {
            session,
            message_type,
            id,
            activity_id: NULL_CONTAINER_ID.to_owned(),
            sent: false,
        }
    }

    /// Echoes the request's activity id.
    pub(super) fn set_activity(&mut self, activity_id: &str) {
        if activity_id.len() <= ACTIVITY_BYTES {
            activity_id.clone_into(&mut self.activity_id);
        }
    }

    /// Sends the outcome.
    pub(super) fn send<R: Serialize + DeserializeOwned + Default>(self, outcome: Result<R>) {
        self.send_shrinking(outcome, |_| false);
    }

    /// Sends the outcome; `shrink` makes an answer that is too large smaller, and says whether it could.
    pub(super) fn send_shrinking<R: Serialize + DeserializeOwned + Default>(
        mut self,
        outcome: Result<R>,
        shrink: impl Fn(&mut R) -> bool,
    ) {
        if let Err(error) = &outcome {
            // The host has it in the answer.
            tracing::info!(request = %self.message_type, id = self.id, %error, "a request failed");
        }
        let body = body(&self.activity_id, outcome, shrink);
        self.write(&body);
    }

    fn write(&mut self, body: &[u8]) {
        self.sent = true;
        if let Err(error) = self.session.write(self.message_type.response(), self.id, body) {
            tracing::debug!(%error, id = self.id, "nobody hears an answer");
        }
    }
}

/// A reply that several may send; whoever comes first does.
#[derive(Clone)]
pub(super) struct FirstReply(Arc<Mutex<Option<Reply>>>);

impl FirstReply {
    pub(super) fn new(reply: Reply) -> Self {
        Self(Arc::new(Mutex::new(Some(reply))))
    }

    /// Sends the outcome, if nobody has sent one.
    pub(super) fn send<R: Serialize + DeserializeOwned + Default>(&self, outcome: Result<R>) {
        let reply = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            reply.send(outcome);
        }
    }
}

fn body<R: Serialize + DeserializeOwned + Default>(
    activity_id: &str,
    outcome: Result<R>,
    shrink: impl Fn(&mut R) -> bool,
) -> Vec<u8> {
    match outcome {
        Ok(payload) => {
            let mut response = Response::success(activity_id, payload);
            loop {
                let body = response.to_body();
                if body.len() <= BODY_BYTES {
                    return body;
                }
                if !shrink(&mut response.payload) {
                    let message = format!("the answer of {} bytes is larger than a frame", body.len());
                    return failure(activity_id, HResult::FAIL, &message);
                }
            }
        }
        Err(error) => failure(activity_id, HResult::from_bits(error.code()), &error.to_string()),
    }
}

fn failure(activity_id: &str, result: HResult, message: &str) -> Vec<u8> {
    let response: Response<Empty> = Response::failure(activity_id, result, head(message, MESSAGE_BYTES));
    response.to_body()
}

/// The first `limit` bytes of `text` at most, cut between characters.
pub(super) fn head(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Shortens a text to half.
pub(super) fn halve(text: &mut String) -> bool {
    let half = head(text, text.len() / 2).len();
    let shorter = half < text.len();
    text.truncate(half);
    shorter
}

#[cfg(test)]
mod tests {
    use cofferdam_protocol::message::DumpStacksReply;

    use super::*;
    use crate::error::AgentError;

    #[test]
    fn an_answer_is_shrunk_until_it_fits() {
        let payload = DumpStacksReply {
            guest_stacks: "\u{1}é".repeat(100_000),
        };
        let body = body("a", Ok(payload), |reply| halve(&mut reply.guest_stacks));
        assert!(
            body.len() <= BODY_BYTES && body.len() > BODY_BYTES / 4,
            "{}",
            body.len()
        );
        let back: Response<DumpStacksReply> = Response::from_body(&body).unwrap();
        assert!(back.base.result.is_ok());
    }

    #[test]
    fn an_answer_that_cannot_shrink_becomes_an_error() {
        let payload = DumpStacksReply {
            guest_stacks: "x".repeat(70_000),
        };
        let body = body("a", Ok(payload), |_| false);
        let back: Response<Empty> = Response::from_body(&body).unwrap();
        assert_eq!(back.base.result, HResult::FAIL);
        assert!(back.base.error_message.contains("larger than a frame"));
    }

    #[test]
    fn the_longest_error_fits_whatever_it_holds() {
        let error = AgentError::Invalid("\u{1}".repeat(1 << 20));
        let body = body::<Empty>(&"\u{1}".repeat(ACTIVITY_BYTES), Err(error), |_| false);
        assert!(body.len() <= BODY_BYTES, "{}", body.len());
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(head("aé", 2), "a");
        assert_eq!(head("aé", 9), "aé");
        let mut text = "é".to_owned();
        assert!(halve(&mut text));
        assert!(!halve(&mut text));
    }
}
