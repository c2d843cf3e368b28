//! The command line's options as wishes for a spec.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context, Result, bail};
use cofferdam_runspec::{Variable, Wishes, variables_of_file};

use crate::args::ImageRunArgs;

/// Most that is read of a file of variables, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What the options say.
pub(super) fn wishes(options: &ImageRunArgs, command: Vec<String>, terminal: bool) -> Result<Wishes> {
    let own = |name: &str| std::env::var(name).ok();
    let mut variables = Vec::new();
    for file in &options.env_file {
        variables.extend(variables_of_file(
            &file.display().to_string(),
            &text_of(file)?,
            &own,
        )?);
    }
    for text in &options.env {
        variables.push(Variable::parse(text, &own)?);
    }
    let mounts = [&options.volume, &options.mount, &options.tmpfs];
    Ok(Wishes {
        entrypoint: options.entrypoint.clone(),
        command,
        variables,
        working_directory: options.workdir.clone(),
        user: options.user.clone(),
        hostname: options.hostname.clone(),
        terminal,
        read_only: options.read_only,
        mounts: mounts.into_iter().flatten().cloned().collect(),
        add_capabilities: options.cap_add.clone(),
        drop_capabilities: options.cap_drop.clone(),
    })
}

fn text_of(file: &Path) -> Result<String> {
    let reading = || format!("reading the variables of {}", file.display());
    let mut text = String::new();
    let opened = File::open(file).with_context(reading)?;
    opened
        .take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(reading)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!(
            "{}: more than {MAX_FILE_BYTES} bytes of variables",
            file.display()
        );
    }
    Ok(text)
}
