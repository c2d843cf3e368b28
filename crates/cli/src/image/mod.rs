//! `cofferdam image`: the store of images, filled and emptied.

mod import;
mod list;
mod pull;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, Result};
use cofferdam_store::{Store, StoreError, Variant};

pub(crate) use self::{pull::pull, watch::Bars};
use crate::{
    args::{ImageArgs, ImageCommand, LayerFormat, StoreArgs, VariantArgs},
    exit::Exit,
    progress,
};

/// Runs the command.
pub(crate) fn execute(args: &ImageArgs) -> Exit {
    Exit::of(run(args))
}

fn run(args: &ImageArgs) -> Result<()> {
    let store = open_store(&args.store)?;
    match &args.command {
        ImageCommand::Pull(args) => pull::execute(&store.with_largest_layer(args.variant.max_layer), args),
        ImageCommand::Import(args) => {
            import::execute(&store.with_largest_layer(args.variant.max_layer), args)
        }
        ImageCommand::List { format } => list::list(&store, *format),
        ImageCommand::Inspect { image } => list::inspect(&store, image),
        ImageCommand::Remove { images } => remove(&store, images),
        ImageCommand::Prune => {
            report(&store.collect()?);
            Ok(())
        }
    }
}

/// The store that is meant.
pub(crate) fn open_store(args: &StoreArgs) -> Result<Store> {
    let dir = args.store.clone().map_or_else(default_store, Ok)?;
    Store::open(&dir).with_context(|| {
        format!(
            "opening the store {}; another can be named with --store",
            dir.display()
        )
    })
}

fn default_store() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/cofferdam".into());
    }
    let data = match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(data), _) if !data.is_empty() => PathBuf::from(data),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".local/share"),
        _ => anyhow::bail!("neither XDG_DATA_HOME nor HOME is set: name the store with --store"),
    };
    Ok(data.join("cofferdam"))
}

/// How the layers are to be made.
pub(crate) fn variant_of(args: &VariantArgs) -> Variant {
    Variant {
        erofs: args.format == LayerFormat::Erofs,
        verity: args.verity,
    }
}

fn remove(store: &Store, images: &[String]) -> Result<()> {
    let mut first_error: Option<StoreError> = None;
    for image in images {
        match store.remove(image) {
            Ok((names, collected)) => {
                for name in names {
                    println!("removed {name}");
                }
                report(&collected);
            }
            // The others are removed all the same.
            Err(error) => {
                if let Some(earlier) = first_error.replace(error) {
                    eprintln!("cofferdam: {earlier}");
                }
            }
        }
    }
    first_error.map_or(Ok(()), |error| Err(error.into()))
}

fn report(collected: &cofferdam_store::Collected) {
    if collected.layers > 0 {
        println!(
            "freed {} of {} layers",
            progress::bytes(collected.bytes),
            collected.layers
        );
    }
    if collected.in_use > 0 {
        println!("{} layers are in use and stay until then", collected.in_use);
    }
    if collected.postponed {
        println!("an image is being added: what is not needed goes with `cofferdam image prune`");
    }
}
