//! What the guest agent logs, as it arrives on its own port: JSON objects, one a line, and whatever a crash leaves
//! behind (GCS bridge protocol §1, port 109).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use cofferdam_backend::BoxStream;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// Longest line kept, in bytes; the guest is not trusted to end one.
const MAX_LINE_BYTES: u64 = 16 << 10;
/// Lines kept for error messages.
const KEPT_LINES: usize = 50;

/// The last lines the agent logged. Cheap to clone; clones share the lines.
#[derive(Debug, Clone, Default)]
pub struct GuestLog {
    lines: Arc<Mutex<VecDeque<String>>>,
}

/// The members of a log object that have a meaning of their own; the others are shown as they are.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
    #[serde(flatten)]
    fields: serde_json::Map<String, serde_json::Value>,
}

impl GuestLog {
    /// The last lines, oldest first.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Reads a log stream to its end.
    pub(crate) async fn follow(self, stream: BoxStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match (&mut reader)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)
                .await
            {
                Ok(0) | Err(_) => return,
                Ok(_) => self.keep(String::from_utf8_lossy(&line).trim_end()),
            }
        }
    }

    fn keep(&self, line: &str) {
        if line.is_empty() {
            return;
        }
        let shown = match serde_json::from_str::<Entry>(line) {
            Ok(entry) => entry.announce(),
            Err(_) => {
                tracing::warn!(target: "guest", "{line}");
                line.to_owned()
            }
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(shown);
    }
}

impl Entry {
    /// Passes the entry on to this process's log at its own level, and returns it as one line.
    fn announce(mut self) -> String {
        self.fields.remove("time");
        let mut text = self.msg;
        for (name, value) in &self.fields {
            text.push_str(&format!(" {name}={value}"));
        }
        match self.level.as_str() {
            "panic" | "fatal" | "error" => tracing::error!(target: "guest", "{text}"),
            "warning" | "warn" => tracing::warn!(target: "guest", "{text}"),
            "info" => tracing::info!(target: "guest", "{text}"),
            "debug" => tracing::debug!(target: "guest", "{text}"),
            _ => tracing::trace!(target: "guest", "{text}"),
        }
        format!(
            "{}: {text}",
            if self.level.is_empty() { "log" } else { &self.level }
        )
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn logged(bytes: Vec<u8>) -> Vec<String> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let log = GuestLog::default();
        let following = tokio::spawn(log.clone().follow(Box::new(ours)));
        theirs.write_all(&bytes).await.unwrap();
        drop(theirs);
        following.await.unwrap();
        log.tail()
    }

    #[tokio::test]
    async fn objects_and_crash_text_are_both_kept() {
        let text =
            b"{\"time\":\"t\",\"level\":\"info\",\"msg\":\"mounted\",\"path\":\"/run\"}\nthread panicked\n"
                .to_vec();
        assert_eq!(
            logged(text).await,
            ["info: mounted path=\"/run\"", "thread panicked"]
        );
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_old_lines_give_way() {
        let endless = logged(vec![b'x'; 3 * MAX_LINE_BYTES as usize]).await;
        assert!(
            endless.iter().all(|line| line.len() <= MAX_LINE_BYTES as usize),
            "{}",
            endless.len()
        );
        let many: String = (0..200).map(|n| format!("line {n}\n")).collect();
        let kept = logged(many.into_bytes()).await;
        assert_eq!((kept.len(), kept[0].as_str()), (KEPT_LINES, "line 150"));
    }
}
