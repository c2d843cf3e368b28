//! The keys that let go of a container's terminal.

use anyhow::{Result, bail};

/// Keys as bytes, pressed one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`: letters, digits, or `ctrl-` with a letter or one of `@[\]^_`. Nothing means no keys.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            keys.push(match key.as_bytes() {
                [byte] if byte.is_ascii_graphic() => *byte,
                [b'c', b't', b'r', b'l', b'-', byte @ (b'a'..=b'z')] => byte - b'a' + 1,
                [b'c', b't', b'r', b'l', b'-', byte @ (b'@' | b'['..=b'_')] => byte - b'@',
                _ => bail!("`{key}` is no key: it is one letter, or ctrl- and a letter"),
            });
        }
        Ok(Self(keys))
    }

    /// Looks for them in what is typed.
    pub(super) fn watch(self) -> Watch {
        Watch {
            keys: self.0,
            seen: 0,
        }
    }
}

/// What was typed of the keys so far.
pub(super) struct Watch {
    keys: Vec<u8>,
    seen: usize,
}

impl Watch {
    /// What is to be passed on of `typed`, and whether the keys were complete in it.
    pub(super) fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            // A key that does not go on may be a first one.
            if self.keys.get(self.seen) != Some(byte) {
                passed.extend_from_slice(&self.keys[..self.seen]);
                self.seen = 0;
            }
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_letters_and_controls() {
        assert_eq!(
            DetachKeys::parse("ctrl-p,ctrl-q").unwrap(),
            DetachKeys(vec![16, 17])
        );
        assert_eq!(
            DetachKeys::parse("a,ctrl-],ctrl-@").unwrap(),
            DetachKeys(vec![b'a', 29, 0])
        );
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys(Vec::new()));
        for wrong in ["ctrl-", "ctrl-1", "ab", "a,", "ctrl-P", "\u{e4}"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_typed_is_passed_on_but_for_the_keys() {
        let keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        let mut watch = keys.clone().watch();
        assert_eq!(watch.pass(b"ls\r"), (b"ls\r".to_vec(), false));
        assert_eq!(watch.pass(b"\x10"), (Vec::new(), false));
        assert_eq!(watch.pass(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(watch.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(watch.pass(b"\x11more"), (Vec::new(), true));
        let mut none = DetachKeys::parse("").unwrap().watch();
        assert_eq!(none.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
