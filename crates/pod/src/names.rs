//! What containers and further processes may be called.

use crate::PodError;

/// Longest name: what the guest takes.
const NAME_BYTES: usize = 128;

/// How much of a name that is refused is shown.
const SHOWN_CHARS: usize = 64;

/// Refuses a name that could be mistaken for something else in a path, a log or a message. containerd itself allows less.
pub(crate) fn check(what: &'static str, name: &str) -> Result<(), PodError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+');
    if (1..=NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed) {
        return Ok(());
    }
    let shown: String = name.chars().take(SHOWN_CHARS).collect();
    let more = if shown.len() < name.len() { "…" } else { "" };
    Err(PodError::Name {
        what,
        // Escaped: it may hold anything.
        name: format!("{shown:?}{more}"),
        most: NAME_BYTES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_paths_and_logs_take_as_they_are() {
        for name in ["c", "A-1_b.c+d", &"x".repeat(NAME_BYTES)] {
            check("container", name).unwrap();
        }
        for name in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a b",
            "a\nb",
            "a\0",
            "ü",
            &"x".repeat(NAME_BYTES + 1),
        ] {
            let refused = check("container", name).unwrap_err().to_string();
            assert!(
                refused.starts_with("a container cannot be called \""),
                "{refused}"
            );
            assert!(refused.len() < 250 && !refused.contains('\n'), "{refused}");
        }
    }
}
