//! Moments as the command line says them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Units of a duration, in seconds.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];

/// A time of RFC 3339, seconds since 1970, or how long ago.
pub(crate) fn moment(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(moment);
    }
    let moment = match text.parse() {
        Ok(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        Err(_) => duration(text).and_then(|ago| now.checked_sub(ago.try_into().ok()?)),
    };
    moment.context(
        "it is a time such as 2026-01-31T12:00:00Z, seconds since 1970, or a duration such as 10m or 2h30m",
    )
}

fn duration(text: &str) -> Option<Duration> {
    let (mut all, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        all = all.checked_add(Duration::from_secs(number.checked_mul(*seconds)?))?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then_some(all)
}

/// How long ago, in the largest unit that is at least one.
pub(crate) fn age(since: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(since, |now| now.as_secs());
    let seconds = now.saturating_sub(since);
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}
