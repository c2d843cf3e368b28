//! Reads the few bytes of a file that tell its format. At most some 300 KiB are read, whatever the file says.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use crate::{ImageError, ImageFacts, ImageFormat, array, qcow2, vhd, vhdx};

/// What the file's name claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// `.vhd`, `.vhdx`, `.qcow2`: a container format; the bytes say which.
    Container,
    /// A name that plainly means raw bytes.
    Raw,
    /// Anything else: raw, unless the bytes look like a container; then nobody can tell.
    Nothing,
}

fn claim(path: &Path) -> Claim {
    match path
        .extension()
        .and_then(OsStr::to_str)
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("vhd" | "vhdx" | "qcow2") => Claim::Container,
        Some("raw" | "img" | "ext4" | "erofs" | "squashfs" | "iso" | "bin") => Claim::Raw,
        _ => Claim::Nothing,
    }
}

/// Tells what disk image `path` holds. Follows symbolic links; never writes.
///
/// # Errors
/// The file cannot be opened or read, or is neither a regular file nor a block device. An image that is
/// damaged, or that needs another file, is no error here: see [`ImageFacts::problem`].
pub fn probe(path: &Path) -> Result<ImageFacts, ImageError> {
    let read = |source| ImageError::Read {
        path: path.to_owned(),
        source,
    };
    // The kind is looked at first: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(read)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(ImageError::WrongKind {
            path: path.to_owned(),
        });
    }
    let mut file = File::open(path).map_err(read)?;
    let length = file.seek(SeekFrom::End(0)).map_err(read)?;
    if kind.is_block_device() {
        return Ok(ImageFacts {
            format: ImageFormat::BlockDevice,
            virtual_size_bytes: length,
            file_size_bytes: length,
            problem: (length == 0).then(|| "the block device has no medium".to_owned()),
        });
    }
    examine(&mut file, length, claim(path)).map_err(read)
}

fn examine(image: &mut (impl Read + Seek), length: u64, claim: Claim) -> io::Result<ImageFacts> {
    let facts = |format, outcome: Result<u64, String>| {
        let (virtual_size_bytes, problem) = match outcome {
            Ok(size) => (size, None),
            Err(problem) => (0, Some(problem)),
        };
        ImageFacts {
            format,
            virtual_size_bytes,
            file_size_bytes: length,
            problem,
        }
    };
    if length == 0 {
        return Ok(facts(ImageFormat::Raw, Err("the file is empty".to_owned())));
    }
    if claim == Claim::Raw {
        return Ok(facts(ImageFormat::Raw, Ok(length)));
    }
    let head = read_up_to(image, 0, vhd::FOOTER_LEN)?;
    let container = if head.starts_with(vhdx::SIGNATURE) {
        Some((ImageFormat::Vhdx, examine_vhdx(image, length)?))
    } else if head.starts_with(qcow2::MAGIC) {
        Some((
            ImageFormat::Qcow2,
            qcow2::virtual_size(&head[..head.len().min(qcow2::HEADER_LEN)]),
        ))
    } else {
        examine_vhd(image, length, &head)?
    };
    Ok(match (claim, container) {
        (Claim::Container, Some((format, outcome))) => facts(format, outcome),
        (Claim::Container, None) => {
            let problem = "the name says VHD, VHDX or qcow2, but the file holds none of them";
            facts(ImageFormat::Raw, Err(problem.to_owned()))
        }
        // A footer does not hide the data before it, so such a file is right either way.
        (_, None | Some((ImageFormat::VhdFixed, _))) => facts(ImageFormat::Raw, Ok(length)),
        (_, Some((format, _))) => {
            let problem = format!(
                "it begins like a {format} image but its name does not say so: name it .vhd, .vhdx or .qcow2 if it \
                 is one, .raw if these are a guest's own bytes"
            );
            facts(format, Err(problem))
        }
    })
}

/// `None` if there is no sign of a VHD at all.
fn examine_vhd(
    image: &mut (impl Read + Seek),
    length: u64,
    head: &[u8],
) -> io::Result<Option<(ImageFormat, Result<u64, String>)>> {
    if length < vhd::FOOTER_LEN as u64 {
        return Ok(None);
    }
    let data_end = length - vhd::FOOTER_LEN as u64;
    let tail = read_up_to(image, data_end, vhd::FOOTER_LEN)?;
    // A dynamic disk keeps a copy of its footer in front, and may have lost the one at the end.
    let at_end = tail.starts_with(vhd::COOKIE);
    let (Some(bytes), true) = (
        array(if at_end { &tail } else { head }, 0),
        at_end || head.starts_with(vhd::COOKIE),
    ) else {
        return Ok(None);
    };
    let fallback = if head.starts_with(vhd::COOKIE) {
        ImageFormat::VhdDynamic
    } else {
        ImageFormat::VhdFixed
    };
    let footer = match vhd::footer(&bytes) {
        Ok(footer) => footer,
        Err(problem) => return Ok(Some((fallback, Err(problem)))),
    };
    match footer.kind {
        vhd::Kind::Fixed if !at_end => Ok(Some((
            ImageFormat::VhdFixed,
            Err("the fixed VHD's footer is not at its end".to_owned()),
        ))),
        vhd::Kind::Fixed if footer.current_size > data_end => {
            let problem = format!(
                "the VHD states {} bytes but holds {data_end}",
                footer.current_size
            );
            Ok(Some((ImageFormat::VhdFixed, Err(problem))))
        }
        vhd::Kind::Fixed => Ok(Some((ImageFormat::VhdFixed, Ok(footer.current_size)))),
        vhd::Kind::Dynamic => {
            let header = read_up_to(image, footer.data_offset, vhd::DYNAMIC_HEADER_LEN)?;
            let outcome = match array(&header, 0) {
                Some(header) => vhd::dynamic_header(&header).map(|()| footer.current_size),
                None => Err("the dynamic VHD's header is missing".to_owned()),
            };
            Ok(Some((ImageFormat::VhdDynamic, outcome)))
        }
    }
}

fn examine_vhdx(image: &mut (impl Read + Seek), length: u64) -> io::Result<Result<u64, String>> {
    let mut has_header = false;
    for offset in vhdx::HEADER_OFFSETS {
        has_header |= vhdx::header_is_valid(&read_up_to(image, offset, vhdx::HEADER_LEN)?);
    }
    if !has_header {
        return Ok(Err("both VHDX headers are damaged".to_owned()));
    }
    let mut region = None;
    for offset in vhdx::REGION_TABLE_OFFSETS {
        let table = read_up_to(image, offset, vhdx::REGION_TABLE_LEN)?;
        region = region.or_else(|| vhdx::metadata_region(&table));
    }
    let Some((offset, size)) = region else {
        return Ok(Err("both VHDX region tables are damaged".to_owned()));
    };
    if offset.checked_add(u64::from(size)).is_none_or(|end| end > length) {
        return Ok(Err("the VHDX metadata lies beyond the file's end".to_owned()));
    }
    let items = match vhdx::metadata_items(&read_up_to(image, offset, vhdx::METADATA_TABLE_LEN)?) {
        Ok(items) => items,
        Err(problem) => return Ok(Err(problem)),
    };
    let mut item = |at: u32| -> io::Result<Option<[u8; 8]>> {
        let Some(at) = offset.checked_add(u64::from(at)) else {
            return Ok(None);
        };
        Ok(array(&read_up_to(image, at, 8)?, 0))
    };
    match (item(items.file_parameters)?, item(items.virtual_size)?) {
        (Some(parameters), Some(size)) => Ok(vhdx::virtual_size(parameters, size)),
        _ => Ok(Err("the VHDX metadata lies beyond the file's end".to_owned())),
    }
}

/// Up to `length` bytes from `offset`; fewer where the file ends.
fn read_up_to(image: &mut (impl Read + Seek), offset: u64, length: usize) -> io::Result<Vec<u8>> {
    // Offsets come from the file; what no file can have is as good as its end.
    if offset > i64::MAX as u64 {
        return Ok(Vec::new());
    }
    image.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(length);
    image.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::{qcow2::tests::sample_header, vhd::tests::sample_footer};

    fn examined(bytes: Vec<u8>, claim: Claim) -> ImageFacts {
        let length = bytes.len() as u64;
        examine(&mut Cursor::new(bytes), length, claim).expect("memory can be read")
    }

    fn fixed_vhd(data: usize, stated: u64) -> Vec<u8> {
        let mut bytes = vec![0; data];
        bytes.extend(sample_footer(2, stated));
        bytes
    }

    #[test]
    fn fixed_vhd_shows_the_guest_its_data_but_not_its_footer() {
        let facts = examined(fixed_vhd(8192, 8192), Claim::Container);
        assert_eq!(
            (facts.format, facts.virtual_size_bytes),
            (ImageFormat::VhdFixed, 8192)
        );
        assert_eq!((facts.file_size_bytes, facts.problem), (8704, None));
    }

    #[test]
    fn fixed_vhd_that_states_more_than_it_holds_is_refused() {
        let problem = examined(fixed_vhd(8192, 16384), Claim::Container)
            .problem
            .expect("refused");
        assert!(problem.contains("16384") && problem.contains("8192"), "{problem}");
    }

    #[test]
    fn raw_image_in_which_a_guest_wrote_a_qcow2_header_stays_raw() {
        let mut bytes = sample_header(1 << 40).to_vec();
        bytes.resize(8192, 0);
        let facts = examined(bytes.clone(), Claim::Raw);
        assert_eq!(
            (facts.format, facts.virtual_size_bytes, facts.problem),
            (ImageFormat::Raw, 8192, None)
        );
        // Where the name says nothing, nobody can tell: refused, not guessed.
        let facts = examined(bytes, Claim::Nothing);
        assert!(
            facts
                .problem
                .expect("refused")
                .contains("name it .vhd, .vhdx or .qcow2")
        );
    }

    #[test]
    fn raw_image_with_a_footer_in_it_stays_raw_and_whole() {
        let facts = examined(fixed_vhd(8192, 4096), Claim::Nothing);
        assert_eq!(
            (facts.format, facts.virtual_size_bytes, facts.problem),
            (ImageFormat::Raw, 8704, None)
        );
    }

    #[test]
    fn container_name_over_other_bytes_is_refused() {
        let facts = examined(vec![7; 4096], Claim::Container);
        assert!(facts.problem.expect("refused").contains("holds none of them"));
    }

    #[test]
    fn name_decides_only_whether_a_container_is_looked_for() {
        for (name, expected) in [
            ("/a/layer.vhd", Claim::Container),
            ("/a/s.VHDX", Claim::Container),
            ("x.qcow2", Claim::Container),
            ("x.raw", Claim::Raw),
            ("x", Claim::Nothing),
            ("x.vhd.bak", Claim::Nothing),
        ] {
            assert_eq!(claim(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn pipes_and_directories_are_refused_without_waiting() {
        assert!(matches!(probe(Path::new("/")), Err(ImageError::WrongKind { .. })));
        assert!(matches!(
            probe(Path::new("/dev/null")),
            Err(ImageError::WrongKind { .. })
        ));
        assert!(matches!(
            probe(Path::new("/nonexistent")),
            Err(ImageError::Read { .. })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            for claim in [Claim::Container, Claim::Nothing, Claim::Raw] {
                let _ = examined(bytes.clone(), claim);
            }
        }

        #[test]
        fn random_bytes_behind_a_signature_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2048),
            which in 0usize..4,
        ) {
            let signature: &[u8] = [&vhdx::SIGNATURE[..], qcow2::MAGIC, vhd::COOKIE, b"metadata"][which];
            let mut image = signature.to_vec();
            image.extend(&bytes);
            let _ = vhdx::metadata_items(&image);
            let _ = vhdx::metadata_region(&image);
            let _ = examined(image, Claim::Container);
        }

        #[test]
        fn random_footers_with_right_checksums_never_panic(kind in 0u32..6, size in any::<u64>(), data in 0usize..2048) {
            let mut image = vec![0; data];
            image.extend(sample_footer(kind, size));
            let facts = examined(image, Claim::Container);
            prop_assert!(facts.problem.is_some() || facts.virtual_size_bytes <= data as u64);
        }
    }
}
