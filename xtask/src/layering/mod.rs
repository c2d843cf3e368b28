//! `cargo xtask layering`: the dependencies between the crates, and other rules a machine can hold, against
//! `layering.toml`.

pub(crate) mod metadata;
mod rules;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{progress::Step, tool::Tool};
use rules::Rules;

const FILE: &str = "layering.toml";

/// Checks the repository at `root`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let step = Step::start("Layering");
    let text = fs::read_to_string(root.join(FILE)).with_context(|| format!("could not read {FILE}"))?;
    let rules: Rules = toml::from_str(&text).with_context(|| format!("{FILE} is not as expected"))?;
    let metadata = metadata::read(root)?;
    let graph = metadata.graph()?;
    let mut broken = rules::check_edges(&rules, &graph);
    broken.extend(rules::check_pure(&rules, &graph));
    let files = files(root)?;
    let mut lines = BTreeMap::new();
    for path in &files {
        // What is not text (an image, a captured file) holds no source.
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        lines.insert(path.clone(), text.lines().count());
        broken.extend(rules::check_text(&rules, path, &text));
        if path.ends_with(".rs") {
            broken.extend(rules::check_source(
                &rules,
                metadata.crate_of(root, path),
                path,
                &text,
            ));
        }
        if path.ends_with("/Cargo.toml") && !is_workspace(&text) && !inherits_lints(&text) {
            broken.push(format!(
                "{path} does not take the workspace's lints: add `[lints]` with `workspace = true`"
            ));
        }
    }
    broken.extend(rules::check_stale(&rules, |path| {
        lines.get(path).is_some_and(|&n| n > rules.max_lines)
    }));
    if !broken.is_empty() {
        let list: Vec<_> = broken.iter().map(|line| format!("  {line}")).collect();
        bail!(
            "{} rules of {FILE} are broken:\n{}",
            broken.len(),
            list.join("\n")
        );
    }
    step.done(format!("{} crates, {} files", rules.edges.len(), files.len()));
    Ok(())
}

/// The files of the repository, those not yet added included, those ignored not.
fn files(root: &Path) -> Result<Vec<String>> {
    // A checkout may belong to another user than the one who checks it.
    let list = Tool::new("git")
        .args([
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .in_dir(root)
        .read()
        .context("the rules apply to the files that git tracks, and git could not list them")?;
    let mut files: Vec<_> = list
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    files.retain(|path| root.join(path).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

/// Whether a manifest starts a workspace of its own, which has no other's lints to take.
fn is_workspace(manifest: &str) -> bool {
    manifest.lines().any(|line| line.trim() == "[workspace]")
}

/// Whether a crate's manifest takes the workspace's lints, which deny unsafe code.
fn inherits_lints(manifest: &str) -> bool {
    let Ok(table) = manifest.parse::<toml::Table>() else {
        return false;
    };
    table
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        .and_then(toml::Value::as_bool)
        == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_without_the_workspaces_lints_is_seen() {
        assert!(inherits_lints(
            "[package]\nname = \"a\"\n[lints]\nworkspace = true\n"
        ));
        assert!(!inherits_lints("[package]\nname = \"a\"\n"));
        assert!(!inherits_lints("[lints.rust]\nunsafe_code = \"allow\"\n"));
    }

    #[test]
    fn the_repositorys_rules_can_be_read_and_do_not_break_themselves() {
        let text = include_str!("../../../layering.toml");
        let rules: Rules = toml::from_str(text).unwrap();
        assert_eq!(rules::check_text(&rules, FILE, text), Vec::<String>::new());
        assert!(
            rules
                .pure
                .crates
                .iter()
                .all(|name| rules.edges.contains_key(name))
        );
    }
}
