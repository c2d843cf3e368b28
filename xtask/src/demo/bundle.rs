//! The demo's bundle: host directories and disks of every kind the contract knows, and a script that shows them from
//! inside the container.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    layers::{self, Layers, image},
    workspace,
};

/// The exit code of the container's script when everything is as it should be.
pub(super) const EXIT_CODE: i32 = 7;

/// What the container writes to the disk that is passed through, for the host to find.
pub(super) const WRITTEN: &str = "written inside the container";

const DISK_MIB: u64 = 64;

/// The files of the demo, all below one directory.
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the directories, the disks and a fresh scratch disk.
    pub(super) fn make(dir: &Path, layers: &Layers) -> Result<Self> {
        workspace::remove_dir(dir)?;
        for part in ["bundle", "host/directory", "host/files", "disks"] {
            workspace::create_dir(&dir.join(part))?;
        }
        let files = Files { dir: dir.to_owned() };
        fs::write(
            dir.join("host/directory/hello"),
            "hello from a directory of the host\n",
        )?;
        fs::write(files.single_file(), "a line from the host\n")?;
        fs::write(
            dir.join("host/files/secret"),
            "beside the shared file, and not shared\n",
        )?;
        let raw = files.physical_image();
        image::empty_ext4(&raw, DISK_MIB)?;
        image::convert(&raw, "qcow2", None, &files.virtual_disk())?;
        image::convert(&raw, "vhdx", Some("subformat=dynamic"), &files.automanaged_disk())?;
        layers.copy_scratch(&files.scratch())?;
        Ok(files)
    }

    /// The bundle's directory.
    pub(super) fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// The file that is shared alone.
    pub(super) fn single_file(&self) -> PathBuf {
        self.dir.join("host/files/settings")
    }

    /// The raw image behind the loop device.
    pub(super) fn physical_image(&self) -> PathBuf {
        self.dir.join("disks/physical.img")
    }

    /// The disk that is deleted from the host on release.
    pub(super) fn automanaged_disk(&self) -> PathBuf {
        self.dir.join("disks/automanaged.vhdx")
    }

    fn virtual_disk(&self) -> PathBuf {
        self.dir.join("disks/virtual.qcow2")
    }

    fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// Writes `config.json`. Without a block device the physical disk is left out.
    pub(super) fn write_spec(&self, layers: &Layers, block_device: Option<&str>) -> Result<()> {
        let spec = self.spec(&layers.upper(), &layers.base(), block_device);
        fs::write(
            self.bundle().join("config.json"),
            serde_json::to_vec_pretty(&spec)?,
        )?;
        Ok(())
    }

    fn spec(&self, upper: &Path, base: &Path, block_device: Option<&str>) -> Value {
        let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
        let host = |path: PathBuf| path.display().to_string();
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "/dev",
                "tmpfs",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            ),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount(
                "/mnt/directory",
                "bind",
                &host(self.dir.join("host/directory")),
                &["rbind", "ro"],
            ),
            mount("/mnt/file", "bind", &host(self.single_file()), &["bind"]),
            mount(
                "/mnt/virtual",
                "virtual-disk",
                &host(self.virtual_disk()),
                &["ro"],
            ),
            mount(
                "/mnt/automanaged",
                "automanage-virtual-disk",
                &host(self.automanaged_disk()),
                &[],
            ),
            mount("/mnt/sandbox", "bind", "sandbox:///shared", &["rbind"]),
        ];
        if let Some(device) = block_device {
            mounts.push(mount("/mnt/physical", "physical-disk", device, &[]));
        }
        let capabilities = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
        ];
        let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
        json!({
            "ociVersion": "1.0.2",
            "hostname": "demo",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "cwd": "/",
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
                "args": ["/bin/bash", "-c", script(block_device.is_some())],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": true
            },
            "mounts": mounts,
            "linux": {"namespaces": namespaces},
            "windows": {"layerFolders": [host(upper.to_owned()), host(base.to_owned()), host(self.scratch())]}
        })
    }
}

/// Bash: shows the layers and mounts, tries to write to each, and exits with [`EXIT_CODE`] only if all is as it should.
fn script(physical: bool) -> String {
    let mut probes = vec![
        ("/", "rw", "layers (overlay, scratch disk)"),
        ("/mnt/directory", "ro", "host directory (9p)"),
        ("/mnt/virtual", "ro", "virtual disk (qcow2)"),
        ("/mnt/automanaged", "rw", "auto-managed disk (vhdx)"),
        ("/mnt/sandbox", "rw", "sandbox directory"),
    ];
    if physical {
        probes.push(("/mnt/physical", "rw", "physical disk (loop device)"));
    }
    let probes: String = probes
        .iter()
        .map(|(path, want, what)| format!("probe {path} {want} '{what}'\n"))
        .collect();
    let (added_path, added) = layers::ADDED;
    let (replaced_path, replaced) = layers::REPLACED;
    format!(
        r#"bad=0
complain() {{ echo "  UNEXPECTED: $*"; bad=1; }}
probe() {{
    if ( echo '{WRITTEN}' > "$1/probe" ) 2>/tmp/why && [ "$(cat "$1/probe")" = '{WRITTEN}' ]; then
        got=rw says='can write'
    else
        got=ro says="cannot write: $(busybox sed 's/.*: //' /tmp/why)"
    fi
    printf '  %-18s %-30s %s\n' "$1" "$3" "$says"
    [ $got = "$2" ] || complain "$1 should be $2"
}}
echo "container $(busybox hostname), kernel $(uname -r), $(busybox nproc) CPU"
echo 'layers:'
[ "$(cat /{added_path})" = '{added}' ] && echo '  /{added_path} added by the upper layer' || complain '/{added_path}'
[ "$(cat /{replaced_path})" = '{replaced}' ] && echo '  /{replaced_path} replaced by it' || complain '/{replaced_path}'
[ -e /{deleted} ] && complain '/{deleted} is still there' || echo '  /{deleted} deleted by it'
echo 'mounts:'
while read -r source target type options rest; do
    case $target in / | /mnt/*) printf '  %-18s %-8s %s\n' "$target" "$type" "${{options%%,*}}" ;; esac
done < /proc/mounts
echo 'writing:'
{probes}echo 'shares:'
echo "  /mnt/directory/hello: $(cat /mnt/directory/hello)"
[ "$(cat /mnt/directory/hello)" = 'hello from a directory of the host' ] || complain '/mnt/directory/hello'
echo "  /mnt/file: $(cat /mnt/file)"
echo '{WRITTEN}' >> /mnt/file || complain '/mnt/file cannot be written'
exit $(( bad ? 1 : {EXIT_CODE} ))
"#,
        added = added.trim_end(),
        replaced = replaced.trim_end(),
        deleted = layers::DELETED,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::Tool;

    fn spec(block_device: Option<&str>) -> Value {
        Files { dir: "/demo".into() }.spec(Path::new("/l/upper"), Path::new("/l/base"), block_device)
    }

    #[test]
    fn the_layers_stand_topmost_first_and_the_scratch_last() {
        assert_eq!(
            spec(None)["windows"]["layerFolders"],
            json!(["/l/upper", "/l/base", "/demo/scratch"])
        );
    }

    #[test]
    fn every_kind_of_mount_is_there_and_the_physical_disk_only_with_a_device() {
        let kinds = |spec: &Value| -> Vec<String> {
            let mounts = spec["mounts"].as_array().unwrap();
            mounts
                .iter()
                .map(|mount| mount["type"].as_str().unwrap().to_owned())
                .collect()
        };
        let with = kinds(&spec(Some("/dev/loop9")));
        for kind in ["bind", "virtual-disk", "automanage-virtual-disk", "physical-disk"] {
            assert!(with.iter().any(|k| k == kind), "{kind}");
        }
        assert!(!kinds(&spec(None)).iter().any(|kind| kind == "physical-disk"));
    }

    #[test]
    fn the_script_is_valid_bash_and_fails_where_nothing_is_as_it_should_be() {
        for physical in [true, false] {
            Tool::new("bash")
                .args(["-n", "-c", &script(physical)])
                .log("test-demo-script")
                .run()
                .unwrap();
        }
        assert!(script(true).contains("/mnt/physical") && !script(false).contains("/mnt/physical"));
    }
}
