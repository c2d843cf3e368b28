//! The image in the store, and the spec of its container.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use cofferdam_runspec::{ImageConfig, Place, specify};
use cofferdam_store::{Image, Reference, Store, StoreError, Variant};

use super::{
    bundle::{ImageBundle, dir},
    wishes::wishes,
};
use crate::{
    args::{ImageRunArgs, Pull},
    image::{Bars, open_store, pull},
};

/// What is asked for.
pub(super) struct Request<'a> {
    pub(super) name: &'a str,
    pub(super) options: &'a ImageRunArgs,
    pub(super) pull: Pull,
    pub(super) command: Vec<String>,
    pub(super) terminal: bool,
    pub(super) process_isolation: bool,
    pub(super) id: &'a str,
}

/// The bundle that is to be made for an image.
pub(super) fn bundle(request: Request<'_>) -> Result<ImageBundle> {
    let Request {
        name, options, id, ..
    } = request;
    let wishes = wishes(options, request.command, request.terminal)?;
    let store = open_store(&options.store)?;
    let image = image_of(&store, options, request.pull, name)?;
    if image.layers.is_empty() {
        bail!("the image {name} has no layers, and so nothing to run");
    }
    let lease = store
        .lease(&image.layers)
        .with_context(|| format!("using the layers of {name}"))?;
    let config = serde_json::from_slice(&image.config_json)
        .with_context(|| format!("reading the configuration {} of {name}", image.id))?;
    // As the mount table has it, and whatever directory somebody else is in.
    let root = store
        .root()
        .canonicalize()
        .with_context(|| format!("looking for the store {}", store.root().display()))?;
    let folder = |folder: PathBuf| {
        let absolute = folder.canonicalize();
        absolute.with_context(|| format!("looking for the layer {}", folder.display()))
    };
    let layers = image.layers.into_iter().map(|layer| folder(layer.folder));
    let place = Place {
        layers: layers.collect::<Result<_>>()?,
        scratch: ".".into(),
        working_directory: std::env::current_dir().context("asking for the working directory")?,
        volumes: root.join("volumes"),
        id: id.to_owned(),
        process_isolation: request.process_isolation,
    };
    let config = ImageConfig::from_document(&config)?;
    let specified = specify(&config, &wishes, &place)?;
    for source in &specified.sources {
        std::fs::metadata(source).with_context(|| format!("the source {} of a --mount", source.display()))?;
    }
    Ok(ImageBundle {
        dir: dir(&root.join("containers"), id),
        specified,
        scratch_bytes: options.scratch_size,
        _lease: lease,
    })
}

fn image_of(store: &Store, options: &ImageRunArgs, policy: Pull, name: &str) -> Result<Image> {
    if policy != Pull::Always {
        match store.image(name) {
            Err(StoreError::NotFound(_)) => {}
            found => return Ok(found?),
        }
        if policy == Pull::Never {
            return Err(not_there(name));
        }
    }
    // A name without a registry is one of this store alone.
    let reference: Reference = name.parse().map_err(|_| not_there(name))?;
    if reference.host().is_none() {
        return Err(not_there(name));
    }
    let platform = options.platform.clone().unwrap_or_default();
    // Progress is on standard error; standard output is the container's.
    let bars = Bars::new(false);
    pull(
        store,
        &reference,
        &platform,
        Variant::default(),
        &options.registry,
        &bars,
    )
    .with_context(|| format!("pulling {reference}"))
}

fn not_there(name: &str) -> anyhow::Error {
    let bundle = match PathBuf::from("config.json").exists() {
        true => "; for the bundle in this directory, `--bundle .`",
        false => "",
    };
    anyhow!(
        "no image `{name}` in the store: `cofferdam image list` shows those there are, `cofferdam image import PATH` \
         takes one from a layout or from what `docker save` writes, and one of a registry is named with its host, as in \
         `registry.example/{name}`{bundle}"
    )
}
