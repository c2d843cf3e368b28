//! Which events are wanted.

use anyhow::{Context as _, Result, bail};
use cofferdam_observe::{Told, types};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{args::EventsArgs, moment::moment};

/// What is shown.
#[derive(Debug)]
pub(super) struct Wishes {
    /// Not what happened before.
    since: OffsetDateTime,
    /// Any of these types; all if there is none.
    types: Vec<String>,
    /// Any of these containers or owners; all if there is none.
    ids: Vec<String>,
}

impl Wishes {
    /// What the command line asks for, at this moment.
    pub(super) fn of(args: &EventsArgs, now: OffsetDateTime) -> Result<Self> {
        let since = match &args.since {
            None => now,
            Some(text) => moment(text, now).with_context(|| format!("--since {text}"))?,
        };
        let types = args.filters.iter().map(|filter| type_of(filter));
        Ok(Self {
            since,
            types: types.collect::<Result<_>>()?,
            ids: args.ids.clone(),
        })
    }

    /// Whether this event of this owner is wanted.
    pub(super) fn want(&self, owner: &str, told: &Told) -> bool {
        let of = |id: &String| *id == told.id || id == owner;
        (self.ids.is_empty() || self.ids.iter().any(of))
            && (self.types.is_empty() || self.types.contains(&told.kind))
            && at(told).is_none_or(|at| at >= self.since)
    }
}

/// When it was told; `None` where that cannot be understood.
pub(super) fn at(told: &Told) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&told.time, &Rfc3339).ok()
}

fn type_of(filter: &str) -> Result<String> {
    let Some(("type", kind)) = filter.split_once('=') else {
        bail!("--filter {filter}: it is type=TYPE");
    };
    if !types::ALL.contains(&kind) {
        bail!("--filter {filter}: a type is one of {}", types::ALL.join(", "));
    }
    Ok(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    const NOW: i64 = 1_700_000_000;

    fn wishes(since: Option<&str>, filters: &[&str], ids: &[&str]) -> Result<Wishes> {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let args = EventsArgs {
            format: Format::Json,
            since: since.map(str::to_owned),
            filters: owned(filters),
            ids: owned(ids),
        };
        Wishes::of(&args, OffsetDateTime::from_unix_timestamp(NOW).unwrap())
    }

    fn told(kind: &str, id: &str, second: i64) -> Told {
        let at = OffsetDateTime::from_unix_timestamp(second).unwrap();
        Told {
            time: at.format(&Rfc3339).unwrap(),
            kind: kind.to_owned(),
            id: id.to_owned(),
            exec: None,
            attributes: serde_json::Map::new(),
        }
    }

    #[test]
    fn a_time_is_said_as_such_as_seconds_or_as_a_duration() {
        let since = |text| wishes(Some(text), &[], &[]).unwrap().since.unix_timestamp() - NOW;
        assert_eq!(since("2023-11-14T22:13:19Z"), -1);
        assert_eq!(since("2023-11-15T00:13:19+02:00"), -1);
        assert_eq!(since("1700000007"), 7);
        assert_eq!(since("1d2h3m4s"), -(86400 + 7200 + 180 + 4));
        assert_eq!(wishes(None, &[], &[]).unwrap().since.unix_timestamp(), NOW);
        for wrong in [
            "",
            "yesterday",
            "10",
            "m",
            "10m5",
            "-5m",
            "1w",
            "99999999999999999999d",
            "2023-11-14",
        ] {
            // A bare number is a time, too.
            let refused = wishes(Some(wrong), &[], &[]);
            assert_eq!(refused.is_err(), wrong != "10", "{wrong}");
        }
    }

    #[test]
    fn what_is_wanted_is_of_any_of_the_types_and_any_of_the_names() {
        let all = wishes(None, &[], &[]).unwrap();
        assert!(
            all.want("pod", &told("exit", "web", NOW)) && !all.want("pod", &told("exit", "web", NOW - 1))
        );
        let some = wishes(None, &["type=exit", "type=oom"], &["web", "pod"]).unwrap();
        assert!(some.want("other", &told("exit", "web", NOW)));
        assert!(some.want("pod", &told("oom", "db", NOW)));
        assert!(!some.want("other", &told("exit", "db", NOW)));
        assert!(!some.want("pod", &told("start", "web", NOW)));
        for wrong in ["type=explosion", "exit", "name=web"] {
            assert!(wishes(None, &[wrong], &[]).is_err(), "{wrong}");
        }
    }
}
