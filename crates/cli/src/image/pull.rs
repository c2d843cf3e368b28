//! `cofferdam image pull`.

use anyhow::{Context, Result};
use cofferdam_registry::{Credentials, Options, Remote};
use cofferdam_store::{Image, Platform, Reference, Store, Variant};

use crate::{
    args::{PullArgs, RegistryArgs},
    image::watch::Bars,
};

/// Runs the command.
pub(super) fn execute(store: &Store, args: &PullArgs) -> Result<()> {
    let name: Reference = args.image.parse()?;
    let platform = args.variant.platform.clone().unwrap_or_default();
    let bars = Bars::new(args.variant.quiet);
    let variant = super::variant_of(&args.variant);
    let image = pull(store, &name, &platform, variant, &args.registry, &bars)?;
    bars.done(&name, &image);
    Ok(())
}

/// Fetches an image into the store.
pub(crate) fn pull(
    store: &Store,
    name: &Reference,
    platform: &Platform,
    variant: Variant,
    registry: &RegistryArgs,
    bars: &Bars,
) -> Result<Image> {
    let credentials = registry
        .creds
        .as_deref()
        .map(|text| Credentials::of_text(text).context("--creds is USER:PASSWORD"));
    let options = Options {
        credentials: credentials.transpose()?,
        authorities: registry.tls_ca.iter().cloned().collect(),
        plain_http: registry.plain_http,
    };
    let remote = Remote::open(name, platform, &options)?;
    Ok(store.ingest(name, &remote.documents, variant, &remote.layers, bars)?)
}
