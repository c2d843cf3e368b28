//! What making a layer costs, against copying its archive and against the tools that others use. Everything is in
//! memory: no disk is measured.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Line;
use crate::{debs, progress::Step, setup, tool::Tool, workspace};

/// Packages whose content makes a root of about 300 MB: a compiler, interpreters, documentation, many small files.
const PACKAGES: &[&str] = &[
    "binutils-x86-64-linux-gnu",
    "coreutils",
    "cpp-12",
    "gcc-12",
    "git",
    "iso-codes",
    "libc6",
    "libc6-dev",
    "libgcc-12-dev",
    "libicu72",
    "libperl5.36",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libstdc++-12-dev",
    "linux-libc-dev",
    "locales",
    "manpages-dev",
    "perl-modules-5.36",
    "python3.11-minimal",
    "tzdata",
    "vim-runtime",
];
/// Where memory is a file system.
const MEMORY: &str = "/dev/shm";
/// Runs of each tool; the median counts. The first of all runs, which brings memory in, does not.
const RUNS: usize = 5;

/// What making a layer may cost: wall time against `cp` of the archive, and memory in MB.
const LIMITS: [(&str, f64); 2] = [("cofferdam ext4", 2.0), ("cofferdam ext4 with verity", 4.0)];
const MEMORY_LIMIT_MB: f64 = 32.0;

/// Measures, and fails if a limit is not kept.
pub(super) fn measure() -> Result<Vec<Line>> {
    setup::run(false)?;
    let program = program()?;
    let dir = tempfile::Builder::new()
        .prefix("cofferdam-bench-")
        .tempdir_in(MEMORY)
        .with_context(|| format!("making a directory in {MEMORY}"))?;
    let root = Root::make(dir.path())?;
    let lines = Bench {
        root: &root,
        program: &program,
        dir: dir.path(),
    }
    .lines()?;
    for (what, limit) in LIMITS {
        let line = lines
            .iter()
            .find(|line| line.get("what").and_then(Value::as_str) == Some(what))
            .with_context(|| format!("{what} was not measured"))?;
        let number = |column: &str| line.get(column).and_then(Value::as_f64).unwrap_or(f64::INFINITY);
        let (ratio, memory) = (number("against cp"), number("memory, MB"));
        ensure!(
            ratio <= limit && memory <= MEMORY_LIMIT_MB,
            "{what} takes {ratio:.2} times what cp does and {memory:.0} MB; it may take {limit} times and {MEMORY_LIMIT_MB} MB"
        );
    }
    Ok(lines)
}

fn program() -> Result<PathBuf> {
    let step = Step::start("Building cofferdam");
    Tool::cargo()
        .args([
            "build",
            "--release",
            "--locked",
            "-p",
            "cofferdam-cli",
            "--bin",
            "cofferdam",
        ])
        .env("CARGO_TERM_COLOR", "never")
        .log("bench-build")
        .run_lines(|line| step.at(line.trim()))?;
    step.done("");
    Ok(workspace::target().join("release/cofferdam"))
}

/// A root file system as a directory and as archives.
struct Root {
    tree: PathBuf,
    tar: PathBuf,
    gzip: PathBuf,
    zstd: PathBuf,
}

impl Root {
    fn make(dir: &Path) -> Result<Self> {
        let step = Step::start("Making a Debian root");
        let candidates = debs::resolve(PACKAGES)?;
        step.at("downloading");
        let files = debs::download(&candidates, &dir.join("debs"))?;
        let root = Self {
            tree: dir.join("tree"),
            tar: dir.join("root.tar"),
            gzip: dir.join("root.tar.gz"),
            zstd: dir.join("root.tar.zst"),
        };
        step.at("unpacking");
        workspace::create_dir(&root.tree)?;
        for file in &files {
            Tool::new("dpkg-deb").arg("-x").arg(file).arg(&root.tree).run()?;
        }
        workspace::remove_dir(&dir.join("debs"))?;
        Tool::new("tar")
            .args(["--create", "--sort=name", "--numeric-owner", "--file"])
            .arg(&root.tar)
            .arg("-C")
            .arg(&root.tree)
            .arg(".")
            .run()?;
        step.at("compressing");
        Tool::new("gzip").args(["--keep", "-6"]).arg(&root.tar).run()?;
        Tool::new("zstd")
            .args(["--quiet", "-3", "-o"])
            .arg(&root.zstd)
            .arg(&root.tar)
            .run()?;
        let entries = Tool::new("tar")
            .arg("--list")
            .arg("--file")
            .arg(&root.tar)
            .read()?;
        let megabytes = fs::metadata(&root.tar)?.len() as f64 / 1e6;
        step.done(format!("{megabytes:.0} MB, {} entries", entries.lines().count()));
        Ok(root)
    }
}

struct Bench<'a> {
    root: &'a Root,
    program: &'a Path,
    dir: &'a Path,
}

/// A tool, its arguments, and the file it makes.
struct Contest {
    what: &'static str,
    command: Vec<String>,
    output: Option<PathBuf>,
}

impl Bench<'_> {
    fn lines(&self) -> Result<Vec<Line>> {
        let contests = self.contests();
        let step = Step::start("Measuring layers");
        let mut lines: Vec<Line> = Vec::new();
        let mut floor = None;
        // Not counted: memory comes in, caches fill.
        contests.first().context("there are contests")?.run()?;
        for contest in &contests {
            let mut runs = Vec::new();
            for run in 0..RUNS {
                step.at(format!("{}, {} of {RUNS}", contest.what, run + 1));
                runs.push(contest.run()?);
            }
            runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
            let median = runs[RUNS / 2];
            let floor = *floor.get_or_insert(median.seconds);
            let mut line = Line::new();
            line.insert("what".to_owned(), json!(contest.what));
            line.insert("wall, s".to_owned(), json!(median.seconds));
            line.insert("against cp".to_owned(), json!(median.seconds / floor));
            line.insert("memory, MB".to_owned(), json!(median.memory_mb));
            if let Some(output) = &contest.output {
                line.insert(
                    "output, MB".to_owned(),
                    json!(fs::metadata(output)?.len() as f64 / 1e6),
                );
                remove(output)?;
            }
            lines.push(line);
        }
        step.done("");
        Ok(lines)
    }

    fn contests(&self) -> Vec<Contest> {
        let text = |path: &Path| path.display().to_string();
        let (tar, gzip, zstd) = (text(&self.root.tar), text(&self.root.gzip), text(&self.root.zstd));
        let tree = text(&self.root.tree);
        let output = self.dir.join("output");
        let out = text(&output);
        let contest = |what, words: &[&str]| Contest {
            what,
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            output: Some(output.clone()),
        };
        let program = text(self.program);
        let layer = self.dir.join("layer.vhd");
        let to = text(&layer);
        let convert = |what, options: &[&str], from: &str| Contest {
            what,
            command: [
                &[program.as_str(), "layer", "convert", "--quiet"],
                options,
                &[from, &to],
            ]
            .concat()
            .iter()
            .map(|word| (*word).to_owned())
            .collect(),
            output: Some(layer.clone()),
        };
        let digest = Contest {
            output: None,
            ..contest("sha256sum of the archive", &["sha256sum", &tar])
        };
        let blocks = format!(
            "{}k",
            fs::metadata(&self.root.tar).map_or(0, |facts| facts.len()) * 5 / 4 / 1024
        );
        vec![
            contest("cp of the archive", &["cp", &tar, &out]),
            digest,
            convert("cofferdam ext4", &[], &tar),
            convert("cofferdam ext4 with verity", &["--verity"], &tar),
            convert("cofferdam EROFS", &["--format", "erofs"], &tar),
            convert(
                "cofferdam EROFS with verity",
                &["--format", "erofs", "--verity"],
                &tar,
            ),
            convert("cofferdam ext4 from gzip", &[], &gzip),
            convert("cofferdam ext4 from zstd", &[], &zstd),
            contest("gzip -d", &["sh", "-c", "gzip -dc \"$0\" > \"$1\"", &gzip, &out]),
            contest("zstd -d", &["zstd", "-qdf", &zstd, "-o", &out]),
            contest(
                "mke2fs of the directory",
                &[
                    "mke2fs",
                    "-q",
                    "-F",
                    "-t",
                    "ext4",
                    "-O",
                    "^has_journal",
                    "-d",
                    &tree,
                    &out,
                    &blocks,
                ],
            ),
            contest(
                "mkfs.erofs of the directory",
                &["mkfs.erofs", "--quiet", &out, &tree],
            ),
        ]
    }
}

#[derive(Debug, Clone, Copy)]
struct Run {
    seconds: f64,
    memory_mb: f64,
}

impl Contest {
    /// Runs it once, with nothing there of an earlier run.
    fn run(&self) -> Result<Run> {
        if let Some(output) = &self.output {
            remove(output)?;
        }
        let started = Instant::now();
        let done = Command::new("/usr/bin/time")
            .args(["--quiet", "--format", "%M"])
            .args(&self.command)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .with_context(|| format!("running {}", self.command.join(" ")))?;
        let seconds = started.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&done.stderr);
        if !done.status.success() {
            bail!("{}: {}\n{said}", self.command.join(" "), done.status);
        }
        let kilobytes: f64 = said
            .lines()
            .last()
            .and_then(|line| line.trim().parse().ok())
            .with_context(|| format!("time said no number: {said}"))?;
        Ok(Run {
            seconds,
            memory_mb: kilobytes * 1024.0 / 1e6,
        })
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
