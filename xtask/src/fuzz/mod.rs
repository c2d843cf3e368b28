//! `cargo xtask fuzz`: hostile input for what reads archives, disks and documents (`fuzz/`), by libFuzzer.
//!
//! The pinned compiler is enough: coverage needs none of the unstable options, a sanitizer does, and the code that is
//! fuzzed has no `unsafe` of its own. What a run finds new is kept in `target/fuzz-corpus` for the next.

mod seeds;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;

use crate::{
    progress::{self, Step},
    setup,
    tool::{self, Tool},
    workspace,
};

/// The version that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";
/// Bounds of one execution.
const TIMEOUT_S: u32 = 20;
const MEMORY_MB: u32 = 512;
/// Inputs longer than this say nothing that shorter ones do not.
const LONGEST_INPUT: u32 = 64 * 1024;

/// What is fuzzed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Tar streams
    Archive,
    /// Compressed archives
    Input,
    /// Layers made of tar streams, ext4 and EROFS
    Layer,
    /// Disk images: VHD, VHDX, qcow2
    Disk,
    /// Image indexes, manifests, configurations, names
    Documents,
}

const ALL: [Target; 5] = [
    Target::Archive,
    Target::Input,
    Target::Layer,
    Target::Disk,
    Target::Documents,
];

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Input => "input",
            Self::Layer => "layer",
            Self::Disk => "disk",
            Self::Documents => "documents",
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ran {
    target: Target,
    /// Inputs it started from.
    seeds: usize,
    /// Inputs that were tried.
    pub(crate) executions: u64,
    /// Inputs that are kept, each for something that no other does.
    corpus: usize,
}

/// Fuzzes one target or all, so many seconds each. The first input that breaks something ends it with an error that
/// says where that input is.
pub(crate) fn run(only: Option<Target>, seconds: u64) -> Result<Vec<Ran>> {
    setup::run(false)?;
    install()?;
    build()?;
    let made = seeds::make()?;
    ALL.into_iter()
        .filter(|target| only.is_none_or(|only| only == *target))
        .map(|target| one(target, seconds, &made))
        .collect()
}

/// Prints what was done.
pub(crate) fn print(ran: &[Ran], as_json: bool) {
    if as_json {
        let lines: Vec<_> = ran
            .iter()
            .map(|ran| {
                json!({
                    "target": ran.target.name(),
                    "executions": ran.executions,
                    "seeds": ran.seeds,
                    "corpus": ran.corpus,
                })
            })
            .collect();
        println!("{}", json!(lines));
        return;
    }
    println!(
        "{:<10}  {:>12}  {:>6}  {:>6}",
        "target", "executions", "seeds", "corpus"
    );
    for ran in ran {
        println!(
            "{:<10}  {:>12}  {:>6}  {:>6}",
            ran.target.name(),
            ran.executions,
            ran.seeds,
            ran.corpus
        );
    }
}

fn install() -> Result<()> {
    if tool::find("cargo-fuzz").is_some() {
        return Ok(());
    }
    let step = Step::start("Installing cargo-fuzz");
    Tool::cargo()
        .args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ])
        .env("CARGO_TERM_COLOR", "never")
        .log("install-cargo-fuzz")
        .run_lines(|line| step.at(line.trim()))?;
    step.done(CARGO_FUZZ);
    Ok(())
}

/// `cargo fuzz COMMAND`, with what all its commands are given.
fn cargo_fuzz(command: &str) -> Tool {
    Tool::cargo()
        .args([
            "fuzz",
            command,
            "--sanitizer",
            "none",
            "--fuzz-dir",
            "fuzz",
            "--target-dir",
        ])
        .arg(workspace::target().join("fuzz"))
        .env("CARGO_TERM_COLOR", "never")
        .log(&format!("fuzz-{command}"))
}

fn build() -> Result<()> {
    let step = Step::start("Building the fuzz targets");
    cargo_fuzz("build").run_lines(|line| step.at(line.trim()))?;
    step.done("");
    Ok(())
}

fn one(target: Target, seconds: u64, made: &Path) -> Result<Ran> {
    let name = target.name();
    let step = Step::start(format!("Fuzzing {name}"));
    let seeds = made.join(name);
    let corpus = workspace::target().join("fuzz-corpus").join(name);
    let artifacts = workspace::target().join("fuzz-artifacts").join(name);
    workspace::create_dir(&corpus)?;
    workspace::create_dir(&artifacts)?;
    let started = Instant::now();
    let mut executions = None;
    let tool = cargo_fuzz("run")
        .log(&format!("fuzz-{name}"))
        .arg(name)
        .arg(&corpus)
        .arg(&seeds)
        .arg("--")
        .args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT_S}"),
            format!("-rss_limit_mb={MEMORY_MB}"),
            format!("-max_len={LONGEST_INPUT}"),
            format!("-artifact_prefix={}/", artifacts.display()),
            "-print_final_stats=1".to_owned(),
        ]);
    let (success, status, tail) = tool.observe(|line| {
        executions = executions.or_else(|| executed(line));
        step.at(format!("{} s of {seconds}", started.elapsed().as_secs()));
    })?;
    if !success {
        bail!(
            "fuzzing {name} found something ({status}); the input is in {}, and `cargo fuzz run --sanitizer none \
             --fuzz-dir fuzz {name} INPUT` repeats it\n{}",
            workspace::shown(&artifacts),
            tail.join("\n")
        );
    }
    let executions = executions.context("libFuzzer did not say how much it executed")?;
    step.done(format!("{executions} executions"));
    Ok(Ran {
        target,
        seeds: count(&seeds)?,
        executions,
        corpus: count(&corpus)?,
    })
}

fn executed(line: &str) -> Option<u64> {
    line.strip_prefix("stat::number_of_executed_units:")?
        .trim()
        .parse()
        .ok()
}

fn count(dir: &Path) -> Result<usize> {
    Ok(fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .count())
}

/// One short run of everything, for the test command.
pub(crate) fn briefly(seconds: u64) -> Result<u64> {
    let ran = run(None, seconds)?;
    if let Some(idle) = ran.iter().find(|ran| ran.executions < 100) {
        bail!(
            "{} was executed only {} times",
            idle.target.name(),
            idle.executions
        );
    }
    progress::note(format!(
        "fuzzed: {}",
        ran.iter()
            .map(|ran| format!("{} {}", ran.target.name(), ran.executions))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    Ok(ran.iter().map(|ran| ran.executions).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_libfuzzers_last_words() {
        assert_eq!(executed("stat::number_of_executed_units: 12345"), Some(12_345));
        assert_eq!(executed("#12345 DONE"), None);
    }
}
