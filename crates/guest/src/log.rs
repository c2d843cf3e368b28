//! The agent's log: JSON lines (`time`, `level`, `msg`, fields) to the host, or to the console until it listens.
//!
//! A host that does not read must not stop the agent: lines that the stream will not take at once wait in a
//! bounded buffer, and when that is full they are dropped and counted.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    os::fd::OwnedFd,
    sync::{Mutex, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::net::{SendFlags, send};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// Most bytes that wait for the host.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest line; a longer one loses its tail.
const LINE_BYTES: usize = 8 * 1024;

static SINK: OnceLock<Mutex<Sink>> = OnceLock::new();

/// Where lines go.
struct Sink {
    stream: Option<OwnedFd>,
    /// Bytes the stream has not taken, or that wait for it to open.
    pending: Vec<u8>,
    dropped: u64,
    /// Whether lines are printed on standard error while no stream is open.
    console: bool,
    /// Whether a stream will come: keep lines for it.
    expects_stream: bool,
}

impl Sink {
    fn line(&mut self, line: &[u8]) {
        if self.stream.is_none() && self.console {
            // Nobody is left to tell if the console refuses.
            let _ = std::io::stderr().write_all(line);
        }
        if self.stream.is_none() && !self.expects_stream {
            return;
        }
        if self.pending.len() + line.len() > BUFFER_BYTES {
            self.dropped += 1;
        } else {
            self.pending.extend_from_slice(line);
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(stream) = &self.stream else { return };
        while !self.pending.is_empty() {
            match send(stream, &self.pending, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.pending.drain(..sent);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.stream = None;
                    self.console = true;
                    return;
                }
            }
        }
        if self.dropped > 0 {
            let note = format!(
                "{{\"level\":\"warning\",\"msg\":\"{} log lines were dropped: the host did not read\"}}\n",
                self.dropped
            );
            self.dropped = 0;
            self.pending.extend_from_slice(note.as_bytes());
        }
    }
}

fn sink() -> &'static Mutex<Sink> {
    SINK.get_or_init(|| {
        Mutex::new(Sink {
            stream: None,
            pending: Vec::new(),
            dropped: 0,
            console: true,
            expects_stream: false,
        })
    })
}

/// Starts logging at `level`. `expects_stream`: a stream to the host will be opened with [`use_stream`], so
/// early lines are kept for it.
pub(crate) fn start(level: LevelFilter, expects_stream: bool) {
    sink()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .expects_stream = expects_stream;
    // A second call (tests) keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(JsonLines { level });
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        tracing::error!(panic = %info, "the agent panicked");
    }));
}

/// Sends lines to the host from now on.
pub(crate) fn use_stream(stream: OwnedFd) {
    let mut sink = sink().lock().unwrap_or_else(PoisonError::into_inner);
    sink.stream = Some(stream);
    sink.flush();
}

/// A level by the names the reference's `-loglevel` takes, and tracing's.
pub(crate) fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_lowercase().as_str() {
        "off" => LevelFilter::OFF,
        "panic" | "fatal" | "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

struct JsonLines {
    level: LevelFilter,
}

impl Subscriber for JsonLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Map::new());
        fields
            .0
            .insert("time".into(), timestamp(SystemTime::now()).into());
        fields
            .0
            .insert("level".into(), level_name(*event.metadata().level()).into());
        fields.0.insert("msg".into(), Value::String(String::new()));
        event.record(&mut fields);
        let mut line = serde_json::to_vec(&Value::Object(fields.0)).unwrap_or_default();
        if line.len() > LINE_BYTES {
            let text: String = String::from_utf8_lossy(&line)
                .chars()
                .take(LINE_BYTES / 4)
                .collect();
            line =
                serde_json::to_vec(&serde_json::json!({"level": "warning", "msg": text})).unwrap_or_default();
        }
        line.push(b'\n');
        sink().lock().unwrap_or_else(PoisonError::into_inner).line(&line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Level names as the reference's JSON formatter writes them.
fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" {
            "msg"
        } else {
            field.name()
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.put(field, text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// RFC 3339 in UTC with milliseconds. Written here because a time crate is larger than this function.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days (proleptic Gregorian, era of 400 years starting on 1 March).
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_rfc3339_across_leap_days() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_709_210_096), "2024-02-29T12:34:56.000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000Z");
    }

    #[test]
    fn level_names_of_the_reference_are_understood() {
        assert_eq!(level("Warning"), Some(LevelFilter::WARN));
        assert_eq!(level("fatal"), Some(LevelFilter::ERROR));
        assert_eq!(level("loud"), None);
    }
}
