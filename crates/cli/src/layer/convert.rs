//! `cofferdam layer convert`: an archive becomes a layer's disk.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    time::Instant,
};

use anyhow::{Context, Result};
use cofferdam_archive::{Archive, Input, InputOptions, Limits};
use cofferdam_layer::{Container, Filesystem, Layer, Options, convert};
use serde_json::json;

use crate::{
    args::{ConvertArgs, LayerFormat},
    progress::{self, Bar},
};

/// Runs the command.
pub(super) fn execute(args: &ConvertArgs) -> Result<()> {
    let started = Instant::now();
    let (source, length) = open(&args.archive)?;
    let bar = Bar::bytes(length, args.quiet || args.json, "converting");
    let input = Input::new(bar.reading(source), InputOptions::default())
        .with_context(|| format!("reading {}", args.archive.display()))?
        .limited(args.max_size);
    let options = Options {
        filesystem: match args.format {
            LayerFormat::Ext4 => Filesystem::Ext4,
            LayerFormat::Erofs => Filesystem::Erofs,
        },
        container: container_of(&args.layer),
        verity: args.verity,
    };
    let limits = Limits {
        archive_bytes: args.max_size,
        ..Limits::default()
    };
    let layer = write(input, &args.layer, &options, limits)
        .with_context(|| format!("making {} from {}", args.layer.display(), args.archive.display()))?;
    bar.finish();
    if layer.ignored_xattrs > 0 && !args.quiet {
        eprintln!(
            "cofferdam: {} extended attributes were left out: Linux has none of their kind",
            layer.ignored_xattrs
        );
    }
    let root = layer.verity_root.map(|root| root.hex());
    if args.json {
        println!(
            "{}",
            json!({
                "layer": args.layer,
                "entries": layer.entries,
                "filesystemBytes": layer.filesystem_bytes,
                "fileBytes": layer.file_bytes,
                "verityRoot": root,
            })
        );
    } else if !args.quiet {
        println!(
            "{}: {} entries, {}, {:.2} s",
            args.layer.display(),
            layer.entries,
            progress::bytes(layer.file_bytes),
            started.elapsed().as_secs_f64()
        );
        if let Some(root) = root {
            println!("verity root {root}");
        }
    }
    Ok(())
}

fn open(archive: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if archive == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let length = file
        .metadata()
        .ok()
        .filter(fs::Metadata::is_file)
        .map(|facts| facts.len());
    Ok((Box::new(file), length))
}

/// Writes the layer under a name of its own, and gives it its name when it is complete.
fn write(input: Input, layer: &Path, options: &Options, limits: Limits) -> Result<Layer> {
    let directory = match layer.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let file = tempfile::Builder::new()
        .prefix(".layer-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .with_context(|| format!("making a file in {}", directory.display()))?;
    let mut archive = Archive::new(input, limits);
    let made = convert(&mut archive, file.as_file(), options)?;
    archive
        .finish()?
        .finish()
        .context("reading the archive to its end")?;
    file.persist(layer)
        .with_context(|| format!("giving the layer its name {}", layer.display()))?;
    Ok(made)
}

/// What the layer's name says is around the file system.
fn container_of(layer: &Path) -> Container {
    match layer.extension().and_then(|extension| extension.to_str()) {
        Some("raw" | "img") => Container::Raw,
        _ => Container::Vhd,
    }
}
