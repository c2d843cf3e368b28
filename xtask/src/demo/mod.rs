//! `cargo xtask demo`: from a fresh machine to a container in a utility VM, and back to a host on which nothing is
//! left. Every claim it prints is looked up on the host, and a wrong one fails the demo.

mod block_device;
mod bundle;
mod leftovers;

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use console::style;

use crate::{
    boot::{self, BootFiles},
    cli::KernelChoice,
    layers,
    progress::{self, Step},
    setup,
    tool::Tool,
    workspace,
};
use block_device::LoopDevice;
use bundle::{EXIT_CODE, Files, WRITTEN};

const CONTAINER: &str = "demo";
/// Where the command may keep sockets and records beside `$XDG_RUNTIME_DIR`.
const SYSTEM_RUN_DIR: &str = "/run/cofferdam";

/// Times of the phases, in order.
struct Clock {
    started: Instant,
    last: Instant,
    phases: Vec<(&'static str, Duration)>,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Clock {
            started: now,
            last: now,
            phases: Vec::new(),
        }
    }

    fn phase(&mut self, name: &'static str) {
        let now = Instant::now();
        self.phases.push((name, now - self.last));
        self.last = now;
    }
}

/// How the container ended.
struct Run {
    code: Option<i32>,
    status: String,
    /// From the command's start to the container's first byte of output.
    first_output: Option<Duration>,
    /// The same, from the start of the demo.
    since_start: Option<Duration>,
}

/// Runs the demo.
pub(crate) fn run(kernel: Option<KernelChoice>, keep_bundle: bool) -> Result<()> {
    let mut clock = Clock::start();
    progress::heading("Preparing");
    setup::run(false)?;
    clock.phase("packages");
    let command = build_command()?;
    clock.phase("building the command");
    let boot_files = boot::prepare(false)?;
    let boot_files = choose(boot_files, kernel)?;
    clock.phase("boot files");
    let layers = layers::obtain(false)?;
    clock.phase("layers");

    let dir = workspace::target().join("demo");
    let step = Step::start("Writing a bundle");
    let files = Files::make(&dir, &layers)?;
    let loop_device = attach(&files.physical_image())?;
    files.write_spec(&layers, loop_device.as_ref().map(LoopDevice::path))?;
    step.done(workspace::shown(&files.bundle()));
    clock.phase("bundle and disks");

    // Its own runtime directory (short: a socket's path holds 108 bytes), so that whatever is left is seen.
    let runtime = tempfile::Builder::new()
        .prefix("cofferdam-demo-")
        .tempdir_in("/tmp")?;
    progress::heading("\nWhat will be done: cofferdam plan --vpmem-count 0 --bundle target/demo/bundle");
    let plan = Tool::new(&command)
        .arg("plan")
        // As `run` has it under QEMU.
        .args(["--vpmem-count", "0"])
        .arg("--bundle")
        .arg(files.bundle())
        .interactive()
        .status()?;
    ensure!(
        plan.success(),
        "the plan was refused ({plan}); the reason is above"
    );
    clock.phase("plan");

    progress::heading(format!(
        "\nThe container, on the {} kernel: cofferdam run --bundle target/demo/bundle {CONTAINER}",
        boot_files.name
    ));
    let watch = Watch::start(&dir, &layers.dir, loop_device.as_ref(), runtime.path())?;
    let interrupted = Arc::new(AtomicBool::new(false));
    // Ctrl-C reaches the command too: it stops the container, and the demo goes on to clean up.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))?;
    let outcome = run_container(
        &command,
        &files.bundle(),
        &boot_files,
        runtime.path(),
        clock.started,
    )?;
    clock.phase("container, from command to exit");

    progress::heading("\nWhat is left");
    let mut wrong = Vec::new();
    let mut check = |what: &str, result: Result<()>| match result {
        Ok(()) => eprintln!("{} {what}", style("ok").green().for_stderr()),
        Err(error) => {
            eprintln!("{} not so: {what}: {error:#}", style("!!").red().for_stderr());
            wrong.push(what.to_owned());
        }
    };
    check(
        &format!("the container's exit code {EXIT_CODE} came back"),
        exit_code(&outcome),
    );
    check(
        "what it wrote to the shared file is on the host",
        wrote_to_share(&files),
    );
    if let Some(device) = loop_device {
        check(
            "what it wrote to the physical disk is on the host",
            wrote_to_disk(&files.physical_image()),
        );
        check(
            "no file or device is held, no process is left",
            watch.nothing_held(),
        );
        check(
            &format!("the physical disk {} is free", device.path()),
            device.detach(),
        );
    } else {
        check("no file is held, no process is left", watch.nothing_held());
    }
    check("no mount is left", watch.no_mount());
    check("no socket or record is left", watch.nothing_in_runtime_dirs());
    check(
        "the auto-managed disk is deleted",
        gone(&files.automanaged_disk()),
    );
    clock.phase("looking for leftovers");

    report(&clock, &outcome);
    if keep_bundle {
        progress::note(format!(
            "the bundle is left in {}",
            workspace::shown(&files.bundle())
        ));
    } else if wrong.is_empty() {
        workspace::remove_dir(&dir)?;
    }
    if interrupted.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    if !wrong.is_empty() {
        bail!(
            "{} of the demo's claims do not hold: {}\nthe bundle is left in {}",
            wrong.len(),
            wrong.join("; "),
            workspace::shown(&dir)
        );
    }
    Ok(())
}

fn build_command() -> Result<PathBuf> {
    let step = Step::start("Building cofferdam");
    Tool::cargo()
        .args(["build", "--release", "-p", "cofferdam-cli", "--bin", "cofferdam"])
        .log("build-cofferdam")
        .run_lines(|line| step.at(line.trim()))?;
    let path = workspace::target().join("release/cofferdam");
    step.done(workspace::shown(&path));
    Ok(path)
}

fn choose(made: Vec<BootFiles>, kernel: Option<KernelChoice>) -> Result<BootFiles> {
    let wanted = |files: &BootFiles| kernel.is_none_or(|kernel| kernel.name() == files.name);
    made.into_iter()
        .find(wanted)
        .context("that kernel has not been built; `cargo xtask kernel` builds the small one")
}

fn attach(image: &Path) -> Result<Option<LoopDevice>> {
    match LoopDevice::attach(image) {
        Ok(device) => Ok(Some(device)),
        Err(error) => {
            progress::warn(format!(
                "the physical disk is left out, this host gives no loop device: {error:#}"
            ));
            Ok(None)
        }
    }
}

fn run_container(
    command: &Path,
    bundle: &Path,
    boot_files: &BootFiles,
    runtime: &Path,
    demo_started: Instant,
) -> Result<Run> {
    let started = Instant::now();
    let mut child = Tool::new(command)
        .args([
            OsString::from("run"),
            "--bundle".into(),
            bundle.into(),
            CONTAINER.into(),
        ])
        .arg("--timings")
        .arg("--kernel")
        .arg(&boot_files.kernel)
        .arg("--initramfs")
        .arg(&boot_files.initramfs)
        .env("XDG_RUNTIME_DIR", runtime)
        .env("TMPDIR", runtime)
        .interactive()
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", command.display()))?;
    // The output passes through here only to see when it begins.
    let mut output = child
        .stdout
        .take()
        .context("invariant: standard output was piped")?;
    let mut first = None;
    let mut buffer = [0; 8192];
    loop {
        let length = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("could not read the container's output"),
        };
        first.get_or_insert_with(|| (started.elapsed(), demo_started.elapsed()));
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&buffer[..length])?;
        stdout.flush()?;
    }
    let status = child.wait().context("lost track of the command")?;
    Ok(Run {
        code: status.code(),
        status: status.signal().map_or_else(
            || status.to_string(),
            |signal| format!("killed by signal {signal}"),
        ),
        first_output: first.map(|(of_command, _)| of_command),
        since_start: first.map(|(_, of_demo)| of_demo),
    })
}

fn exit_code(outcome: &Run) -> Result<()> {
    let hint = "its error output is above; --keep-bundle keeps the bundle to run it by hand";
    ensure!(
        outcome.code == Some(EXIT_CODE),
        "the command ended with {}; {hint}",
        outcome.status
    );
    Ok(())
}

fn wrote_to_share(files: &Files) -> Result<()> {
    let text = fs::read_to_string(files.single_file())?;
    ensure!(text.contains(WRITTEN), "the file holds only {text:?}");
    Ok(())
}

/// Reads the file system without mounting it.
fn wrote_to_disk(image: &Path) -> Result<()> {
    let text = Tool::new("debugfs")
        .args(["-R", "cat /probe"])
        .arg(image)
        .read()?;
    ensure!(text.contains(WRITTEN), "its file `probe` holds {text:?}");
    Ok(())
}

fn gone(path: &Path) -> Result<()> {
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

/// What the host looked like before the container ran.
struct Watch {
    dirs: [PathBuf; 2],
    device: Option<PathBuf>,
    runtime: PathBuf,
    mounts: std::collections::BTreeSet<String>,
    children: Vec<String>,
    system_run: Vec<PathBuf>,
}

impl Watch {
    fn start(dir: &Path, layers: &Path, device: Option<&LoopDevice>, runtime: &Path) -> Result<Self> {
        leftovers::adopt_orphans()?;
        Ok(Watch {
            dirs: [fs::canonicalize(dir)?, fs::canonicalize(layers)?],
            device: device.map(|device| device.path().into()),
            runtime: runtime.to_owned(),
            mounts: leftovers::mounts()?,
            children: leftovers::children()?,
            system_run: leftovers::below(Path::new(SYSTEM_RUN_DIR)),
        })
    }

    fn nothing_held(&self) -> Result<()> {
        let mut left = leftovers::holders(|file| {
            let of_demo = file.starts_with(&self.dirs[0]) || file.starts_with(&self.runtime);
            of_demo || self.device.as_deref() == Some(file)
        })?;
        // Layers are shared with other VMs of this host: only our own processes count.
        let ours: Vec<_> = leftovers::children()?
            .into_iter()
            .filter(|line| !self.children.contains(line))
            .collect();
        left.extend(ours);
        ensure!(left.is_empty(), "{}", left.join(", "));
        Ok(())
    }

    fn no_mount(&self) -> Result<()> {
        let now = leftovers::mounts()?;
        let ours = |line: &&String| {
            let of_demo = self
                .dirs
                .iter()
                .chain([&self.runtime])
                .any(|dir| line.contains(&dir.display().to_string()));
            of_demo || line.contains("cofferdam")
        };
        let left: Vec<_> = now
            .difference(&self.mounts)
            .filter(ours)
            .map(String::as_str)
            .collect();
        ensure!(left.is_empty(), "{}", left.join("; "));
        Ok(())
    }

    fn nothing_in_runtime_dirs(&self) -> Result<()> {
        let mut left = leftovers::below(&self.runtime);
        // A directory for later runs may stay; what lies in it may not.
        left.retain(|path| !path.is_dir());
        let system = leftovers::below(Path::new(SYSTEM_RUN_DIR));
        left.extend(
            system
                .into_iter()
                .filter(|path| !path.is_dir() && !self.system_run.contains(path)),
        );
        let shown: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
        ensure!(shown.is_empty(), "{}", shown.join(", "));
        Ok(())
    }
}

fn report(clock: &Clock, outcome: &Run) {
    progress::heading("\nTimes");
    for (name, time) in &clock.phases {
        progress::note(format!("{name:<34} {:>12}", progress::seconds(*time)));
    }
    if let (Some(of_command), Some(of_demo)) = (outcome.first_output, outcome.since_start) {
        let rows = [
            ("cofferdam run to first output", of_command),
            ("this command to first output", of_demo),
        ];
        for (name, time) in rows {
            progress::note(format!("{name:<34} {:>12}", progress::seconds(time)));
        }
    }
    progress::note(format!(
        "{:<34} {:>12}",
        "all",
        progress::seconds(clock.started.elapsed())
    ));
}
