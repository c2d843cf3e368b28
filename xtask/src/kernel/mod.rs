//! `cargo xtask kernel`: the small kernel, built from Debian's kernel source with the configuration in `kernel/`.

mod config;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{
    cached::Store,
    debs, fingerprint,
    progress::{self, Step, bytes},
    setup,
    tool::Tool,
    workspace,
};
use config::Config;

const SOURCE_PACKAGE: &str = "linux-source-6.12";
const FRAGMENT: &str = "kernel/uvm-kernel.fragment";
const IMAGE: &str = "vmlinux";

/// Objects compiled in one build with the configuration of this repository: for the progress bar only.
const OBJECTS_EXPECTED: u64 = 1617;

/// The small kernel's image, if it has been built with the configuration now in the repository.
pub(crate) fn built() -> Result<Option<PathBuf>> {
    Ok(store()?
        .current(&recipe(&fragment()?))
        .map(|entry| entry.join(IMAGE)))
}

/// Builds the small kernel unless it has been built. With `refresh`, from the newest source package.
pub(crate) fn build(refresh: bool) -> Result<PathBuf> {
    if !refresh && let Some(image) = built()? {
        Step::start("Small kernel").done(format!("already built: {}", image.display()));
        return Ok(image);
    }
    let fragment = fragment()?;
    let recipe = recipe(&fragment);
    let store = store()?;
    let source = debs::resolve(&[SOURCE_PACKAGE])?;
    let version = &source
        .first()
        .context("invariant: one package asked, one answered")?
        .version;
    if let Some(entry) = store.select(version, &recipe)? {
        Step::start("Small kernel").done(format!("already built from {version}"));
        return Ok(entry.join(IMAGE));
    }
    setup::ensure(&[setup::For::Running, setup::For::Kernel])?;
    let scratch = store.scratch()?;
    let tree = unpack(&source, scratch.path())?;
    configure(&tree, &fragment)?;
    compile(&tree)?;
    let ready = scratch.path().join("ready");
    workspace::create_dir(&ready)?;
    for file in [IMAGE, ".config"] {
        fs::copy(tree.join(file), ready.join(file)).with_context(|| format!("the build made no {file}"))?;
    }
    let image = store.keep(&ready, version, &recipe)?.join(IMAGE);
    progress::note(format!(
        "{} ({})",
        image.display(),
        bytes(fs::metadata(&image)?.len())
    ));
    Ok(image)
}

/// Checks the fragment against the kernel's own configuration rules, without building.
pub(crate) fn check_config() -> Result<()> {
    setup::ensure(&[setup::For::Running, setup::For::Kernel])?;
    let scratch = store()?.scratch()?;
    let tree = unpack(&debs::resolve(&[SOURCE_PACKAGE])?, scratch.path())?;
    configure(&tree, &fragment()?)
}

fn store() -> Result<Store> {
    Store::open("small-kernel")
}

fn fragment() -> Result<Config> {
    let path = workspace::root().join(FRAGMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    Ok(Config::parse(&text))
}

fn recipe(fragment: &Config) -> String {
    fingerprint::of([fragment.canonical()])
}

fn unpack(source: &[debs::Candidate], scratch: &Path) -> Result<PathBuf> {
    let step = Step::start("Fetching the kernel source");
    let files = debs::download(source, scratch)?;
    let deb = files.first().context("invariant: one package asked, one file")?;
    step.at("unpacking the package");
    Tool::new("dpkg-deb").arg("-x").arg(deb).arg(scratch).run()?;
    step.at("unpacking the source");
    let archive = scratch.join(format!("usr/src/{SOURCE_PACKAGE}.tar.xz"));
    Tool::new("tar")
        .arg("-xf")
        .arg(&archive)
        .arg("-C")
        .arg(scratch)
        .log("kernel-unpack")
        .run()?;
    let version = source
        .iter()
        .map(|candidate| candidate.version.as_str())
        .collect::<String>();
    step.done(format!("{SOURCE_PACKAGE} {version}"));
    Ok(scratch.join(SOURCE_PACKAGE))
}

fn configure(tree: &Path, wanted: &Config) -> Result<()> {
    let step = Step::start("Configuring the kernel");
    let file = workspace::root().join(FRAGMENT);
    Tool::new("make")
        .arg("allnoconfig")
        .env("KCONFIG_ALLCONFIG", &file)
        .in_dir(tree)
        .log("kernel-configure")
        .run()?;
    // What a distribution's configuration would go through: whatever is not kept by this, would not be kept there.
    Tool::new("make")
        .arg("olddefconfig")
        .in_dir(tree)
        .log("kernel-olddefconfig")
        .run()?;
    let config =
        fs::read_to_string(tree.join(".config")).context("the kernel's configuration was not written")?;
    let lost = wanted.lost_in(&Config::parse(&config));
    if !lost.is_empty() {
        let lines: Vec<_> = lost
            .iter()
            .map(|l| format!("  {}={} came out as {}", l.name, l.wanted, l.got))
            .collect();
        bail!(
            "the kernel does not keep {} options of {FRAGMENT}:\n{}\n\
             an option that is dropped lacks one it depends on; one that cannot be off is selected by another: see its \
             entry in the kernel's Kconfig files, then correct the fragment",
            lost.len(),
            lines.join("\n")
        );
    }
    step.done(format!("all {} options of {FRAGMENT} kept", wanted.len()));
    Ok(())
}

fn compile(tree: &Path) -> Result<()> {
    let step = Step::start("Building the small kernel");
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut objects = 0;
    Tool::new("nice")
        .args(["make", &format!("-j{jobs}"), IMAGE])
        .in_dir(tree)
        // The same source and configuration give the same image.
        .env("KBUILD_BUILD_TIMESTAMP", "@0")
        .env("KBUILD_BUILD_USER", "cofferdam")
        .env("KBUILD_BUILD_HOST", "cofferdam")
        .log("kernel-build")
        .run_lines(|line| {
            if let Some(object) = line.trim_start().strip_prefix("CC ") {
                objects += 1;
                step.advance(objects, OBJECTS_EXPECTED);
                step.at(object.trim());
            }
        })?;
    step.done(format!("{objects} objects"));
    Ok(())
}
