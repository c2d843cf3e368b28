//! Other people's daemons that the tests speak with, from Debian's packages: unpacked and not installed, so that no service
//! starts and none that runs is touched.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{cached::Store, debs, fingerprint, progress::Step, tool::Tool, workspace};

/// A package, and what of it is wanted.
pub(crate) struct Peer {
    package: &'static str,
    /// Programs, as the package has them. Each keeps its name.
    programs: &'static [&'static str],
    /// The cache's name for it.
    store: &'static str,
}

/// An image registry.
pub(crate) const REGISTRY: Peer = Peer {
    package: "docker-registry",
    programs: &["usr/bin/docker-registry"],
    store: "registry",
};

/// containerd and its own client.
pub(crate) const CONTAINERD: Peer = Peer {
    package: "containerd",
    programs: &["usr/bin/containerd", "usr/bin/ctr"],
    store: "containerd",
};

/// What makes a pod's network: the plugins of containernetworking-plugins.
pub(crate) const CNI: Peer = Peer {
    package: "containernetworking-plugins",
    programs: &[
        "usr/lib/cni/bridge",
        "usr/lib/cni/host-local",
        "usr/lib/cni/loopback",
    ],
    store: "cni",
};

impl Peer {
    /// The directory of its programs; fetched if they are not in the cache.
    pub(crate) fn obtain(&self) -> Result<PathBuf> {
        let Self {
            package,
            programs,
            store,
        } = self;
        let store = Store::open(store)?;
        let recipe = fingerprint::of(std::iter::once(package).chain(programs.iter()));
        if let Some(entry) = store.current(&recipe) {
            return Ok(entry);
        }
        let step = Step::start(format!("Fetching Debian's {package}"));
        let candidate = debs::resolve(&[package])?
            .pop()
            .context("invariant: one package asked, one answered")?;
        let origin = format!("{}-{}", candidate.name, candidate.version);
        if let Some(entry) = store.select(&origin, &recipe)? {
            return Ok(entry);
        }
        step.at(format!("downloading {}", candidate.version));
        let scratch = store.scratch()?;
        let files = debs::download(std::slice::from_ref(&candidate), scratch.path())?;
        let deb = files.first().context("invariant: one package asked, one file")?;
        step.at("unpacking");
        let tree = scratch.path().join("tree");
        Tool::new("dpkg-deb").arg("-x").arg(deb).arg(&tree).run()?;
        let ready = scratch.path().join("ready");
        workspace::create_dir(&ready)?;
        for program in *programs {
            let from = tree.join(program);
            let name = from
                .file_name()
                .context("invariant: a program's path has a name")?;
            fs::rename(&from, ready.join(name)).with_context(|| format!("the package has no {program}"))?;
        }
        let entry = store.keep(&ready, &origin, &recipe)?;
        step.done(origin);
        Ok(entry)
    }
}
