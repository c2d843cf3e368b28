//! What is run.

use crate::{ImageConfig, SpecifyError};

/// The process's arguments, by docker's rule: a command replaces the image's, and is given to the entrypoint; another
/// entrypoint takes the image's command away, since that was meant for the image's own. An empty one is none.
pub(crate) fn arguments(
    image: &ImageConfig,
    entrypoint: Option<&str>,
    command: &[String],
) -> Result<Vec<String>, SpecifyError> {
    let (entrypoint, image_command) = match entrypoint {
        None => (image.entrypoint.clone(), image.cmd.as_slice()),
        Some("") => (Vec::new(), [].as_slice()),
        Some(program) => (vec![program.to_owned()], [].as_slice()),
    };
    let command = if command.is_empty() {
        image_command
    } else {
        command
    };
    let arguments: Vec<_> = entrypoint.into_iter().chain(command.iter().cloned()).collect();
    if arguments.iter().all(String::is_empty) {
        return Err(SpecifyError::NoCommand);
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entrypoint_and_command_meet_as_docker_documents() {
        // The image's entrypoint and command, the user's, and what is run.
        for (entrypoint, cmd, wished, command, run) in [
            ("", "sh", None, "", Some("sh")),
            ("", "sh", None, "ls -l", Some("ls -l")),
            ("/e -x", "", None, "", Some("/e -x")),
            ("/e -x", "a b", None, "", Some("/e -x a b")),
            ("/e -x", "a b", None, "c", Some("/e -x c")),
            ("/e -x", "a b", Some("/other"), "", Some("/other")),
            ("/e -x", "a b", Some("/other"), "c d", Some("/other c d")),
            ("/e -x", "a b", Some(""), "c d", Some("c d")),
            ("/e -x", "a b", Some(""), "", None),
            ("", "", None, "", None),
            ("", "", None, "ls", Some("ls")),
            ("", "sh", Some("/other"), "", Some("/other")),
        ] {
            let image = ImageConfig {
                entrypoint: words(entrypoint),
                cmd: words(cmd),
                ..ImageConfig::default()
            };
            let got = arguments(&image, wished, &words(command));
            assert_eq!(
                got.ok(),
                run.map(words),
                "{entrypoint:?} {cmd:?} {wished:?} {command:?}"
            );
        }
    }
}
