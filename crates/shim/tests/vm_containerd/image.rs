//! Images for containerd's own store: busybox, with a name for each program.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const PROGRAMS: [&str; 19] = [
    "cat",
    "dd",
    "echo",
    "false",
    "hostname",
    "httpd",
    "id",
    "ip",
    "ls",
    "mount",
    "ping",
    "sh",
    "sha256sum",
    "sleep",
    "stty",
    "test",
    "touch",
    "true",
    "wc",
];

/// Writes an OCI archive of this name, whose entry point is `command`.
pub(crate) fn archive(dir: &Path, name: &str, command: &[&str]) -> PathBuf {
    let layer = layer();
    let diff = digest(&layer);
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let config = config.to_string().into_bytes();
    let blob = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest(bytes),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", &config),
        "layers": [blob("layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = blob("manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": name });
    entry["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let index: Value = json!({ "schemaVersion": 2, "manifests": [entry] });

    let path = dir.join(name.replace(['/', ':'], "-") + ".tar");
    let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| file(&mut archive, name, bytes, 0o644);
    add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add("index.json", index.to_string().as_bytes());
    for bytes in [&layer, &config, &manifest] {
        add(&format!("blobs/{}", digest(bytes).replace(':', "/")), bytes);
    }
    archive.into_inner().unwrap().flush().unwrap();
    path
}

fn layer() -> Vec<u8> {
    let busybox = fs::read("/usr/bin/busybox")
        .or_else(|_| fs::read("/bin/busybox"))
        .unwrap_or_else(|error| panic!("busybox: {error}; run `cargo xtask setup`"));
    let mut layer = tar::Builder::new(Vec::new());
    file(&mut layer, "bin/busybox", &busybox, 0o755);
    for program in PROGRAMS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer
            .append_link(&mut header, format!("bin/{program}"), "busybox")
            .unwrap();
    }
    file(&mut layer, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644);
    layer.into_inner().unwrap()
}

fn file<W: std::io::Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let digits: Vec<_> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}
