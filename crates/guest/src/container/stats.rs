//! A container's resource use, in the cgroup v1 shape hosts expect (GCS bridge protocol §6, GetProperties).

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

/// What cgroup v1 writes for "no limit": the largest multiple of a page.
const UNLIMITED: u64 = 0x7FFF_FFFF_FFFF_F000;

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
    Value::Object(metrics)
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
            ("memory.events", "low 0\nmax 9\n"),
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
        assert_eq!(
            metrics["memory"]["usage"],
            json!({"usage": 4096, "max": 4096, "limit": UNLIMITED, "failcnt": 9})
        );
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
