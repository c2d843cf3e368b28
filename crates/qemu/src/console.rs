//! The last lines of an endless text: the guest's console, and QEMU's standard error.
//!
//! Both are hostile: bounded, and without control characters that a terminal would obey.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Lines kept.
const MAX_LINES: usize = 200;
/// Bytes of a line; longer ones are broken.
const MAX_LINE_BYTES: usize = 1024;

/// The end of a text, filled from one side and read from the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    shared: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    complete: VecDeque<String>,
    partial: Vec<u8>,
}

impl Tail {
    /// Takes in what was read; calls `each` for every line that is complete with it.
    pub(crate) fn push(&self, bytes: &[u8], mut each: impl FnMut(&str)) {
        let mut lines = self.lines();
        for byte in bytes {
            if *byte != b'\n' {
                lines.partial.push(*byte);
            }
            if *byte == b'\n' || lines.partial.len() >= MAX_LINE_BYTES {
                let line = printable(&std::mem::take(&mut lines.partial));
                each(&line);
                if lines.complete.len() == MAX_LINES {
                    lines.complete.pop_front();
                }
                lines.complete.push_back(line);
            }
        }
    }

    /// The lines, oldest first; the last one may be incomplete. Empty lines are left out.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let lines = self.lines();
        let partial = printable(&lines.partial);
        lines
            .complete
            .iter()
            .cloned()
            .chain([partial])
            .filter(|line| !line.trim().is_empty())
            .collect()
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        // A panic in `each` leaves at worst one line out.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn printable(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).trim_end_matches('\r').chars() {
        match character {
            '\t' => line.push_str("    "),
            '\r' => {}
            character if character.is_control() => line.extend(character.escape_default()),
            character => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(bytes: &[u8]) -> Vec<String> {
        let tail = Tail::default();
        tail.push(bytes, |_| {});
        tail.snapshot()
    }

    #[test]
    fn last_line_counts_even_without_an_end() {
        assert_eq!(tail(b"one\r\n\r\ntwo"), ["one", "two"]);
    }

    #[test]
    fn endless_text_keeps_only_its_end() {
        let text: String = (0..1000).map(|line| format!("{line}\n")).collect();
        let kept = tail(text.as_bytes());
        assert_eq!(
            (kept.len(), kept.last().map(String::as_str)),
            (MAX_LINES, Some("999"))
        );
        let endless = tail(&vec![b'x'; 4 << 20]);
        assert!(endless.len() <= MAX_LINES + 1 && endless.iter().all(|line| line.len() <= MAX_LINE_BYTES));
    }

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(tail(b"\x1b[2Jhi\n"), ["\\u{1b}[2Jhi"]);
    }
}
