//! `cargo xtask test`: the checks and tests, in rings from fast to slow.
//!
//! * lint: formatting, clippy, rustdoc, layering, licences;
//! * pure: unit tests, without I/O beyond a temporary directory;
//! * process: tests with processes and sockets (`crates/*/tests`), and the examples in the documentation;
//! * fuzz: a few seconds of hostile input for each target of `fuzz/`;
//! * vm: test targets named `vm_*`, ignored by a plain `cargo test`, each with utility VMs of its own.

mod counts;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    boot::{self, BootFiles},
    deny, fuzz, layering, layers, peers,
    progress::{self, Step},
    setup,
    tool::Tool,
    workspace,
};
use counts::Counts;

/// One ring of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ring {
    /// Formatting, clippy, rustdoc, layering, licences
    Lint,
    /// Unit tests
    Pure,
    /// Tests with processes and sockets, and documentation examples
    Process,
    /// A few seconds of hostile input for each fuzz target
    Fuzz,
    /// Tests with utility VMs
    Vm,
}

/// Which kernels the VM tests run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernels {
    /// The one `cargo xtask kernel` builds
    Small,
    /// Debian's own
    Debian,
    /// Both; fails if the small one has not been built
    Both,
}

const RINGS: [Ring; 5] = [Ring::Lint, Ring::Pure, Ring::Process, Ring::Fuzz, Ring::Vm];

/// Seconds of each fuzz target. A long run is `cargo xtask fuzz`.
const FUZZ_S: u64 = 5;

/// A test that hangs must not hold up the rest, nor a CI machine for hours. No single test or crate takes that long.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);

struct Outcome {
    name: String,
    time: Duration,
    result: Result<Option<Counts>>,
}

/// Runs one ring or all, and prints the sums.
pub(crate) fn run(ring: Option<Ring>, kernels: Option<Kernels>, names: &[String]) -> Result<ExitCode> {
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for ring in RINGS.into_iter().filter(|&r| ring.is_none_or(|only| only == r)) {
        match ring {
            Ring::Lint => lint(&mut outcomes),
            Ring::Pure => record(&mut outcomes, "pure", || {
                cargo_test("pure", &["--lib", "--bins"], Tests::Normal, &[], names)
            }),
            Ring::Process => process(&mut outcomes, names),
            // Names are of tests.
            Ring::Fuzz if names.is_empty() => {
                note_outcome(&mut outcomes, "fuzz", || fuzz::briefly(FUZZ_S).map(|_| None));
            }
            Ring::Fuzz => {}
            Ring::Vm => vm(&mut outcomes, kernels, names),
        }
    }
    Ok(summary(&outcomes, started.elapsed()))
}

fn record(outcomes: &mut Vec<Outcome>, name: &str, run: impl FnOnce() -> Result<Counts>) {
    note_outcome(outcomes, name, || run().map(Some));
}

fn note_outcome(outcomes: &mut Vec<Outcome>, name: &str, run: impl FnOnce() -> Result<Option<Counts>>) {
    let started = Instant::now();
    let result = run();
    if let Err(error) = &result {
        progress::report_failure(error);
    }
    outcomes.push(Outcome {
        name: name.to_owned(),
        time: started.elapsed(),
        result,
    });
}

fn lint(outcomes: &mut Vec<Outcome>) {
    let root = workspace::root();
    let cargo = |label: &str, log: &str, args: &[&str], flags: Option<(&str, &str)>, hint: &str| {
        let step = Step::start(label);
        let mut tool = Tool::cargo()
            .args(args)
            .log(log)
            .hint(hint)
            .env("CARGO_TERM_COLOR", "never");
        if let Some((name, value)) = flags {
            tool = tool.env(name, value);
        }
        tool.run_lines(|line| step.at(line.trim()))?;
        step.done("");
        Ok(None)
    };
    note_outcome(outcomes, "format", || {
        cargo(
            "Format",
            "fmt",
            &["fmt", "--all", "--check"],
            None,
            "`cargo fmt --all`",
        )
    });
    note_outcome(outcomes, "clippy", || {
        let args = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        cargo(
            "Clippy",
            "clippy",
            &args,
            None,
            "mend what it names; `#[expect(.., reason)]` only with a good reason",
        )
    });
    note_outcome(outcomes, "documentation", || {
        let args = [
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
        ];
        cargo(
            "Documentation",
            "doc",
            &args,
            // The pages are read with private items.
            Some(("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")),
            "mend the links it names",
        )
    });
    note_outcome(outcomes, "layering", || layering::run(&root).map(|()| None));
    note_outcome(outcomes, "licences", || deny::run(&root).map(|()| None));
}

fn process(outcomes: &mut Vec<Outcome>, names: &[String]) {
    // Layers are judged by other people's programs.
    note_outcome(outcomes, "packages", || setup::run(false).map(|()| None));
    let mut environment = Vec::new();
    note_outcome(outcomes, "registry", || {
        let registry = peers::REGISTRY.obtain()?.join("docker-registry");
        environment.push(("COFFERDAM_TEST_REGISTRY", registry));
        Ok(None)
    });
    // The VM tests are among these targets and stay ignored here.
    record(outcomes, "process", || {
        cargo_test("process", &["--test", "*"], Tests::Normal, &environment, names)
    });
    record(outcomes, "doc examples", || {
        cargo_test("doc examples", &["--doc"], Tests::Normal, &[], names)
    });
}

fn vm(outcomes: &mut Vec<Outcome>, kernels: Option<Kernels>, names: &[String]) {
    let mut prepared = None;
    note_outcome(outcomes, "boot files and layers", || {
        setup::run(false)?;
        let boot_files = boot::prepare(false)?;
        let peers = [peers::CONTAINERD.obtain()?, peers::CNI.obtain()?];
        prepared = Some((choose(&boot_files, kernels)?, layers::obtain(false)?, peers));
        Ok(None)
    });
    let Some((chosen, layers, [containerd, cni])) = prepared else {
        return;
    };
    for files in chosen {
        let name = format!("vm, {} kernel", files.name);
        record(outcomes, &name, || {
            let environment = [
                // The directory of one kernel, so that the tests cannot take another.
                ("COFFERDAM_BOOT_DIR", files.dir()),
                ("COFFERDAM_TEST_LAYERS", layers.dir.clone()),
                ("COFFERDAM_TEST_CONTAINERD", containerd.clone()),
                ("COFFERDAM_TEST_CNI", cni.clone()),
            ];
            let counts = cargo_test(&name, &["--test", "vm_*"], Tests::Vm, &environment, names)?;
            if counts.passed + counts.failed == 0 {
                bail!(
                    "no VM test ran, so nothing is known; are there targets named vm_* with tests of these names?"
                );
            }
            Ok(counts)
        });
    }
}

fn choose(made: &[BootFiles], kernels: Option<Kernels>) -> Result<Vec<BootFiles>> {
    let wanted: &[&str] = match kernels {
        None => return Ok(made.to_vec()),
        Some(Kernels::Small) => &["small"],
        Some(Kernels::Debian) => &["debian"],
        Some(Kernels::Both) => &["small", "debian"],
    };
    let find = |name: &&str| {
        let files = made.iter().find(|files| files.name == *name).cloned();
        files.with_context(|| format!("there is no {name} kernel; `cargo xtask kernel` builds the small one"))
    };
    wanted.iter().map(find).collect()
}

/// Which tests of the targets are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tests {
    /// Those that are not ignored.
    Normal,
    /// The ignored ones, one at a time: each has a VM and its memory.
    Vm,
}

/// Runs `cargo test` over the workspace.
fn cargo_test(
    name: &str,
    targets: &[&str],
    tests: Tests,
    environment: &[(&str, PathBuf)],
    names: &[String],
) -> Result<Counts> {
    let step = Step::start(format!("Tests: {name}"));
    let mut tool = Tool::cargo()
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .args(targets)
        .env("CARGO_TERM_COLOR", "never")
        .silence_limit(SILENCE_LIMIT)
        .log(&format!("test-{}", name.replace([' ', ','], "-")));
    for (variable, value) in environment {
        tool = tool.env(variable, value);
    }
    tool = tool.arg("--").args(names);
    if tests == Tests::Vm {
        tool = tool.args(["--ignored", "--test-threads=1"]);
    }
    let mut counts = Counts::default();
    let mut output = Vec::new();
    let (success, status, _) = tool.observe(|line| {
        counts.line(line);
        step.at(line.trim());
        output.push(line.to_owned());
    })?;
    if success && counts.clean() {
        step.done(&counts);
        return Ok(counts);
    }
    drop(step);
    if counts.clean() {
        // Not the tests: they did not build, or cargo refused.
        let tail = output
            .iter()
            .rev()
            .take(60)
            .rev()
            .map(|line| format!("  | {line}"))
            .collect::<Vec<_>>();
        bail!(
            "cargo test failed ({status}) without a failed test:\n{}",
            tail.join("\n")
        );
    }
    for line in failure_report(&output) {
        progress::note(format!("| {line}"));
    }
    Ok(counts)
}

/// What cargo prints of failed tests: from each `failures:` to the next result.
fn failure_report(output: &[String]) -> Vec<&str> {
    let mut shown = Vec::new();
    let mut inside = false;
    for line in output {
        if line == "failures:" {
            inside = true;
        }
        if inside || line.contains("(signal: ") || line.starts_with("error: ") {
            shown.push(line.as_str());
        }
        if line.starts_with("test result: ") {
            inside = false;
        }
    }
    shown
}

fn summary(outcomes: &[Outcome], time: Duration) -> ExitCode {
    let mut sum = Counts::default();
    let mut bad = 0;
    progress::heading("\nSummary");
    for outcome in outcomes {
        let (mark, what) = match &outcome.result {
            Ok(None) => ("ok", String::new()),
            Ok(Some(counts)) => {
                sum.add(counts);
                (if counts.clean() { "ok" } else { "FAILED" }, counts.to_string())
            }
            Err(_) => ("FAILED", "see above".to_owned()),
        };
        if mark != "ok" {
            bad += 1;
        }
        println!(
            "{mark:<7} {:<24} {what:<32} {}",
            outcome.name,
            progress::seconds(outcome.time)
        );
    }
    for name in &sum.failures {
        println!("failed test: {name}");
    }
    let steps = outcomes.len();
    println!(
        "{sum}; {} of {steps} steps ok, in {}",
        steps - bad,
        progress::seconds(time)
    );
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_failures_leaves_out_what_passed() {
        let output: Vec<String> =
            "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nwhy\n\
                                   test result: FAILED. 1 passed; 1 failed\ntest c ... ok"
                .lines()
                .map(str::to_owned)
                .collect();
        let shown = failure_report(&output);
        assert!(shown.contains(&"why"));
        assert!(!shown.iter().any(|line| line.ends_with("ok")), "{shown:?}");
    }

    #[test]
    fn the_small_kernel_is_not_left_out_silently_when_it_was_asked_for() {
        let debian = BootFiles {
            name: "debian",
            kernel: "k".into(),
            initramfs: "i".into(),
        };
        let error = choose(std::slice::from_ref(&debian), Some(Kernels::Both))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cargo xtask kernel"), "{error}");
        assert_eq!(choose(&[debian], None).unwrap().len(), 1);
    }
}
