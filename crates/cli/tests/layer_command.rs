//! `cofferdam layer`: archives of every compression, from files and pipes, and what is left when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn layer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.arg("layer").stdin(Stdio::null());
    command
}

fn succeed(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// An archive of a small tree, plain, and compressed with both programs.
fn archives(dir: &Path) {
    fs::create_dir_all(dir.join("tree/d")).unwrap();
    fs::write(dir.join("tree/d/f"), "content\n".repeat(1000)).unwrap();
    for words in [
        &["tar", "-cf", "a.tar", "-C", "tree", "."][..],
        &["gzip", "-k", "a.tar"],
        &["zstd", "-q", "-k", "a.tar"],
    ] {
        let done = Command::new(words[0])
            .args(&words[1..])
            .current_dir(dir)
            .status()
            .unwrap();
        assert!(done.success(), "{words:?}");
    }
}

#[test]
fn every_compression_and_a_pipe_give_the_same_layer() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    archives(dir.path());
    let mut layers = Vec::new();
    for archive in ["a.tar", "a.tar.gz", "a.tar.zst"] {
        let to = path(&format!("made/{archive}/layer.vhd"));
        let said = succeed(
            layer()
                .arg("convert")
                .arg(path(archive))
                .arg(&to)
                .output()
                .unwrap(),
        );
        assert!(said.contains("3 entries"), "{said}");
        layers.push(fs::read(&to).unwrap());
    }
    let piped = layer()
        .args(["convert", "--quiet", "-"])
        .arg(path("piped.vhd"))
        .stdin(fs::File::open(path("a.tar.gz")).unwrap())
        .output()
        .unwrap();
    assert_eq!(succeed(piped), "");
    layers.push(fs::read(path("piped.vhd")).unwrap());
    assert!(layers.iter().all(|layer| *layer == layers[0]));
    assert!(layers[0].ends_with(&[0; 100]) && layers[0][layers[0].len() - 512..].starts_with(b"conectix"));
}

#[test]
fn what_was_made_is_told_to_scripts() {
    let dir = tempfile::tempdir().unwrap();
    archives(dir.path());
    let to = dir.path().join("layer.raw");
    let options = ["convert", "--json", "--verity", "--format", "erofs"];
    let told = succeed(
        layer()
            .args(options)
            .arg(dir.path().join("a.tar"))
            .arg(&to)
            .output()
            .unwrap(),
    );
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["entries"], 3);
    assert_eq!(told["fileBytes"], fs::metadata(&to).unwrap().len());
    assert_eq!(told["verityRoot"].as_str().unwrap().len(), 64);
}

#[test]
fn an_archive_that_is_wrong_is_named_and_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    archives(dir.path());
    let whole = fs::read(path("a.tar.gz")).unwrap();
    fs::write(path("cut.tar.gz"), &whole[..whole.len() / 2]).unwrap();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    fs::write(path("flipped.tar.gz"), flipped).unwrap();
    fs::write(path("text.tar"), "no archive at all ".repeat(100)).unwrap();
    fs::write(path("a.tar.xz"), b"\xFD7zXZ\0 and more").unwrap();
    fs::create_dir(path("out")).unwrap();
    fs::write(path("out/layer.vhd"), "what was there").unwrap();
    for (archive, words) in [
        ("cut.tar.gz", "cut.tar.gz"),
        ("flipped.tar.gz", "flipped.tar.gz"),
        ("text.tar", "checksum"),
        ("a.tar.xz", "xz"),
        ("none.tar", "No such file"),
    ] {
        let said = refused(
            &layer()
                .arg("convert")
                .arg(path(archive))
                .arg(path("out/layer.vhd"))
                .output()
                .unwrap(),
        );
        assert!(said.contains(words), "{archive}: {said}");
        assert_eq!(names(&path("out")), ["layer.vhd"], "{archive}");
        assert_eq!(fs::read(path("out/layer.vhd")).unwrap(), b"what was there");
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = dir.path().join("bomb.tar.gz");
    let mut header = tar_header("zeros", 100 << 30);
    header.resize(512 * 1024, 0);
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&bomb).unwrap())
        .spawn()
        .unwrap();
    let mut stdin = gzip.stdin.take().unwrap();
    stdin.write_all(&header).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        stdin.write_all(&zeros).unwrap();
    }
    drop(stdin);
    assert!(gzip.wait().unwrap().success());
    let to = dir.path().join("out/layer.vhd");
    let run = layer()
        .args(["convert", "--max-size", "32M"])
        .arg(&bomb)
        .arg(&to)
        .output()
        .unwrap();
    let said = refused(&run);
    assert!(said.contains("33554432") && said.contains("zeros"), "{said}");
    assert_eq!(names(&dir.path().join("out")), Vec::<String>::new());
}

/// A ustar header of a file.
fn tar_header(name: &str, size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124] = 0x80;
    header[128..136].copy_from_slice(&size.to_be_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// The most memory that converting an archive of so many files takes, in KiB, the program's own pages among it.
fn peak_kib(dir: &Path, entries: u32, format: &str) -> u64 {
    let archive = dir.join(format!("{entries}.tar"));
    let mut file = std::io::BufWriter::new(fs::File::create(&archive).unwrap());
    for number in 0..entries {
        let name = format!("directory-{}/a-file-of-number-{number}", number % 500);
        file.write_all(&tar_header(&name, 0)).unwrap();
    }
    file.flush().unwrap();
    let run = Command::new("/usr/bin/time")
        .args(["--quiet", "--format", "%M", env!("CARGO_BIN_EXE_cofferdam")])
        .args(["layer", "convert", "--quiet", "--format", format])
        .arg(&archive)
        .arg(dir.join("layer.raw"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{said}");
    said.trim().parse().unwrap()
}

#[test]
fn memory_is_bounded_whatever_is_in_the_archive() {
    const ENTRIES: u32 = 150_000;
    // Of 32 MB, the rest is for the program itself, of which a build with its symbols has more in memory.
    const MOST_KIB: u64 = 20 * 1024;
    let dir = tempfile::tempdir().unwrap();
    for format in ["ext4", "erofs"] {
        let one = peak_kib(dir.path(), 1, format);
        let many = peak_kib(dir.path(), ENTRIES, format);
        let more = many.saturating_sub(one);
        assert!(more < MOST_KIB, "{format}: {more} KiB for {ENTRIES} entries");
    }
}

#[test]
fn a_scratch_disk_is_made_at_once_and_never_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("scratch/sandbox.vhdx");
    let started = std::time::Instant::now();
    let said = succeed(
        layer()
            .args(["scratch", "--size", "10G"])
            .arg(&disk)
            .output()
            .unwrap(),
    );
    let taken = started.elapsed();
    assert!(said.contains("10.00 GiB"), "{said}");
    // Milliseconds where nothing else runs; here other tests may.
    assert!(taken.as_millis() < 1000, "{taken:?}");
    let said = refused(&layer().arg("scratch").arg(&disk).output().unwrap());
    assert!(said.contains("is there already"), "{said}");
    let said = refused(
        &layer()
            .args(["scratch", "--size", "1M"])
            .arg(dir.path().join("x.vhdx"))
            .output()
            .unwrap(),
    );
    assert!(said.contains("16 MiB to 16 TiB"), "{said}");
}
