//! What fuzzing starts from: real archives, disks and documents, made by the programs that others make them with, and
//! the same each time.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{tool::Tool, workspace};

/// Bytes of a disk image that are kept: headers and tables.
const DISK_HEAD: u64 = 64 * 1024;

/// Makes all seeds anew; gives the directory that has one for each target.
pub(super) fn make() -> Result<PathBuf> {
    let dir = workspace::target().join("fuzz-seeds");
    workspace::remove_dir(&dir)?;
    for target in ["archive", "input", "layer", "disk", "documents"] {
        workspace::create_dir(&dir.join(target))?;
    }
    archives(&dir)?;
    disks(&dir.join("disk"))?;
    documents(&dir.join("documents"))?;
    Ok(dir)
}

fn archives(dir: &Path) -> Result<()> {
    let tree = dir.join("tree");
    grow(&tree)?;
    for format in ["v7", "ustar", "gnu", "posix"] {
        let path = dir.join(format!("archive/{format}.tar"));
        let mut tar = Tool::new("tar");
        tar = tar.args([
            "--create",
            "--sort=name",
            "--mtime=@1700000000.123456789",
            "--owner=70000",
            "--group=0",
        ]);
        if format == "posix" {
            tar = tar.args([
                "--xattrs",
                "--xattrs-include=*",
                "--pax-option=delete=atime,delete=ctime",
            ]);
        }
        if matches!(format, "gnu" | "posix") {
            tar = tar.arg("--sparse");
        }
        // The older formats have no room for some names; what fits is archived, with a complaint about the others.
        let (_, _, _) = tar
            .arg(format!("--format={format}"))
            .arg("--file")
            .arg(&path)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .log("fuzz-seeds")
            .observe(|_| {})?;
        let archive = fs::read(&path).with_context(|| format!("tar made no {}", path.display()))?;
        // A layer's first byte says how it is made: each file system, with and without a tree, made twice.
        for choice in [0u8, 1, 16, 17, 28, 29] {
            let seed = [&[choice], &archive[..]].concat();
            fs::write(dir.join(format!("layer/{format}-{choice}")), seed)?;
        }
        fs::copy(&path, dir.join(format!("input/{format}.tar")))?;
    }
    for sparse in ["0.0", "0.1"] {
        Tool::new("tar")
            .args(["--create", "--sparse", "--mtime=@1700000000", "--format=posix"])
            .arg(format!("--sparse-version={sparse}"))
            .arg("--file")
            .arg(dir.join(format!("archive/sparse-{sparse}.tar")))
            .arg("-C")
            .arg(&tree)
            .arg("holes")
            .run()?;
    }
    // What tar writes only when it is told to: global headers, numbers beyond octal, records of other programs.
    for (name, options) in [
        (
            "global",
            &["--format=posix", "--pax-option=comment=c,uid=7,mtime=1.5"][..],
        ),
        (
            "records",
            &[
                "--format=posix",
                "--pax-option=SCHILY.xattr.user.a:=v,LIBARCHIVE.xattr.user.b:=AQID,linkpath:=t,mtime:=-1.25",
            ],
        ),
        (
            "base-256",
            &[
                "--format=gnu",
                "--owner=:3000000",
                "--group=:4000000000",
                "--mtime=@-5",
            ],
        ),
    ] {
        Tool::new("tar")
            .args(["--create", "--sort=name", "--mtime=@1700000000"])
            .args(options.iter().copied())
            .arg("--file")
            .arg(dir.join(format!("archive/{name}.tar")))
            .arg("-C")
            .arg(&tree)
            .args(["f", "d"])
            .run()?;
    }
    let plain = dir.join("input/gnu.tar");
    Tool::new("gzip")
        .args(["--keep", "--no-name"])
        .arg(&plain)
        .run()?;
    Tool::new("zstd")
        .arg("--quiet")
        .arg(&plain)
        .arg("-o")
        .arg(dir.join("input/gnu.tar.zst"))
        .run()?;
    workspace::remove_dir(&tree)
}

/// A few files of each kind that a layer may have.
fn grow(tree: &Path) -> Result<()> {
    workspace::create_dir(&tree.join("d/e"))?;
    fs::write(tree.join("f"), "content\n")?;
    fs::write(tree.join("d/.wh.gone"), "")?;
    fs::write(tree.join("d/e/.wh..wh..opq"), "")?;
    fs::write(tree.join(format!("d/{}", "n".repeat(150))), "a long name")?;
    fs::hard_link(tree.join("f"), tree.join("d/g"))?;
    symlink("../f", tree.join("d/s"))?;
    symlink("t/".repeat(80), tree.join("long-link"))?;
    // More pieces than a header's map has room for.
    let holes = File::create(tree.join("holes"))?;
    holes.set_len(200_000)?;
    for piece in 0..6 {
        std::os::unix::fs::FileExt::write_all_at(&holes, b"data", piece * 20_000)?;
    }
    Tool::new("mkfifo").arg(tree.join("pipe")).run()
}

fn disks(dir: &Path) -> Result<()> {
    for (choice, format, options, name) in [
        (0u8, "vpc", "subformat=fixed,force_size=on", "fixed.vhd"),
        (0, "vpc", "subformat=dynamic", "dynamic.vhd"),
        (1, "vhdx", "subformat=dynamic", "disk.vhdx"),
        (2, "qcow2", "compat=1.1", "disk.qcow2"),
        (2, "qcow2", "compat=0.10", "old.qcow2"),
    ] {
        let path = dir.join(name);
        Tool::new("qemu-img")
            .args(["create", "-q", "-f", format, "-o", options])
            .arg(&path)
            .arg("64K")
            .run()?;
        let mut bytes = vec![choice];
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        // VHDX has its tables behind the first 64 KiB.
        let kept = if format == "vhdx" {
            5 * DISK_HEAD
        } else {
            DISK_HEAD + 512
        };
        file.take(kept.min(length)).read_to_end(&mut bytes)?;
        fs::write(&path, bytes)?;
    }
    Ok(())
}

fn documents(dir: &Path) -> Result<()> {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let descriptor = |kind: &str| {
        format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":10}}"#)
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor("config.v1+json"),
        descriptor("layer.v1.tar+gzip")
    );
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Cmd":["sh"],"Volumes":{{"/v":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"empty_layer":true}}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        descriptor("manifest.v1+json")
    );
    let name = format!("registry.example:5000/team/app:v1@{digest}");
    for (file, text) in [
        ("image", format!("{manifest}\0{config}")),
        ("index", index),
        ("name", name),
    ] {
        fs::write(dir.join(file), text)?;
    }
    Ok(())
}
