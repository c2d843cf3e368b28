//! `cofferdam mount`: mounts of a running container, added, removed and listed by its owner.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cofferdam_container::Mounted;
use cofferdam_explain::columns;
use cofferdam_owner::{
    Root,
    control::{self, Question},
};
use cofferdam_plan::SANDBOX_PREFIX;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    args::{Format, MountAddArgs, MountCommand},
    exit::Exit,
    output::print,
};

/// A mount as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    mount_index: usize,
    destination: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_path: Option<String>,
    read_only: bool,
}

impl From<Mounted> for Listed {
    fn from(mounted: Mounted) -> Self {
        Self {
            mount_index: mounted.index,
            destination: mounted.destination,
            host_path: mounted.host_path.map(|path| path.to_string_lossy().into_owned()),
            read_only: mounted.read_only,
        }
    }
}

/// Runs the command.
pub(crate) fn execute(root: &Root, command: &MountCommand) -> Exit {
    let outcome = match command {
        MountCommand::Add(args) => add(root, args),
        MountCommand::Remove { id, destination } => remove(root, id, destination),
        MountCommand::List { id, format } => list(root, id, *format),
    };
    Exit::of(outcome)
}

fn add(root: &Root, args: &MountAddArgs) -> Result<()> {
    let mount = entry(&args.mount)?;
    let added: Listed = ask(root, &args.id, &Question::MountAdd { mount })?;
    tracing::info!(destination = added.destination, "mounted");
    Ok(())
}

fn remove(root: &Root, id: &str, destination: &str) -> Result<()> {
    let destination = destination.to_owned();
    ask::<Value>(root, id, &Question::MountRemove { destination }).map(drop)
}

fn list(root: &Root, id: &str, format: Format) -> Result<()> {
    let mounts: Vec<Listed> = ask(root, id, &Question::MountList)?;
    let text = match format {
        Format::Json => serde_json::to_string_pretty(&mounts)? + "\n",
        Format::Table => {
            let mut lines = vec![["MOUNT", "HOST PATH", "DESTINATION", "RIGHTS"].map(str::to_owned)];
            lines.extend(mounts.into_iter().map(|mount| {
                [
                    mount.mount_index.to_string(),
                    mount.host_path.unwrap_or_else(|| "-".to_owned()),
                    mount.destination,
                    if mount.read_only { "ro" } else { "rw" }.to_owned(),
                ]
            }));
            columns::render(&lines)
        }
    };
    print(&text);
    Ok(())
}

fn ask<T: DeserializeOwned>(root: &Root, id: &str, question: &Question) -> Result<T> {
    let entry = root.entry(id)?;
    if !entry.is_alive() {
        bail!("{id} does not run: its owner is gone; `cofferdam fsck --repair {id}` frees what it left");
    }
    control::ask(entry.dir(), question).with_context(|| format!("container {id}"))
}

/// An entry of a spec's `mounts` from docker's form: `type=bind,source=DIR,destination=PATH,readonly`.
fn entry(text: &str) -> Result<Value> {
    let (mut kind, mut source, mut destination) = ("bind".to_owned(), None, None);
    let mut options = Vec::new();
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .map_or((part, None), |(key, value)| (key, Some(value)));
        match (key, value) {
            ("type", Some(value)) => value.clone_into(&mut kind),
            ("source" | "src", Some(value)) => source = Some(value),
            ("destination" | "dst" | "target", Some(value)) => destination = Some(value),
            ("readonly" | "ro", None | Some("true" | "1")) => options.push("ro"),
            ("readonly" | "ro", Some("false" | "0")) => {}
            _ => bail!(
                "--mount {text}: `{part}` is not understood; it is type=, source=, destination= or readonly"
            ),
        }
    }
    let (Some(source), Some(destination)) = (source, destination) else {
        bail!("--mount {text}: a mount must have both source and a destination");
    };
    let source = if source.starts_with(SANDBOX_PREFIX) {
        source.to_owned()
    } else {
        // The owner has another working directory.
        let path = std::path::absolute(Path::new(source)).with_context(|| format!("resolving {source}"))?;
        path.to_str()
            .context("the source's path is not UTF-8")?
            .to_owned()
    };
    Ok(json!({ "type": kind, "source": source, "destination": destination, "options": options }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_form_becomes_an_entry_of_the_spec() {
        assert_eq!(
            entry("type=virtual-disk,src=/d.vhdx,dst=/data,readonly").unwrap(),
            json!({ "type": "virtual-disk", "source": "/d.vhdx", "destination": "/data", "options": ["ro"] })
        );
        let bind = entry("source=sandbox:///s,target=/s").unwrap();
        assert_eq!(
            (&bind["type"], &bind["source"]),
            (&json!("bind"), &json!("sandbox:///s"))
        );
        let relative = entry("src=x,dst=/x").unwrap();
        assert!(relative["source"].as_str().unwrap().starts_with('/'));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, words) in [
            ("src=/a", "both source and a destination"),
            ("src=/a,dst=/b,shared", "`shared`"),
            ("src=/a,dst=/b,ro=maybe", "`ro=maybe`"),
        ] {
            let error = entry(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
