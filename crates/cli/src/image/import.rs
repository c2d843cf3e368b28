//! `cofferdam image import`.

use anyhow::{Context, Result};
use cofferdam_store::{Reference, Store, open_local};

use crate::{args::ImportArgs, image::watch::Bars};

/// Runs the command.
pub(super) fn execute(store: &Store, args: &ImportArgs) -> Result<()> {
    let platform = args.variant.platform.clone().unwrap_or_default();
    let local = open_local(&args.path, args.image.as_deref(), &platform)?;
    let name = args.name.as_ref().or(local.name.as_ref()).with_context(|| {
        format!(
            "{} does not say what its image is called: `cofferdam image import {} NAME`",
            args.path.display(),
            args.path.display()
        )
    })?;
    let name: Reference = name.parse()?;
    let bars = Bars::new(args.variant.quiet);
    let image = store.ingest(
        &name,
        &local.documents,
        super::variant_of(&args.variant),
        local.source.as_ref(),
        &bars,
    )?;
    bars.done(&name, &image);
    Ok(())
}
