//! What the suite was given besides an agent: a shell in the VM, a bundle for containers, permissions.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

/// What cases may use. Where something is missing, the reason is what `not tried` says.
#[derive(Debug)]
pub struct Setup {
    /// The words before a script that run it in the VM: `/bin/sh -c`.
    pub shell: Result<Vec<String>, String>,
    /// How to make a container.
    pub container: Result<ContainerSetup, String>,
    /// Whether the VM may be powered off.
    pub may_power_off: bool,
}

impl Setup {
    /// Nothing but the agent.
    #[must_use]
    pub fn bare() -> Self {
        Self {
            shell: Err("no shell in the VM was named (--vm-shell)".into()),
            container: Err("no bundle was given (--container-spec and --bundle)".into()),
            may_power_off: false,
        }
    }
}

/// How to make a container. Paths are the agent's.
#[derive(Debug)]
pub struct ContainerSetup {
    /// The OCI spec that each container starts from.
    pub spec: Value,
    /// Below it each container gets a bundle directory of its own.
    pub bundles: PathBuf,
    /// The words before a script that run it in the container.
    pub shell: Vec<String>,
    /// What was made for it on this machine.
    made: Option<tempfile::TempDir>,
}

impl ContainerSetup {
    /// Containers from a spec of the user's.
    #[must_use]
    pub fn given(spec: Value, bundles: PathBuf) -> Self {
        Self {
            spec,
            bundles,
            shell: vec!["/bin/sh".into(), "-c".into()],
            made: None,
        }
    }

    /// Containers of one program, a static busybox: for agents that see this machine's files.
    ///
    /// # Errors
    /// The system's.
    pub fn with_busybox(busybox: &Path) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix("conformance-c-").tempdir()?;
        let root = made.path().join("rootfs");
        make_root(&root, busybox)?;
        let mut setup = Self::given(minimal_spec(&root), made.path().join("bundles"));
        setup.made = Some(made);
        Ok(setup)
    }

    /// Whether the suite made the container's files, so that it sees what the agent does to them.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.made.is_some()
    }
}

/// A root file system of one busybox.
///
/// # Errors
/// The system's.
pub fn make_root(root: &Path, busybox: &Path) -> io::Result<()> {
    for directory in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in [
        "sh", "cat", "echo", "head", "sleep", "stty", "tty", "uname", "wc", "env", "true",
    ] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

/// A spec with what the cases rely on: namespaces of its own and /proc.
#[must_use]
pub fn minimal_spec(root: &Path) -> Value {
    let namespaces: Vec<Value> = ["pid", "mount", "uts", "ipc"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": root.display().to_string(), "readonly": true},
        "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {"namespaces": namespaces},
    })
}

/// Where this machine has a static busybox.
///
/// # Errors
/// What to install.
pub fn find_busybox() -> Result<PathBuf, String> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| "there is no busybox for a container's root (Debian package busybox-static)".into())
}
