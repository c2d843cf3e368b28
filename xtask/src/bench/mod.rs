//! `cargo xtask bench`: what planning, hot-plugging and booting cost. Slow, and as busy a machine as the figures are
//! worth; no check depends on it.
//!
//! * plan: pure decisions, measured by criterion (`crates/explain/benches/plan.rs`);
//! * hotplug: disks and shares of a running VM (`crates/container/benches/hotplug.rs`);
//! * boot: from QEMU's start to the agent's first message, with each kernel (`crates/container/benches/boot.rs`);
//! * layers: from an archive to a disk, against other tools ([`layers`]).

mod estimates;
mod layers;
mod table;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::{
    boot::{self, BootFiles},
    layers as test_layers, progress,
    progress::Step,
    setup,
    tool::Tool,
    workspace,
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Planning, reserving and explaining 10 to 10,000 mounts; reserving 1 to 256 disks
    Plan,
    /// Disks and shares added to a running VM: one, 16 in a row, 16 at once
    Hotplug,
    /// QEMU's start to the agent's first message, with each kernel
    Boot,
    /// A Debian root made into layers, against cp, mke2fs and mkfs.erofs; fails if a layer costs more than it may
    Layers,
}

const ALL: [Bench; 4] = [Bench::Plan, Bench::Hotplug, Bench::Boot, Bench::Layers];

/// How the figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables
    Table,
    /// One JSON object: a member for each benchmark, an array of its lines
    Json,
}

/// One line of figures, by the names of their columns. `what` comes first.
type Line = Map<String, Value>;

/// Runs one benchmark or all, and prints the figures.
pub(crate) fn run(only: Option<Bench>, format: Format) -> Result<()> {
    let mut results = Map::new();
    for bench in ALL
        .into_iter()
        .filter(|&bench| only.is_none_or(|only| only == bench))
    {
        let lines = match bench {
            Bench::Plan => plan()?,
            Bench::Hotplug => hotplug()?,
            Bench::Boot => boots()?,
            Bench::Layers => layers::measure()?,
        };
        let name = format!("{bench:?}").to_lowercase();
        if format == Format::Table {
            progress::heading(format!("\n{name}"));
            print!("{}", table::render(&lines));
        }
        results.insert(name, lines.into_iter().map(Value::Object).collect());
    }
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    Ok(())
}

fn plan() -> Result<Vec<Line>> {
    // Emptied first: what an earlier run has left must not pass for this one's.
    let home = workspace::target().join("xtask-bench");
    workspace::remove_dir(&home)?;
    let tool = cargo_bench("cofferdam-explain", "plan").env("CRITERION_HOME", &home);
    measure("Measuring plan", tool)?;
    estimates::read(&home)
}

fn hotplug() -> Result<Vec<Line>> {
    let made = prepared()?;
    let files = made.iter().find(|files| files.name == "small").or(made.first());
    in_vm("hotplug", files.context("there is no kernel to boot")?)
}

fn boots() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for files in prepared()? {
        lines.extend(in_vm("boot", &files)?);
    }
    Ok(lines)
}

fn prepared() -> Result<Vec<BootFiles>> {
    setup::run(false)?;
    boot::prepare(false)
}

/// Runs a benchmark that prints its lines as JSON, in VMs with one kernel.
fn in_vm(bench: &str, files: &BootFiles) -> Result<Vec<Line>> {
    let layers = test_layers::obtain(false)?;
    let tool = cargo_bench("cofferdam-container", bench)
        .env("COFFERDAM_BOOT_DIR", files.dir())
        .env("COFFERDAM_TEST_LAYERS", &layers.dir);
    let mut lines = measure(&format!("Measuring {bench} with the {} kernel", files.name), tool)?;
    if lines.is_empty() {
        bail!("the benchmark {bench} printed no figures");
    }
    for line in &mut lines {
        let what = line.get("what").and_then(Value::as_str).unwrap_or_default();
        let what = format!("{} kernel: {what}", files.name);
        line.insert("what".to_owned(), Value::String(what));
    }
    Ok(lines)
}

fn cargo_bench(package: &str, bench: &str) -> Tool {
    Tool::cargo()
        .args(["bench", "--locked", "--package", package, "--bench", bench])
        .env("CARGO_TERM_COLOR", "never")
        .log(&format!("bench-{bench}"))
}

/// Runs it, and returns what of its output are lines of figures.
fn measure(label: &str, tool: Tool) -> Result<Vec<Line>> {
    let step = Step::start(label);
    let mut lines = Vec::new();
    tool.run_lines(|line| match figures(line) {
        Some(figures) => lines.push(figures),
        None => step.at(line.trim()),
    })?;
    step.done("");
    Ok(lines)
}

fn figures(line: &str) -> Option<Line> {
    let line: Line = serde_json::from_str(line).ok()?;
    line.contains_key("what").then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_that_say_what_they_are_count_as_figures() {
        assert!(figures(r#"{"what": "add a disk", "one, ms": 3.5}"#).is_some());
        for other in ["", "   Compiling x", "{}", "7", r#"{"reason": "x"}"#] {
            assert!(figures(other).is_none(), "{other}");
        }
    }
}
