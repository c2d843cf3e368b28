//! Debian's own kernel: the generic 6.12 flavour (the cloud flavour has no 9p), unpacked from its package without
//! installing it, with the modules a guest needs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use super::modules::{self, Catalogue};
use crate::{
    cached::Store,
    debs, fingerprint,
    progress::{Step, bytes},
    tool::Tool,
    workspace,
};

/// The kernel series, the newest that Debian 12 has; the older 6.1 boots too but lacks parts of the new mount API.
const SERIES: &str = "6.12";

/// What a guest may need and Debian's kernel has as modules. Loaded by the agent in dependency order.
const WANTED: &[&str] = &[
    // transport and entropy first: the host waits for the agent's first message
    "virtio_pci",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    // disks and layers
    "virtio_scsi",
    "sd_mod",
    "virtio_pmem",
    "nfit",
    "nd_pmem",
    "ext4",
    "overlay",
    "loop",
    // shares
    "9pnet_fd",
    "9p",
    // network
    "virtio_net",
    "veth",
];

/// What only some layers need. The agent loads each with the first of these, and asks for it by this name.
const ON_DEMAND: &[&str] = &["erofs", "dm_verity"];

/// An unpacked kernel in the cache.
pub(crate) struct DebianKernel {
    dir: PathBuf,
}

impl DebianKernel {
    /// The compressed kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The modules that are loaded at boot.
    pub(crate) fn modules(&self) -> Result<Modules> {
        self.listed("order")
    }

    /// The others, by what needs them. What is loaded at boot is not among them.
    pub(crate) fn on_demand(&self) -> Result<Vec<(&'static str, Modules)>> {
        let of = |feature: &&'static str| Ok((*feature, self.listed(&format!("order.{feature}"))?));
        ON_DEMAND.iter().map(of).collect()
    }

    fn listed(&self, list: &str) -> Result<Modules> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("could not read {}", path.display()));
        let order = String::from_utf8(read(&self.dir.join(list))?).context("invariant: lists are text")?;
        let content = |name: &str| Ok((name.to_owned(), read(&self.dir.join("modules").join(name))?));
        order.lines().map(content).collect()
    }
}

/// Modules' file names with their content, in the order in which they are loaded.
pub(crate) type Modules = Vec<(String, Vec<u8>)>;

/// The kernel from the cache; fetched if there is none, or `refresh` asks for the newest.
pub(crate) fn obtain(refresh: bool) -> Result<DebianKernel> {
    let store = Store::open("debian-kernel")?;
    let recipe = fingerprint::of(WANTED.iter().chain(&["on demand"]).chain(ON_DEMAND));
    if !refresh && let Some(entry) = store.current(&recipe) {
        return Ok(DebianKernel { dir: entry });
    }
    let package = debs::resolve_kernel(SERIES)?;
    let origin = format!("{}-{}", package.name, package.version);
    if let Some(entry) = store.select(&origin, &recipe)? {
        return Ok(DebianKernel { dir: entry });
    }
    let step = Step::start("Fetching Debian's kernel");
    step.at(format!("downloading {}", package.name));
    let scratch = store.scratch()?;
    let files = debs::download(std::slice::from_ref(&package), scratch.path())?;
    let deb = files.first().context("invariant: one package asked, one file")?;
    unpack(deb, scratch.path(), &step)?;
    let entry = store.keep(&scratch.path().join("ready"), &origin, &recipe)?;
    step.done(format!("{} {}", package.name, package.version));
    Ok(DebianKernel { dir: entry })
}

/// Unpacks the package and collects the image and the modules below `<scratch>/ready`.
fn unpack(deb: &Path, scratch: &Path, step: &Step) -> Result<()> {
    let tree = scratch.join("tree");
    step.at(format!(
        "unpacking {}",
        fs::metadata(deb).map(|m| bytes(m.len())).unwrap_or_default()
    ));
    Tool::new("dpkg-deb").arg("-x").arg(deb).arg(&tree).run()?;
    let release = only_entry(&tree.join("lib/modules"))?;
    let modules_dir = tree.join("lib/modules").join(&release);
    step.at("reading the modules' dependencies");
    // The package carries no modules.dep: Debian's installation scripts make it, with the same program.
    Tool::new("depmod").arg("-b").arg(&tree).arg(&release).run()?;
    let read = |name: &str| {
        let path = modules_dir.join(name);
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
    };
    let catalogue = Catalogue::parse(
        &read("modules.dep")?,
        &read("modules.builtin")?,
        &read("modules.softdep")?,
        &read("modules.alias")?,
    );
    let closure = |wanted: &[&str]| {
        catalogue.closure(wanted).map_err(|modules::Unknown(name)| {
            anyhow!("Debian's kernel {release} has no module {name}, nor is it built in")
        })
    };
    let at_boot = closure(WANTED)?;
    let mut lists = vec![("order".to_owned(), at_boot.clone())];
    for feature in ON_DEMAND {
        let mut files = closure(&[feature])?;
        files.retain(|file| !at_boot.contains(file));
        lists.push((format!("order.{feature}"), files));
    }
    let ready = scratch.join("ready");
    workspace::create_dir(&ready.join("modules"))?;
    for (list, files) in &lists {
        let mut order = String::new();
        for file in files {
            let name = format!("{}.ko", modules::name_of(file));
            step.at(format!("unpacking {name}"));
            decompress(&modules_dir.join(file), &ready.join("modules").join(&name))?;
            order.push_str(&name);
            order.push('\n');
        }
        fs::write(ready.join(list), order)?;
    }
    fs::copy(
        tree.join(format!("boot/vmlinuz-{release}")),
        ready.join("vmlinuz"),
    )
    .context("the package has no boot/vmlinuz")?;
    Ok(())
}

/// Copies a module without the compression: the guest hands it to the kernel as it is.
fn decompress(from: &Path, to: &Path) -> Result<()> {
    let program = match from.extension().and_then(|e| e.to_str()) {
        Some("ko") => {
            fs::copy(from, to).with_context(|| format!("could not copy {}", from.display()))?;
            return Ok(());
        }
        Some("xz") => "xz",
        Some("zst") => "zstd",
        other => {
            return Err(anyhow!(
                "{}: modules compressed as {other:?} are not known",
                from.display()
            ));
        }
    };
    // Beside the compressed file, in the scratch directory: both programs strip the suffix themselves.
    Tool::new(program).args(["-d", "-k", "-f"]).arg(from).run()?;
    fs::rename(from.with_extension(""), to).with_context(|| format!("could not move to {}", to.display()))?;
    Ok(())
}

fn only_entry(dir: &Path) -> Result<String> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("could not read {}", dir.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", dir.display()))??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}
