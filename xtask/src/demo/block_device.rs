//! A block device of the host, made from a file: what the demo passes through as a physical disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::tool::Tool;

/// An attached loop device. Dropped without [`LoopDevice::detach`], it is detached as well as can be.
pub(super) struct LoopDevice {
    device: String,
    file: PathBuf,
    attached: bool,
}

impl LoopDevice {
    /// Attaches a file, for this user to read and write.
    pub(super) fn attach(file: &Path) -> Result<Self> {
        let shown = Tool::as_root("losetup")?
            .args(["--find", "--show"])
            .arg(file)
            .read()?;
        let device = shown.trim().to_owned();
        let attached = LoopDevice {
            device,
            file: file.to_owned(),
            attached: true,
        };
        let user = rustix::process::geteuid();
        if !user.is_root() {
            Tool::as_root("chown")?
                .arg(user.as_raw().to_string())
                .arg(&attached.device)
                .run()?;
        }
        Ok(attached)
    }

    /// Its path below `/dev`.
    pub(super) fn path(&self) -> &str {
        &self.device
    }

    /// Detaches it and makes sure that the host agrees: a device still held by somebody is only marked for detaching.
    pub(super) fn detach(mut self) -> Result<()> {
        self.attached = false;
        self.restore_and_detach()?;
        let left = Tool::as_root("losetup")?.arg("-j").arg(&self.file).read()?;
        if !left.trim().is_empty() {
            bail!("{} is still held by somebody: {}", self.device, left.trim());
        }
        Ok(())
    }

    fn restore_and_detach(&self) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            Tool::as_root("chown")?.arg("root").arg(&self.device).run()?;
        }
        let detach = Tool::as_root("losetup")?
            .arg("-d")
            .arg(&self.device)
            .log("losetup-detach");
        detach
            .run()
            .with_context(|| format!("could not detach {}", self.device))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if self.attached
            && let Err(error) = self.restore_and_detach()
        {
            crate::progress::warn(format!(
                "{error:#}; `losetup -d {}` as root does it by hand",
                self.device
            ));
        }
    }
}
