//! OCI image layouts. Source: OCI image specification, "OCI Image Layout".

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use cofferdam_archive::Digest;
use oci_spec::image::Descriptor;

use crate::{
    Documents, LayerDocument, LayerSource, Platform, StoreError,
    documents::{Top, digest_in, top},
    error::At,
    source::{LocalImage, index::ArchiveIndex},
    store::read_bounded,
};

/// What names an image in a layout, in the order of preference: containerd's whole name, OCI's.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Where the layout's files are.
#[derive(Debug)]
pub(crate) enum Files {
    Directory(PathBuf),
    Archive(ArchiveIndex),
}

impl Files {
    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Directory(path) => read_bounded(&path.join(name)),
            Self::Archive(index) => index.read(name),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Directory(path) => Ok(Box::new(File::open(path.join(name))?)),
            Self::Archive(index) => Ok(Box::new(index.open(name)?)),
        }
    }
}

impl LayerSource for Files {
    fn open(&self, _number: usize, layer: &LayerDocument) -> io::Result<Box<dyn Read + Send>> {
        self.open(&blob(&layer.name()))
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The image of that name, or the only one.
pub(super) fn open(
    path: &Path,
    files: Files,
    name: Option<&str>,
    platform: &Platform,
) -> Result<LocalImage, StoreError> {
    if let Files::Directory(path) = &files {
        let marker = path.join("oci-layout");
        std::fs::metadata(&marker).at("find", &marker)?;
    }
    let what = format!("{}: index.json", path.display());
    let bytes = files.read("index.json")?;
    let Top::Index(index) = top(&what, &bytes)? else {
        return Err(StoreError::Document {
            what,
            kind: "image index",
            reason: "it is a manifest".to_owned(),
        });
    };
    let named = |descriptor: &Descriptor| {
        let annotations = descriptor.annotations().as_ref()?;
        NAMES.iter().find_map(|key| annotations.get(*key).cloned())
    };
    let candidates: Vec<_> = index
        .manifests()
        .iter()
        .filter(|descriptor| match name {
            Some(name) => descriptor.annotations().as_ref().is_some_and(|annotations| {
                NAMES
                    .iter()
                    .any(|key| annotations.get(*key).is_some_and(|there| there == name))
            }),
            None => true,
        })
        .collect();
    let names: std::collections::BTreeSet<_> =
        candidates.iter().map(|descriptor| named(descriptor)).collect();
    if names.len() > 1 {
        let names: Vec<_> = names.into_iter().flatten().collect();
        return Err(StoreError::SeveralImages {
            path: path.to_owned(),
            names: names.join(", "),
        });
    }
    // Several of one name are for several platforms.
    let first = match &candidates[..] {
        [] => return Err(StoreError::NotFound(name.unwrap_or("(any)").to_owned())),
        [only] => {
            let digest = digest_in(&what, only.digest().as_ref())?;
            let bytes = files.read(&blob(&digest))?;
            StoreError::check_digest(&what, digest, Digest::of(&bytes))?;
            bytes
        }
        _ => bytes,
    };
    let image_name = names.into_iter().next().flatten();
    let shown = image_name.clone().unwrap_or_else(|| path.display().to_string());
    let documents = Documents::gather(&shown, first, platform, &mut |digest, _, _| {
        files.read(&blob(digest))
    })?;
    Ok(LocalImage {
        name: image_name,
        documents,
        source: Box::new(files),
    })
}
