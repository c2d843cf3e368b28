//! `cofferdam image list` and `inspect`.

use anyhow::{Context, Result};
use cofferdam_store::{Image, ImageSummary, Store};
use serde_json::{Value, json};

use crate::moment::age;
use crate::{args::Format, progress};

/// Digits of an ID in a table: docker's number.
const SHORT: usize = 12;

/// Prints the images.
pub(super) fn list(store: &Store, format: Format) -> Result<()> {
    let images = store.list()?;
    match format {
        Format::Json => {
            let images: Vec<_> = images.iter().map(as_json).collect();
            println!("{}", serde_json::to_string_pretty(&images)?);
        }
        Format::Table => {
            let rows = images.iter().map(|image| {
                [
                    image.name.clone(),
                    image.id.hex()[..SHORT].to_owned(),
                    image.layers.to_string(),
                    progress::bytes(image.bytes).to_string(),
                    age(image.since),
                ]
            });
            let head = ["NAME", "ID", "LAYERS", "SIZE", "ADDED"].map(str::to_owned);
            print_table(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
        }
    }
    Ok(())
}

/// Prints all that is known of one.
pub(super) fn inspect(store: &Store, name: &str) -> Result<()> {
    let image = store.image(name)?;
    println!("{}", serde_json::to_string_pretty(&details(&image)?)?);
    Ok(())
}

fn as_json(image: &ImageSummary) -> Value {
    json!({
        "name": image.name,
        "id": image.id.to_string(),
        "manifestDigest": image.manifest_digest.to_string(),
        "layers": image.layers,
        "bytes": image.bytes,
        "since": image.since,
    })
}

fn details(image: &Image) -> Result<Value> {
    let config: Value =
        serde_json::from_slice(&image.config_json).context("reading the image's configuration")?;
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| {
            json!({
                "diffId": layer.diff_id.to_string(),
                "folder": layer.folder,
                "archiveBytes": layer.archive_bytes,
                "ignoredXattrs": layer.ignored_xattrs,
                "fileBytes": layer.file_bytes,
                "verityRoot": layer.verity_root,
            })
        })
        .collect();
    Ok(json!({
        "names": image.names,
        "id": image.id.to_string(),
        "manifestDigest": image.manifest_digest.to_string(),
        "format": image.variant.to_string(),
        "since": image.since,
        "layers": layers,
        "config": config,
    }))
}

fn print_table<const N: usize>(rows: &[[String; N]]) {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
