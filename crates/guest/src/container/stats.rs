//! A container's resource use, in the cgroup v1 shape hosts expect (GCS bridge protocol §6, GetProperties).

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

/// What cgroup v1 writes for "no limit": the largest multiple of a page.
const UNLIMITED: u64 = 0x7FFF_FFFF_FFFF_F000;

/// Most block devices with figures in one answer: an answer has 64 KiB (GCS bridge protocol §13.3), and a VM may have
/// 256 disks.
const MAX_DEVICES: usize = 64;

/// Reads the cgroup at `cgroup`. What cannot be read is left out.
pub(crate) fn read(cgroup: &Path) -> Value {
    let number = |file: &str| match fs::read_to_string(cgroup.join(file)).ok()?.trim() {
        "max" => Some(UNLIMITED),
        text => text.parse::<u64>().ok(),
    };
    let mut metrics = Map::new();
    if let Some(current) = number("pids.current") {
        let limit = number("pids.max")
            .filter(|limit| *limit != UNLIMITED)
            .unwrap_or(0);
        metrics.insert("pids".into(), json!({"current": current, "limit": limit}));
    }
    let cpu = table(&cgroup.join("cpu.stat"));
    if !cpu.is_empty() {
        let get = |name: &str| number_of(&cpu, name);
        metrics.insert(
            "cpu".into(),
            json!({
                // v2 counts microseconds, v1 nanoseconds.
                "usage": {
                    "total": get("usage_usec").saturating_mul(1000),
                    "kernel": get("system_usec").saturating_mul(1000),
                    "user": get("user_usec").saturating_mul(1000),
                },
                "throttling": {
                    "periods": get("nr_periods"),
                    "throttled_periods": get("nr_throttled"),
                    "throttled_time": get("throttled_usec").saturating_mul(1000),
                },
            }),
        );
    }
    if let Some(usage) = number("memory.current") {
        metrics.insert("memory".into(), memory(cgroup, usage, number));
    }
    let events = table(&cgroup.join("memory.events"));
    if !events.is_empty() {
        let kills = number_of(&events, "oom_kill");
        metrics.insert("memory_oom_control".into(), json!({"oom_kill": kills}));
    }
    if let Ok(text) = fs::read_to_string(cgroup.join("io.stat")) {
        metrics.insert("blkio".into(), blkio(&text));
    }
    Value::Object(metrics)
}

/// The lines of `io.stat`, one a device, by what they count: bytes, and requests.
fn blkio(text: &str) -> Value {
    let (mut bytes, mut requests) = (Vec::new(), Vec::new());
    let mut omitted = 0_u64;
    let mut devices = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else {
            continue;
        };
        let figures: Vec<(&str, u64)> = words
            .filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name, value.parse().ok().filter(|value| *value > 0)?))
            })
            .collect();
        if figures.is_empty() {
            continue;
        }
        if devices == MAX_DEVICES {
            omitted += 1;
            continue;
        }
        devices += 1;
        for (name, value) in figures {
            let (list, op) = match name {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut requests, "Read"),
                "wios" => (&mut requests, "Write"),
                "dios" => (&mut requests, "Discard"),
                _ => continue,
            };
            list.push(json!({"op": op, "major": major, "minor": minor, "value": value}));
        }
    }
    let mut blkio = Map::new();
    blkio.insert("io_service_bytes_recursive".into(), bytes.into());
    blkio.insert("io_serviced_recursive".into(), requests.into());
    if omitted > 0 {
        blkio.insert("devices_omitted".into(), omitted.into());
    }
    Value::Object(blkio)
}

/// `major:minor`.
fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn memory(cgroup: &Path, usage: u64, number: impl Fn(&str) -> Option<u64>) -> Value {
    let stat = table(&cgroup.join("memory.stat"));
    let get = |name: &str| number_of(&stat, name);
    let events = table(&cgroup.join("memory.events"));
    json!({
        "cache": get("file"),
        "rss": get("anon"),
        "rss_huge": get("anon_thp"),
        "mapped_file": get("file_mapped"),
        "dirty": get("file_dirty"),
        "writeback": get("file_writeback"),
        "pg_fault": get("pgfault"),
        "pg_maj_fault": get("pgmajfault"),
        "inactive_anon": get("inactive_anon"),
        "active_anon": get("active_anon"),
        "inactive_file": get("inactive_file"),
        "active_file": get("active_file"),
        "unevictable": get("unevictable"),
        "usage": {
            "usage": usage,
            "max": number("memory.peak").unwrap_or(usage),
            "limit": number("memory.max").unwrap_or(UNLIMITED),
            "failcnt": number_of(&events, "max"),
        },
        "swap": {
            "usage": number("memory.swap.current").unwrap_or(0),
            "limit": number("memory.swap.max").unwrap_or(0),
        },
    })
}

/// Pids of all processes in the cgroup and below it.
pub(crate) fn pids(cgroup: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(self::pids(&entry.path()));
        }
    }
    pids
}

fn table(file: &Path) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .filter_map(line)
        .collect()
}

fn number_of(table: &[(String, u64)], name: &str) -> u64 {
    table
        .iter()
        .find(|(have, _)| have == name)
        .map_or(0, |(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_files_become_version_1_members() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1024\nfile 2048\n"),
            ("memory.events", "low 0\nmax 9\noom_kill 2\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let metrics = read(dir.path());
        assert_eq!(metrics["pids"], json!({"current": 3, "limit": 0}));
        assert_eq!(
            metrics["cpu"]["usage"],
            json!({"total": 7000, "kernel": 2000, "user": 5000})
        );
        assert_eq!(metrics["memory"]["rss"], 1024);
        assert_eq!(metrics["memory_oom_control"], json!({"oom_kill": 2}));
        assert!(metrics.get("blkio").is_none(), "a kernel that does not count it");
        assert_eq!(
            metrics["memory"]["usage"],
            json!({"usage": 4096, "max": 4096, "limit": UNLIMITED, "failcnt": 9})
        );
    }

    #[test]
    fn block_devices_are_listed_by_what_was_read_and_written_and_idle_ones_are_not() {
        let text = "8:0 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=4096 dios=2 cost.usage=9\n\
                    259:1 rbytes=0 wbytes=0 rios=0 wios=0 dbytes=0 dios=0\n(unknown) rbytes=3\n";
        let figure = |op, value| json!({"op": op, "major": 8, "minor": 0, "value": value});
        assert_eq!(
            blkio(text),
            json!({
                "io_service_bytes_recursive": [figure("Read", 512), figure("Discard", 4096)],
                "io_serviced_recursive": [figure("Read", 1), figure("Discard", 2)],
            })
        );
    }

    #[test]
    fn figures_of_more_devices_than_an_answer_holds_are_left_out_and_counted() {
        let most = u64::MAX;
        let text: String = (0..256)
            .map(|minor| {
                format!(
                    "4095:{} rbytes={most} wbytes={most} rios={most} wios={most} dbytes={most} dios={most}\n",
                    1_048_000 + minor
                )
            })
            .collect();
        let blkio = blkio(&text);
        assert_eq!(blkio["devices_omitted"], 256 - MAX_DEVICES);
        // As a text in a text: each quotation mark takes two bytes.
        let answer =
            json!({ "Properties": json!({"LCOWMetrics": {"blkio": blkio}}).to_string() }).to_string();
        assert!(answer.len() < 60 << 10, "{}", answer.len());
    }

    #[test]
    fn processes_of_inner_cgroups_are_listed_and_a_missing_cgroup_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "1\n2\n").unwrap();
        fs::write(dir.path().join("inner/cgroup.procs"), "7\n").unwrap();
        assert_eq!(pids(dir.path()), [1, 2, 7]);
        assert!(pids(&dir.path().join("absent")).is_empty());
        assert_eq!(read(&dir.path().join("absent")), json!({}));
    }
}
