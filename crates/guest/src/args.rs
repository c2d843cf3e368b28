//! The command line, and the kernel's.

use std::{ffi::OsString, path::PathBuf};

use tracing::level_filters::LevelFilter;

use crate::log;

/// How the agent runs as a plain process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    /// Carry the bridge on standard input and output.
    pub(crate) inout: bool,
    /// Dial unix sockets `DIR/<port>` instead of vsock.
    pub(crate) stdio_dir: Option<PathBuf>,
    /// What is logged.
    pub(crate) level: LevelFilter,
}

impl Args {
    /// Reads arguments. The reference agent's own (`-v4`, `-loglevel L`, `-log-format F`, `-e PORT`) are taken too;
    /// those without meaning here change nothing.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut args = Self {
            inout: false,
            stdio_dir: None,
            level: LevelFilter::INFO,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy().into_owned();
            let (name, inline) = match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(OsString::from(value))),
                None => (text, None),
            };
            let mut value = || {
                inline
                    .clone()
                    .or_else(|| arguments.next())
                    .ok_or(format!("{name} needs a value"))
            };
            match name.trim_start_matches('-') {
                "use-inouterr" => args.inout = true,
                "stdio-dir" => args.stdio_dir = Some(value()?.into()),
                "loglevel" => {
                    let given = value()?;
                    args.level = log::level(&given.to_string_lossy())
                        .ok_or_else(|| format!("{} is no log level", given.to_string_lossy()))?;
                }
                "log-format" | "e" => drop(value()?),
                "v4" => {}
                _ => return Err(format!("unknown argument {name}")),
            }
        }
        Ok(args)
    }
}

/// Options of this agent on the kernel's command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelOptions {
    /// `cofferdam.log=LEVEL`.
    pub(crate) level: LevelFilter,
    /// `cofferdam.entropy=1`: credit the bytes of port 1. Off by default: the VM has a virtio random device.
    pub(crate) entropy: bool,
    /// `cofferdam.bridge=PATH`: carry the bridge on this character device instead of vsock, for debugging.
    pub(crate) bridge: Option<PathBuf>,
}

impl KernelOptions {
    /// Reads the kernel's command line. What cannot be understood is ignored: a VM must boot.
    pub(crate) fn parse(line: &str) -> Self {
        let mut options = Self {
            level: LevelFilter::INFO,
            entropy: false,
            bridge: None,
        };
        // What follows `--` is for the first program, in the reference's shape; only its log level matters.
        let words: Vec<&str> = line.split_whitespace().collect();
        for (index, word) in words.iter().enumerate() {
            match word.split_once('=') {
                Some(("cofferdam.log", level)) => options.level = log::level(level).unwrap_or(options.level),
                Some(("cofferdam.entropy", value)) => options.entropy = value == "1",
                Some(("cofferdam.bridge", path)) => options.bridge = Some(path.into()),
                None if *word == "-loglevel" => {
                    let level = words.get(index + 1).and_then(|level| log::level(level));
                    options.level = level.unwrap_or(options.level);
                }
                _ => {}
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_references_arguments_are_harmless() {
        let args = parse("-v4 -log-format json -loglevel debug -e 1 -use-inouterr").unwrap();
        assert_eq!(
            args,
            Args {
                inout: true,
                stdio_dir: None,
                level: LevelFilter::DEBUG
            }
        );
        assert_eq!(
            parse("--stdio-dir=/tmp/x").unwrap().stdio_dir,
            Some("/tmp/x".into())
        );
        assert_eq!(parse("--stdio-dir").unwrap_err(), "--stdio-dir needs a value");
        assert!(parse("--loud").is_err());
        assert!(parse("-loglevel loud").is_err());
    }

    #[test]
    fn kernel_options_are_found_among_others_and_bad_ones_ignored() {
        let options = KernelOptions::parse(
            "console=ttyS0 cofferdam.log=trace cofferdam.entropy=1 panic=-1 cofferdam.bridge=/dev/hvc1",
        );
        assert_eq!(
            options,
            KernelOptions {
                level: LevelFilter::TRACE,
                entropy: true,
                bridge: Some("/dev/hvc1".into())
            }
        );
        let options =
            KernelOptions::parse("cofferdam.log=loud cofferdam.entropy -- -e 1 /bin/gcs -loglevel debug");
        assert_eq!(
            options,
            KernelOptions {
                level: LevelFilter::DEBUG,
                entropy: false,
                bridge: None
            }
        );
    }
}
