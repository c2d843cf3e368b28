//! `cargo xtask boot`: what a utility VM boots from. `target/boot/{debian,small}` each hold `kernel` and
//! `initramfs.cpio`; the guest agent is `/init`.

mod cpio;
mod debian;
mod modules;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use self::debian::Modules;
use crate::{
    kernel,
    progress::{Step, bytes},
    tool::Tool,
    workspace,
};

const AGENT_PACKAGE: &str = "cofferdam-guest";
const AGENT_BINARY: &str = "cofferdam-agent";
const AGENT_TARGET: &str = "x86_64-unknown-linux-musl";
const AGENT_PROFILE: &str = "agent";

/// Where the guest finds modules, and the file that lists them in load order.
const MODULES_DIR: &str = "lib/modules/cofferdam";
/// Where the agent finds the modules it loads when something needs them, and a list for each such thing.
const ON_DEMAND_DIR: &str = "lib/modules-on-demand";

/// A pair of boot files.
#[derive(Debug, Clone)]
pub(crate) struct BootFiles {
    /// `small` or `debian`.
    pub name: &'static str,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs, not compressed.
    pub initramfs: PathBuf,
}

impl BootFiles {
    /// The directory that holds the pair.
    pub(crate) fn dir(&self) -> PathBuf {
        workspace::boot_dir().join(self.name)
    }

    fn of(name: &'static str) -> Self {
        let dir = workspace::boot_dir().join(name);
        BootFiles {
            name,
            kernel: dir.join("kernel"),
            initramfs: dir.join("initramfs.cpio"),
        }
    }
}

/// Prepares all boot files there can be: Debian's always, the small kernel's when it has been built. The preferred pair
/// comes first.
pub(crate) fn prepare(refresh: bool) -> Result<Vec<BootFiles>> {
    let agent = build_agent()?;
    let debian_kernel = debian::obtain(refresh)?;
    let step = Step::start("Boot files");
    let mut made = Vec::new();
    if let Some(image) = kernel::built()? {
        made.push(write(
            BootFiles::of("small"),
            &image,
            &initramfs(&agent, &Modules::new(), &[])?,
        )?);
    } else {
        // Built for another configuration than the one now in the repository: not to be preferred.
        workspace::remove_dir(&workspace::boot_dir().join("small"))?;
    }
    let (modules, on_demand) = (debian_kernel.modules()?, debian_kernel.on_demand()?);
    made.push(write(
        BootFiles::of("debian"),
        &debian_kernel.image(),
        &initramfs(&agent, &modules, &on_demand)?,
    )?);
    let names: Vec<_> = made.iter().map(|files| files.name).collect();
    step.done(format!(
        "{} in {}",
        names.join(" and "),
        workspace::shown(&workspace::boot_dir())
    ));
    Ok(made)
}

/// Prints what each boot file weighs.
pub(crate) fn print_sizes(made: &[BootFiles]) -> Result<()> {
    let size = |path: &Path| -> Result<u64> {
        Ok(fs::metadata(path)
            .with_context(|| format!("could not look at {}", path.display()))?
            .len())
    };
    println!("{:<10} {:>12} {:>12} {:>12}", "", "kernel", "initramfs", "agent");
    let agent = size(&agent_path())?;
    for files in made {
        let (kernel, initramfs) = (size(&files.kernel)?, size(&files.initramfs)?);
        println!(
            "{:<10} {:>12} {:>12} {:>12}",
            files.name,
            bytes(kernel),
            bytes(initramfs),
            bytes(agent)
        );
    }
    Ok(())
}

/// Removes the boot files; with `cache`, also what is kept across `cargo clean` (kernels, packages, layers).
pub(crate) fn clean(cache: bool) -> Result<()> {
    let mut dirs = vec![workspace::boot_dir()];
    if cache {
        dirs.push(workspace::cache_dir()?);
    }
    for dir in dirs {
        workspace::remove_dir(&dir)?;
        crate::progress::note(format!("removed {}", workspace::shown(&dir)));
    }
    Ok(())
}

fn build_agent() -> Result<PathBuf> {
    let step = Step::start("Building the guest agent");
    Tool::cargo()
        .args(["build", "-p", AGENT_PACKAGE, "--bin", AGENT_BINARY])
        .args(["--profile", AGENT_PROFILE, "--target", AGENT_TARGET])
        .log("build-agent")
        .hint(&format!(
            "if the target is missing: `rustup target add {AGENT_TARGET}`"
        ))
        .run_lines(|line| step.at(line.trim()))?;
    let path = agent_path();
    let size = fs::metadata(&path)
        .with_context(|| format!("cargo made no {}", path.display()))?
        .len();
    step.done(bytes(size));
    Ok(path)
}

fn agent_path() -> PathBuf {
    workspace::target()
        .join(AGENT_TARGET)
        .join(AGENT_PROFILE)
        .join(AGENT_BINARY)
}

/// The initramfs: the agent, the directories it mounts on, a console for its first words, and the modules.
fn initramfs(agent: &Path, modules: &Modules, on_demand: &[(&str, Modules)]) -> Result<Vec<u8>> {
    let agent = fs::read(agent).with_context(|| format!("could not read {}", agent.display()))?;
    let mut archive = cpio::Archive::new(Vec::new());
    for name in ["dev", "etc", "run", "root"] {
        archive.directory(name, 0o755)?;
    }
    archive.directory("proc", 0o555)?;
    archive.directory("sys", 0o555)?;
    archive.directory("tmp", 0o1777)?;
    // The kernel opens these before the agent can mount devtmpfs.
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.character_device("dev/null", 0o666, 1, 3)?;
    archive.file("init", 0o755, &agent)?;
    if !modules.is_empty() {
        for (end, _) in MODULES_DIR.match_indices('/').chain([(MODULES_DIR.len(), "")]) {
            archive.directory(&MODULES_DIR[..end], 0o755)?;
        }
        for (name, content) in modules {
            archive.file(&format!("{MODULES_DIR}/{name}"), 0o644, content)?;
        }
        archive.file(&format!("{MODULES_DIR}/order"), 0o644, &order_of(modules))?;
    }
    if !on_demand.is_empty() {
        if modules.is_empty() {
            archive.directory("lib", 0o755)?;
        }
        archive.directory(ON_DEMAND_DIR, 0o755)?;
    }
    let mut written = BTreeSet::new();
    for (feature, modules) in on_demand {
        for (name, content) in modules {
            // Two may need the same one.
            if written.insert(name) {
                archive.file(&format!("{ON_DEMAND_DIR}/{name}"), 0o644, content)?;
            }
        }
        archive.file(&format!("{ON_DEMAND_DIR}/{feature}"), 0o644, &order_of(modules))?;
    }
    Ok(archive.finish()?)
}

fn order_of(modules: &Modules) -> Vec<u8> {
    let lines = modules.iter().map(|(name, _)| format!("{name}\n"));
    lines.collect::<String>().into_bytes()
}

fn write(files: BootFiles, image: &Path, initramfs: &[u8]) -> Result<BootFiles> {
    let dir = files
        .kernel
        .parent()
        .context("invariant: boot files lie in a directory")?;
    workspace::create_dir(dir)?;
    replace(
        &files.kernel,
        &fs::read(image).with_context(|| format!("could not read {}", image.display()))?,
    )?;
    replace(&files.initramfs, initramfs)?;
    Ok(files)
}

/// Writes a file in one step, and only when its content changes: a VM may be booting from it.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).with_context(|| format!("could not write {}", fresh.display()))?;
    fs::rename(&fresh, path).with_context(|| format!("could not move to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initramfs_carries_the_modules_in_load_order() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        fs::write(&agent, b"#!agent").unwrap();
        let modules = vec![
            ("b.ko".to_owned(), b"bb".to_vec()),
            ("a.ko".to_owned(), b"aa".to_vec()),
        ];
        let archive = initramfs(&agent, &modules, &[]).unwrap();
        let text = String::from_utf8_lossy(&archive);
        assert!(
            text.contains("b.ko\na.ko\n"),
            "the order file keeps the load order"
        );
        let at = |name: &str| {
            text.find(&format!("{name}\0"))
                .unwrap_or_else(|| panic!("no {name}"))
        };
        assert!(at("lib") < at("lib/modules") && at("lib/modules") < at("lib/modules/cofferdam"));
        assert!(at("lib/modules/cofferdam") < at("lib/modules/cofferdam/b.ko"));
    }

    #[test]
    fn modules_on_demand_are_listed_for_each_thing_that_needs_them_and_carried_once() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        fs::write(&agent, b"#!agent").unwrap();
        let module = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
        let on_demand = [
            ("erofs", vec![module("crc.ko"), module("erofs.ko")]),
            ("dm_verity", vec![module("crc.ko"), module("dm.ko")]),
        ];
        let archive = initramfs(&agent, &vec![module("a.ko")], &on_demand).unwrap();
        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains("crc.ko\nerofs.ko\n") && text.contains("crc.ko\ndm.ko\n"));
        assert_eq!(text.matches("lib/modules-on-demand/crc.ko\0").count(), 1);
        assert!(!text.contains("lib/modules/cofferdam/crc.ko"));
    }

    #[test]
    fn without_modules_there_is_no_modules_directory() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        fs::write(&agent, b"#!agent").unwrap();
        assert!(!String::from_utf8_lossy(&initramfs(&agent, &Modules::new(), &[]).unwrap()).contains("lib"));
    }

    #[test]
    fn a_file_with_the_same_content_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        replace(&path, b"1").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        replace(&path, b"1").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        replace(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
    }
}
