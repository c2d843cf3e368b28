//! Debian's image registry, for the tests that pull from one: unpacked from its package, so that no service starts.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{cached::Store, debs, fingerprint, progress::Step, tool::Tool, workspace};

/// The package, and its program in it.
const PACKAGE: &str = "docker-registry";
const PROGRAM: &str = "usr/bin/docker-registry";

/// The program's path; fetched if it is not in the cache.
pub(crate) fn obtain() -> Result<PathBuf> {
    let store = Store::open("registry")?;
    let recipe = fingerprint::of([PACKAGE, PROGRAM]);
    let program = |entry: PathBuf| entry.join(PACKAGE);
    if let Some(entry) = store.current(&recipe) {
        return Ok(program(entry));
    }
    let step = Step::start("Fetching Debian's image registry");
    let package = debs::resolve(&[PACKAGE])?
        .pop()
        .context("invariant: one package asked, one answered")?;
    let origin = format!("{}-{}", package.name, package.version);
    if let Some(entry) = store.select(&origin, &recipe)? {
        return Ok(program(entry));
    }
    step.at(format!("downloading {}", package.version));
    let scratch = store.scratch()?;
    let files = debs::download(std::slice::from_ref(&package), scratch.path())?;
    let deb = files.first().context("invariant: one package asked, one file")?;
    step.at("unpacking");
    let tree = scratch.path().join("tree");
    Tool::new("dpkg-deb").arg("-x").arg(deb).arg(&tree).run()?;
    let ready = scratch.path().join("ready");
    workspace::create_dir(&ready)?;
    fs::rename(tree.join(PROGRAM), ready.join(PACKAGE))
        .with_context(|| format!("the package has no {PROGRAM}"))?;
    let entry = store.keep(&ready, &origin, &recipe)?;
    step.done(origin);
    Ok(program(entry))
}
