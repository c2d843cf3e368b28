//! Any bytes as a disk image of any name: VHD, VHDX, qcow2, raw.

#![no_main]

use cofferdam_image::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let suffix = [".vhd", ".vhdx", ".qcow2", ".raw"][usize::from(choice % 4)];
    let file = tempfile::Builder::new()
        .suffix(suffix)
        .tempfile()
        .expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("writing it");
    if let Ok(facts) = probe(file.path()) {
        assert_eq!(facts.file_size_bytes, bytes.len() as u64);
        let _ = (facts.problem_as_image(), facts.problem_as_device());
    }
});
