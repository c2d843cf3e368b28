//! Result codes of replies (GCS bridge protocol §4).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A Windows result code as the protocol carries it: a signed 32-bit number, 0 for success.
///
/// It is written as a signed decimal. Some peers send the same bits as an unsigned number; both are read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HResult(pub i32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $bits:literal, $word:literal;)*) => {
        impl HResult {
            $($(#[$doc])* pub const $name: Self = Self::from_bits($bits);)*

            /// What the code means, in a few words; `None` for a code the protocol does not name.
            pub fn word(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($word),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Success.
    OK = 0, "success";
    /// The message, its type or its version is not implemented.
    NOT_IMPLEMENTED = 0x8000_4001, "not implemented";
    /// The default where no code fits better.
    FAIL = 0x8000_4005, "unspecified failure";
    /// No such process, or no such network namespace.
    NOT_FOUND = 0x8007_0490, "element not found";
    /// An argument is out of its range, or two exclude each other.
    INVALID_ARGUMENT = 0x8007_0057, "invalid argument";
    /// `WaitForProcess` reached its timeout.
    TIMEOUT = 0xC037_0109, "operation timed out";
    /// A message nobody knows.
    UNKNOWN_MESSAGE = 0xC037_010B, "unknown message";
    /// The two sides have no protocol version in common.
    UNSUPPORTED_PROTOCOL_VERSION = 0xC037_010C, "unsupported protocol version";
    /// The body is not the JSON it should be, or its schema version is below 2.1.
    INVALID_JSON = 0xC037_010D, "invalid JSON document";
    /// No container has this id.
    CONTAINER_NOT_FOUND = 0xC037_010E, "no such container";
    /// A container with this id exists already.
    CONTAINER_EXISTS = 0xC037_010F, "container exists already";
    /// The container has stopped already.
    ALREADY_STOPPED = 0xC037_0110, "container has stopped already";
    /// Not possible in the container's present state, for example while it is still being created.
    INVALID_STATE = 0x8037_0105, "not possible in the present state";
}

impl HResult {
    /// The code with these bits, as Windows writes it in hexadecimal.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits as i32)
    }

    /// The code's bits.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Whether this is success (only 0 is; the protocol knows no other success codes).
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for HResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08X}", self.bits())?;
        match self.word() {
            Some(word) => write!(f, " ({word})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for HResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HResult({self})")
    }
}

impl Serialize for HResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(self.0)
    }
}

impl<'de> Deserialize<'de> for HResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        if let Ok(signed) = i32::try_from(number) {
            Ok(Self(signed))
        } else if let Ok(bits) = u32::try_from(number) {
            Ok(Self::from_bits(bits))
        } else {
            Err(de::Error::custom(format!(
                "result code {number} does not fit 32 bits"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_signed_values_of_the_protocol() {
        for (code, signed) in [
            (HResult::NOT_IMPLEMENTED, -2147467263),
            (HResult::FAIL, -2147467259),
            (HResult::NOT_FOUND, -2147023728),
            (HResult::INVALID_ARGUMENT, -2147024809),
            (HResult::TIMEOUT, -1070137079),
            (HResult::UNKNOWN_MESSAGE, -1070137077),
            (HResult::UNSUPPORTED_PROTOCOL_VERSION, -1070137076),
            (HResult::INVALID_JSON, -1070137075),
            (HResult::CONTAINER_NOT_FOUND, -1070137074),
            (HResult::CONTAINER_EXISTS, -1070137073),
            (HResult::ALREADY_STOPPED, -1070137072),
            (HResult::INVALID_STATE, -2143878907),
        ] {
            assert_eq!(code.0, signed, "{code}");
            assert_eq!(serde_json::to_string(&code).unwrap(), signed.to_string());
        }
    }

    #[test]
    fn an_unsigned_or_signed_number_is_the_same_code() {
        let signed: HResult = serde_json::from_str("-1070137074").unwrap();
        let unsigned: HResult = serde_json::from_str("3224830222").unwrap();
        assert_eq!(signed, HResult::CONTAINER_NOT_FOUND);
        assert_eq!(unsigned, HResult::CONTAINER_NOT_FOUND);
        assert!(serde_json::from_str::<HResult>("4294967296").is_err());
        assert!(serde_json::from_str::<HResult>("-2147483649").is_err());
    }

    #[test]
    fn a_code_prints_its_bits_and_its_meaning() {
        assert_eq!(HResult::NOT_FOUND.to_string(), "0x80070490 (element not found)");
        assert_eq!(HResult(1).to_string(), "0x00000001");
    }
}
