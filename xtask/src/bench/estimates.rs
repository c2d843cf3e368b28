//! What criterion leaves on disk, as lines of figures.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::Line;

/// `benchmark.json`, so far as it is read.
#[derive(Debug, Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: String,
    throughput: Throughput,
}

#[derive(Debug, Deserialize)]
enum Throughput {
    Elements(u64),
}

/// `estimates.json`, so far as it is read: nanoseconds.
#[derive(Debug, Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Debug, Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The medians below a directory of criterion's, by group, function and number of elements.
pub(super) fn read(home: &Path) -> Result<Vec<Line>> {
    let mut medians: BTreeMap<(String, String), BTreeMap<u64, f64>> = BTreeMap::new();
    for directory in measured(home)? {
        let benchmark: Benchmark = parsed(&directory.join("benchmark.json"))?;
        let estimates: Estimates = parsed(&directory.join("estimates.json"))?;
        let Throughput::Elements(count) = benchmark.throughput;
        let function = (benchmark.group_id, benchmark.function_id);
        let of_function = medians.entry(function).or_default();
        of_function.insert(count, estimates.median.point_estimate / 1e3);
    }
    if medians.is_empty() {
        bail!("criterion has left no figures in {}", home.display());
    }
    Ok(medians
        .iter()
        .flat_map(|((group, function), times)| lines(group, function, times))
        .collect())
}

/// One line for each number of elements. The growth factor says how time grows against the number: 1 is linear.
fn lines(group: &str, function: &str, times: &BTreeMap<u64, f64>) -> Vec<Line> {
    let mut before: Option<(u64, f64)> = None;
    let mut lines = Vec::new();
    for (&count, &micros) in times {
        let growth = before.map(|(fewer, less)| (micros / less) / (count as f64 / fewer as f64));
        let line = json!({
            "what": format!("{function}, {group}"),
            "count": count,
            "all, µs": micros,
            "each, µs": micros / count as f64,
            "growth": growth,
        });
        lines.extend(line.as_object().cloned());
        before = Some((count, micros));
    }
    lines
}

/// The directories named `new`, where criterion puts the last measurement.
fn measured(home: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        let reading = || format!("could not read {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            if !path.is_dir() {
                continue;
            }
            if path.join("estimates.json").is_file() && path.ends_with("new") {
                found.push(path);
            } else {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

fn parsed<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what criterion writes", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(home: &Path, count: u64, nanoseconds: f64) -> Result<()> {
        let dir = home.join(format!("disks/reserve/{count}/new"));
        fs::create_dir_all(&dir)?;
        let benchmark =
            json!({"group_id": "disks", "function_id": "reserve", "throughput": {"Elements": count}});
        fs::write(dir.join("benchmark.json"), benchmark.to_string())?;
        let estimates = json!({"median": {"point_estimate": nanoseconds}, "mean": {}});
        fs::write(dir.join("estimates.json"), estimates.to_string())?;
        Ok(())
    }

    #[test]
    fn growth_is_against_the_number_before_and_one_where_it_is_linear() -> Result<()> {
        let home = tempfile::tempdir()?;
        for (count, nanoseconds) in [(100, 50_000.0), (1, 500.0), (10, 5_000.0), (1_000, 5_000_000.0)] {
            measurement(home.path(), count, nanoseconds)?;
        }
        let lines = read(home.path())?;
        let growth: Vec<_> = lines.iter().map(|line| line["growth"].as_f64()).collect();
        assert_eq!(growth, [None, Some(1.0), Some(1.0), Some(10.0)]);
        assert_eq!(lines[0]["what"], "reserve, disks");
        assert_eq!(lines[3]["each, µs"], 5.0);
        Ok(())
    }

    #[test]
    fn no_figures_at_all_are_an_error() -> Result<()> {
        let home = tempfile::tempdir()?;
        assert!(read(home.path()).is_err());
        Ok(())
    }
}
