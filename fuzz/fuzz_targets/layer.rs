//! Any bytes as an archive of a layer, in either file system: no panic, and the same bytes each time. Checksums
//! are put right: what is wrong with them is the target `archive`'s.

#![no_main]

use std::{fs::File, io::Read, io::Seek};

use cofferdam_archive::{Archive, Limits};
use cofferdam_layer::{Container, Filesystem, Layer, Options, convert};
use libfuzzer_sys::fuzz_target;

/// Layers larger than this are not compared: reading their holes takes time.
const COMPARED_BYTES: u64 = 4 << 20;

fn make(bytes: &[u8], options: &Options) -> Option<(Layer, File)> {
    let limits = Limits {
        entries: 500,
        segments: 500,
        file_bytes: 1 << 32,
        ..Limits::default()
    };
    let file = tempfile::tempfile().expect("a temporary file");
    let mut archive = Archive::new(bytes, limits);
    let layer = convert(&mut archive, &file, options).ok()?;
    Some((layer, file))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let bytes = &cofferdam_fuzz::with_checksums(bytes)[..];
    let options = Options {
        filesystem: if choice & 1 == 0 {
            Filesystem::Ext4
        } else {
            Filesystem::Erofs
        },
        container: if choice & 2 == 0 {
            Container::Vhd
        } else {
            Container::Raw
        },
        verity: choice & 4 != 0 && choice & 8 != 0,
    };
    let Some((layer, mut file)) = make(bytes, &options) else {
        return;
    };
    let length = file.metadata().expect("a file's length").len();
    assert_eq!(length, layer.file_bytes);
    if choice & 16 == 0 || length > COMPARED_BYTES {
        return;
    }
    let (again, mut other) = make(bytes, &options).expect("what was made once can be made again");
    assert_eq!(layer, again);
    let read = |file: &mut File| {
        let mut content = Vec::new();
        file.rewind()
            .and_then(|()| file.read_to_end(&mut content))
            .expect("reading it back");
        content
    };
    assert!(
        read(&mut file) == read(&mut other),
        "another layer of the same archive"
    );
});
