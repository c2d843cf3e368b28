//! The command line's order: what follows an image's name belongs to the container's command, but options may stand on
//! either side of a bundle's container.

use std::ffi::OsString;

use clap::Parser;

use super::{Cli, Command};

/// Reads the command line; ends the process where it is wrong, or only asks for help.
pub(crate) fn parse() -> Cli {
    parsed(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
}

fn parsed(mut words: Vec<OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(&words)?;
    let (Command::Run(run) | Command::Create(run)) = &cli.command else {
        return Ok(cli);
    };
    let taken = run.words.len();
    if run.bundle.is_none() || taken < 2 {
        return Ok(cli);
    }
    // They are the last ones. With the container's name behind them, options are options.
    let first = words.len() - taken;
    words[first..].rotate_left(1);
    Cli::try_parse_from(&words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::run::Target;

    fn run(line: &str) -> Box<super::super::RunArgs> {
        let words = ["cofferdam", "run"].into_iter().chain(line.split_whitespace());
        match parsed(words.map(OsString::from).collect()).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    fn image(name: &str, command: &[&str]) -> Target {
        Target::Image {
            image: name.to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn what_follows_an_image_is_its_command_and_options_before_it_are_ours() {
        let args = run("-it -e A=1 --memory 256M busybox --tty -e B ls --memory=1");
        assert_eq!(
            args.target().unwrap(),
            image("busybox", &["--tty", "-e", "B", "ls", "--memory=1"])
        );
        assert!(args.tty && args.interactive && args.image.env == ["A=1"]);
        assert_eq!(run("box -- ls").target().unwrap(), image("box", &["--", "ls"]));
        assert_eq!(run("-- box ls").target().unwrap(), image("box", &["ls"]));
    }

    #[test]
    fn options_stand_on_either_side_of_a_bundles_container() {
        let bundle = |id: Option<&str>| Target::Bundle {
            dir: "b".into(),
            id: id.map(str::to_owned),
        };
        for line in [
            "--bundle b --timings demo",
            "--bundle b demo --timings",
            "-b b demo --memory 256M --timings",
            "-b b --name demo --timings",
        ] {
            let args = run(line);
            assert_eq!(args.target().unwrap(), bundle(Some("demo")), "{line}");
            assert!(args.vm.timings, "{line}");
        }
        assert_eq!(run("--bundle b").target().unwrap(), bundle(None));
        for (line, words) in [
            (
                "--bundle b demo further",
                "with --bundle there is only the container's name",
            ),
            ("--bundle b a/b", "a container's name has"),
            ("--bundle b --name x demo", "two names"),
        ] {
            let error = run(line).target().unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn an_images_options_and_a_bundle_are_not_for_each_other() {
        let words = ["cofferdam", "run", "--bundle", "b", "-e", "A=1"].map(OsString::from);
        let error = parsed(words.into()).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict);
    }
}
