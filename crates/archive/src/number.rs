//! Numbers: octal and base-256 in headers (POSIX.1-1988 ustar and its GNU extension), decimal in extended headers.

use crate::Time;

/// Why a field's number was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotANumber;

/// A header's numeric field: octal digits among blanks and NULs, or, with the first bit set, a big-endian two's
/// complement number. An empty field is 0.
pub(crate) fn field(bytes: &[u8]) -> Result<i64, NotANumber> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    }
}

/// A field that is octal only: the checksum.
pub(crate) fn octal(bytes: &[u8]) -> Result<i64, NotANumber> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes
        .iter()
        .position(|byte| !is_blank(byte))
        .unwrap_or(bytes.len());
    let rest = &bytes[start..];
    let digits = rest
        .iter()
        .position(|byte| !(b'0'..=b'7').contains(byte))
        .unwrap_or(rest.len());
    // A NUL ends the field, whatever is after it: writers leave the remains of longer numbers there.
    let after = rest[digits..].iter().take_while(|byte| **byte != 0);
    if digits == 0 && !rest.is_empty() || after.clone().any(|byte| *byte != b' ') {
        return Err(NotANumber);
    }
    rest[..digits].iter().try_fold(0_i64, |value, digit| {
        let value = value.checked_mul(8).ok_or(NotANumber)?;
        Ok(value + i64::from(digit - b'0'))
    })
}

fn base_256(bytes: &[u8]) -> Result<i64, NotANumber> {
    // The second bit is the sign; the first only says that this is base 256, so it is the sign's copy from here on.
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
    let mut value = i128::from(first.cast_signed());
    for byte in &bytes[1..] {
        value = value << 8 | i128::from(*byte);
        if i64::try_from(value).is_err() {
            return Err(NotANumber);
        }
    }
    i64::try_from(value).map_err(|_| NotANumber)
}

/// A decimal number of an extended header, possibly negative.
pub(crate) fn decimal(text: &[u8]) -> Result<i64, NotANumber> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotANumber);
    }
    let text = str::from_utf8(text).map_err(|_| NotANumber)?;
    text.parse().map_err(|_| NotANumber)
}

/// A time of an extended header: decimal seconds with any number of decimals, of which nanoseconds are kept (towards
/// the past where more are given before 1970 as well as after).
pub(crate) fn time(text: &[u8]) -> Result<Time, NotANumber> {
    let dot = text.iter().position(|byte| *byte == b'.');
    let (whole, decimals) = match dot {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    if !decimals.iter().all(u8::is_ascii_digit) {
        return Err(NotANumber);
    }
    let seconds = decimal(whole)?;
    let digit = |index: usize| u32::from(decimals.get(index).map_or(0, |digit| digit - b'0'));
    let nanoseconds = (0..9).fold(0, |value, index| value * 10 + digit(index));
    if !whole.starts_with(b"-") {
        return Ok(Time { seconds, nanoseconds });
    }
    // -1.25 is 2 seconds before 1970 and 0.75 after that.
    let cut_off = decimals.iter().skip(9).any(|digit| *digit != b'0');
    let nanoseconds = nanoseconds + u32::from(cut_off);
    if nanoseconds == 0 {
        return Ok(Time { seconds, nanoseconds });
    }
    Ok(Time {
        seconds: seconds.checked_sub(1).ok_or(NotANumber)?,
        nanoseconds: 1_000_000_000 - nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_are_read_as_writers_leave_them() {
        for (text, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0", 0),
            (b"       ", 0),
            (b"", 0),
            (b"77777777777", 0o77_777_777_777),
            (b"12\0\0junk", 0o12),
            (b"12 \0", 0o12),
        ] {
            assert_eq!(field(text), Ok(value), "{text:?}");
        }
        for text in [
            &b"8"[..],
            b"12x",
            b"1 2",
            b"-1",
            b"0x1",
            b"7777777777777777777777777",
        ] {
            assert_eq!(field(text), Err(NotANumber), "{text:?}");
        }
    }

    #[test]
    fn base_256_has_a_sign_and_an_end() {
        let mut bytes = [0xff; 12];
        assert_eq!(field(&bytes), Ok(-1));
        bytes[11] = 0;
        assert_eq!(field(&bytes), Ok(-256));
        let mut bytes = [0; 12];
        bytes[0] = 0x80;
        bytes[7] = 1;
        assert_eq!(field(&bytes), Ok(1 << 32));
        bytes[4] = 0x80;
        assert_eq!(field(&bytes), Err(NotANumber), "2^63");
        bytes[4] = 0x7f;
        assert!(field(&bytes).unwrap() > 0);
        bytes[3] = 1;
        assert_eq!(field(&bytes), Err(NotANumber), "beyond 64 bits");
        // GNU tar's user -2 in a field of 8 bytes.
        assert_eq!(field(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        assert_eq!(
            field(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Ok((1 << 62) - 1)
        );
    }

    #[test]
    fn decimals_are_plain_numbers() {
        assert_eq!(decimal(b"18446744073709551616"), Err(NotANumber));
        assert_eq!(decimal(b"-12"), Ok(-12));
        for text in [&b""[..], b"-", b"+1", b" 1", b"1 ", b"1e3", b"\xff"] {
            assert_eq!(decimal(text), Err(NotANumber), "{text:?}");
        }
    }

    #[test]
    fn times_have_nanoseconds_on_both_sides_of_1970() {
        for (text, seconds, nanoseconds) in [
            (&b"1350244992.023960108"[..], 1_350_244_992, 23_960_108),
            (b"1350244992.02396010899", 1_350_244_992, 23_960_108),
            (b"1350244992", 1_350_244_992, 0),
            (b"1350244992.", 1_350_244_992, 0),
            (b"-1", -1, 0),
            (b"-1.5", -2, 500_000_000),
            (b"-0.5", -1, 500_000_000),
            (b"-0.0000000001", -1, 999_999_999),
            (b"-0", 0, 0),
            (b"0.9999999999", 0, 999_999_999),
        ] {
            assert_eq!(time(text), Ok(Time { seconds, nanoseconds }), "{text:?}");
        }
        for text in [
            &b""[..],
            b".5",
            b"1.-5",
            b"1.5.5",
            b"1.x",
            b"-9223372036854775808.1",
        ] {
            assert_eq!(time(text), Err(NotANumber), "{text:?}");
        }
    }
}
