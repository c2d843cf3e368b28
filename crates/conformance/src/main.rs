//! The command: which agent, which cases, and what is told.

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use cofferdam_conformance::{
    agent::{Agent, Dialling, Program},
    case::Case,
    cases,
    report::Report,
    runner::Runner,
    setup::{ContainerSetup, Setup, find_busybox},
};

const EXAMPLES: &str = "\
Examples:
  An agent as a child, its stdio ports as unix sockets in a directory the suite makes ({} stands for it):
    cofferdam-conformance --program 'cofferdam-agent -v4 --use-inouterr --stdio-dir {}'

  The agent of a VM whose vsock ports are unix sockets /run/vm/vsock_PORT on the host:
    cofferdam-conformance --bridge /run/vm/vsock_1073741824 --stdio-prefix /run/vm/vsock_ \\
        --vm-shell '/bin/sh -c' --container-spec config.json --bundle /run/gcs/c --require all

Exit status: 0 if no case failed (with --require all: and every case could be tried), 1 if not, 2 for a wrong call.";

/// Holds an agent of the guest bridge protocol to the protocol's rules
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Start the agent with this command: bridge on its standard input and output. `{}` is the directory in which it
    /// dials port N as the unix socket N
    #[arg(long, value_name = "COMMAND", required_unless_present_any = ["bridge", "list"], conflicts_with = "bridge")]
    program: Option<String>,
    /// Listen at this unix socket for an agent that somebody else connects. It is asked to dial again for cases that
    /// need a connection of their own
    #[arg(long, value_name = "SOCKET")]
    bridge: Option<PathBuf>,
    /// With --bridge: listen for port N at DIR/N
    #[arg(long, value_name = "DIR", requires = "bridge", required_unless_present_any = ["program", "stdio_prefix", "list"])]
    stdio_dir: Option<PathBuf>,
    /// With --bridge: listen for port N at PREFIX followed by N
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "bridge",
        conflicts_with = "stdio_dir"
    )]
    stdio_prefix: Option<PathBuf>,
    /// Words that run a script in the agent's VM. Default with --program: `/bin/sh -c`; else cases that need one are
    /// not tried
    #[arg(long, value_name = "WORDS")]
    vm_shell: Option<String>,
    /// OCI spec that containers start from, with the agent's paths; its root needs /bin/sh, cat, head, sleep, stty,
    /// uname and wc. Default with --program, as root: a root of busybox made by the suite
    #[arg(long, value_name = "FILE", requires = "bundle")]
    container_spec: Option<PathBuf>,
    /// Directory of the agent below which each container gets its bundle
    #[arg(long, value_name = "DIR", requires = "container_spec")]
    bundle: Option<PathBuf>,
    /// Also try what ends the agent's machine. Never give this for an agent that runs on a machine you need
    #[arg(long)]
    may_power_off: bool,
    /// Run only cases whose names hold this; several may be given
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// List the cases instead of running them
    #[arg(long)]
    list: bool,
    /// What must have been possible
    #[arg(long, value_enum, default_value_t = Require::Some)]
    require: Require,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// How long one answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// With --program: show what the agent writes to its standard error
    #[arg(long)]
    show_log: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Require {
    /// What could not be tried is no failure
    Some,
    /// What could not be tried is a failure
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object
    Json,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cofferdam-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |case: &Case| {
        args.only.is_empty()
            || args
                .only
                .iter()
                .any(|pattern| case.name.contains(pattern.as_str()))
    };
    let cases: Vec<Case> = cases::all().into_iter().filter(wanted).collect();
    anyhow::ensure!(
        !cases.is_empty(),
        "no case has {} in its name; --list shows them",
        args.only.join(" or ")
    );
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    if args.list {
        let mut text = String::new();
        for case in &cases {
            text.push_str(&format!("{:<width$}  §{}\n", case.name, case.section));
        }
        return print(&text).map(|()| ExitCode::SUCCESS);
    }
    let mut agent = agent(args)?;
    let setup = setup(args)?;
    let report = Runner::new(agent.as_mut(), &setup, Duration::from_secs(args.timeout)).run(&cases, |row| {
        if args.format == Format::Table {
            // A closed pipe is noticed at the end.
            let _ = print(&format!("{}\n", Report::line(row, width)));
        }
    });
    match args.format {
        Format::Table => print(&format!("{}\n", report.summary()))?,
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
    }
    Ok(if report.is_good(args.require == Require::All) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("writing to standard output")
}

/// The words of a command; quotes are not special.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn agent(args: &Args) -> Result<Box<dyn Agent>> {
    if let Some(command) = &args.program {
        let command = words(command);
        anyhow::ensure!(!command.is_empty(), "--program names no program");
        return Ok(Box::new(
            Program::new(command, args.show_log).context("making a directory for the agent's ports")?,
        ));
    }
    let bridge = args.bridge.clone().context("give --program or --bridge")?;
    let prefix = match (&args.stdio_dir, &args.stdio_prefix) {
        (Some(directory), _) => directory.join(""),
        (None, Some(prefix)) => prefix.clone(),
        (None, None) => anyhow::bail!("--bridge needs --stdio-dir or --stdio-prefix"),
    };
    let limit = Duration::from_secs(args.timeout);
    let agent = Dialling::new(bridge.clone(), prefix, limit);
    Ok(Box::new(
        agent.with_context(|| format!("listening at {}", bridge.display()))?,
    ))
}

fn setup(args: &Args) -> Result<Setup> {
    let mut setup = Setup::bare();
    setup.may_power_off = args.may_power_off;
    if let Some(shell) = &args.vm_shell {
        setup.shell = Ok(words(shell));
    } else if args.program.is_some() {
        setup.shell = Ok(vec!["/bin/sh".into(), "-c".into()]);
    }
    if let (Some(file), Some(bundle)) = (&args.container_spec, &args.bundle) {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let spec = serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", file.display()))?;
        setup.container = Ok(ContainerSetup::given(spec, bundle.clone()));
    } else if args.program.is_some() {
        setup.container = if rustix::process::geteuid().is_root() {
            find_busybox().and_then(|busybox| {
                ContainerSetup::with_busybox(&busybox)
                    .map_err(|error| format!("making a container's root: {error}"))
            })
        } else {
            Err("containers need root, or --container-spec and --bundle".into())
        };
    }
    Ok(setup)
}
