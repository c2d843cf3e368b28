//! `cargo xtask layers`: two real read-only layers and an empty scratch disk, in the layout a bundle's
//! `windows.layerFolders` name: `base/layer.vhd`, `upper/layer.vhd` (ext4 in fixed VHDs), `scratch/sandbox.vhdx`.

pub(crate) mod image;
mod userland;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

pub(crate) use userland::{ADDED, DELETED, REPLACED};

use crate::{
    cached::Store,
    debs, fingerprint,
    progress::{Step, bytes},
    workspace,
};

/// Counted up when the making of the layers changes in a way their inputs do not show.
const RECIPE: &str = "1";
const SCRATCH_MIB: u64 = 1024;

/// Layers in the cache. The read-only ones may be used in place; the scratch disk is to be copied.
pub(crate) struct Layers {
    /// The directory that holds `base`, `upper` and `scratch`.
    pub dir: PathBuf,
}

impl Layers {
    /// The folder of the base layer.
    pub(crate) fn base(&self) -> PathBuf {
        self.dir.join("base")
    }

    /// The folder of the layer above it.
    pub(crate) fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// A writable copy of the scratch folder.
    pub(crate) fn copy_scratch(&self, to: &Path) -> Result<()> {
        workspace::create_dir(to)?;
        fs::copy(self.dir.join("scratch/sandbox.vhdx"), to.join("sandbox.vhdx"))?;
        Ok(())
    }
}

/// The layers, from the cache or newly made; with `refresh`, from the newest packages.
pub(crate) fn obtain(refresh: bool) -> Result<Layers> {
    let store = Store::open("layers")?;
    let changes = [RECIPE, userland::ADDED.1, userland::REPLACED.1, userland::DELETED];
    let recipe = fingerprint::of(userland::PACKAGES.iter().copied().chain(changes));
    if !refresh && let Some(dir) = store.current(&recipe) {
        return Ok(Layers { dir });
    }
    let packages = debs::resolve(userland::PACKAGES)?;
    let versions = fingerprint::of(packages.iter().map(|package| &package.version));
    if let Some(dir) = store.select(&versions, &recipe)? {
        return Ok(Layers { dir });
    }
    let step = Step::start("Making the layers");
    let scratch = store.scratch()?;
    let at = |name: &str| scratch.path().join(name);
    step.at(format!("downloading {} packages", packages.len()));
    let files = debs::download(&packages, &at("debs"))?;
    for folder in [
        "tree/base",
        "tree/upper",
        "ready/base",
        "ready/upper",
        "ready/scratch",
    ] {
        workspace::create_dir(&at(folder))?;
    }
    step.at("unpacking the packages");
    let state = at("owners");
    userland::base(&files, &at("tree/base"), &state)?;
    userland::upper(&at("tree/upper"), &state)?;
    for layer in ["base", "upper"] {
        step.at(format!("making the {layer} layer"));
        let raw = at(&format!("{layer}.ext4"));
        image::read_only_ext4(&at(&format!("tree/{layer}")), &raw, &state)?;
        image::fixed_vhd(&raw, &at(&format!("ready/{layer}/layer.vhd")))?;
    }
    step.at("making the scratch disk");
    image::empty_ext4(&at("scratch.ext4"), SCRATCH_MIB)?;
    image::convert(
        &at("scratch.ext4"),
        "vhdx",
        Some("subformat=dynamic"),
        &at("ready/scratch/sandbox.vhdx"),
    )?;
    let dir = store.keep(&at("ready"), &versions, &recipe)?;
    let size = |path: &str| {
        fs::metadata(dir.join(path))
            .map(|metadata| bytes(metadata.len()))
            .unwrap_or_default()
    };
    step.done(format!(
        "base {}, upper {}",
        size("base/layer.vhd"),
        size("upper/layer.vhd")
    ));
    Ok(Layers { dir })
}
