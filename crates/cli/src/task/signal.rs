//! Signals by name or number.

use anyhow::{Context as _, Result};

/// Linux's, as on x86-64 and ARM.
const NAMES: [(&str, u32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// The last real-time signal.
const LAST: u32 = 64;

/// The number of `TERM`, `SIGTERM`, `term` or `15`.
pub(crate) fn number(text: &str) -> Result<u32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = NAMES.iter().find(|(known, _)| *known == name);
    named
        .map(|(_, number)| *number)
        .or_else(|| text.parse().ok().filter(|number| (1..=LAST).contains(number)))
        .with_context(|| format!("{text} is no signal: it is a name such as TERM, or a number up to {LAST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_each_of_its_names_and_by_its_number() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(number(text).unwrap(), 15, "{text}");
        }
        assert_eq!(number("64").unwrap(), 64);
        for text in ["", "SIG", "0", "65", "-9", "TERMINATE"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
