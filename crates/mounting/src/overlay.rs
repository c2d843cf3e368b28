//! Container roots from layers.
//!
//! Classic mount options fit one page, a few hundred layers at best. The newer mount interface takes the lower
//! layers one by one (`lowerdir+`, Linux 6.7); on older kernels the layers are named through short links.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};

use crate::{
    error::{During, MountError, Result},
    filesystem::mount_fs,
    mount_point,
};

/// Most lower layers the kernel stacks (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;
/// Longest value `fsconfig` takes, without its terminator.
const FSCONFIG_BYTES: usize = 255;
/// Longest option string of mount(2), without its terminator.
const OPTION_BYTES: usize = 4095;

/// Serialises the users of [`Overlay::links`].
static LINKS_LOCK: Mutex<()> = Mutex::new(());

/// What is stacked, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Lower directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// Upper and work live below it; none for a read-only root.
    pub scratch: Option<PathBuf>,
    /// A directory, made and removed again, for short links to the layers while a mount is made in the classic way.
    /// Its own path should be short: it is in the options once for each layer.
    pub links: PathBuf,
}

/// An [`Overlay`] that can be asked for.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    root: PathBuf,
    lower: Vec<PathBuf>,
    /// Upper and work directory.
    scratch: Option<(PathBuf, PathBuf)>,
    links: PathBuf,
}

impl Parts {
    fn new(overlay: &Overlay) -> Result<Self> {
        let Overlay {
            root,
            lower,
            scratch,
            links,
        } = overlay.clone();
        if lower.is_empty() || lower.len() > MAX_LAYERS {
            return Err(MountError::Invalid(format!(
                "an overlay of {} layers: it must have 1 to {MAX_LAYERS}",
                lower.len()
            )));
        }
        let scratch = scratch.map(|scratch| (scratch.join("upper"), scratch.join("work")));
        Ok(Self {
            root,
            lower,
            scratch,
            links,
        })
    }
}

/// Stacks the layers on the container root.
///
/// # Errors
/// [`MountError`]; nothing is left mounted then.
pub fn add(overlay: &Overlay) -> Result<()> {
    let parts = Parts::new(overlay)?;
    for layer in &parts.lower {
        // The kernel's own answer does not say which one is missing.
        fs::metadata(layer).during(|| format!("layer {}", layer.display()))?;
    }
    if let Some((upper, work)) = &parts.scratch {
        for directory in [upper, work] {
            fs::create_dir_all(directory).during(|| format!("making {}", directory.display()))?;
        }
    }
    mount_point::make_free(&parts.root)?;
    let mounted = match (&parts.scratch, parts.lower.as_slice()) {
        // The kernel refuses an overlay of one read-only layer; a bind shows the same.
        (None, [only]) => mount_point::bind(only, &parts.root, true),
        _ => mount(&parts),
    };
    if mounted.is_err() {
        let _ = mount_point::clear(&parts.root);
    }
    mounted
}

fn mount(parts: &Parts) -> Result<()> {
    let fits = parts
        .lower
        .iter()
        .chain(parts.scratch.iter().flat_map(|(upper, work)| [upper, work]));
    if fits
        .into_iter()
        .all(|path| path.as_os_str().len() <= FSCONFIG_BYTES)
    {
        match mount_layer_by_layer(parts) {
            // The kernel has no such call, or its overlay no `lowerdir+`.
            Err(Errno::NOSYS | Errno::INVAL) => {}
            outcome => return outcome.during(|| format!("mounting an overlay on {}", parts.root.display())),
        }
    }
    mount_through_links(parts)
}

fn mount_layer_by_layer(parts: &Parts) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for layer in &parts.lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    let attributes = match &parts.scratch {
        Some((upper, work)) => {
            fsconfig_set_string(&context, "upperdir", upper)?;
            fsconfig_set_string(&context, "workdir", work)?;
            MountAttrFlags::empty()
        }
        None => {
            fsconfig_set_flag(&context, "ro")?;
            MountAttrFlags::MOUNT_ATTR_RDONLY
        }
    };
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        &mount,
        "",
        CWD,
        &parts.root,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn mount_through_links(parts: &Parts) -> Result<()> {
    let _links = LINKS_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = parts.links.as_path();
    let _ = fs::remove_dir_all(directory);
    fs::create_dir(directory).during(|| format!("making {}", directory.display()))?;
    let outcome = option_string(parts, directory).and_then(|options| {
        let flags = if parts.scratch.is_some() {
            MountFlags::empty()
        } else {
            MountFlags::RDONLY
        };
        mount_fs(Path::new("overlay"), &parts.root, "overlay", flags, &options)
    });
    let _ = fs::remove_dir_all(directory);
    outcome
}

/// The classic option string, with each directory behind a link `<links>/<number>`.
fn option_string(parts: &Parts, links: &Path) -> Result<String> {
    let mut next = 0_usize;
    let mut short = |path: &Path| {
        let link = links.join(next.to_string());
        next += 1;
        symlink(path, &link).during(|| format!("linking {} to {}", link.display(), path.display()))?;
        Ok::<_, MountError>(link.display().to_string())
    };
    let mut options = String::from("lowerdir=");
    for (index, layer) in parts.lower.iter().enumerate() {
        if index > 0 {
            options.push(':');
        }
        options.push_str(&short(layer)?);
    }
    if let Some((upper, work)) = &parts.scratch {
        let (upper, work) = (short(upper)?, short(work)?);
        // Writing to a string cannot fail.
        let _ = write!(options, ",upperdir={upper},workdir={work}");
    }
    if options.len() > OPTION_BYTES {
        return Err(MountError::Invalid(format!(
            "{} layers are more than this kernel's overlay options can name",
            parts.lower.len()
        )));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(layers: usize, scratch: Option<&str>) -> Overlay {
        Overlay {
            root: "/run/gcs/c/1/rootfs".into(),
            lower: (0..layers).map(|n| format!("/tmp/p{n}").into()).collect(),
            scratch: scratch.map(PathBuf::from),
            links: "/l".into(),
        }
    }

    #[test]
    fn layers_keep_their_order_and_scratch_is_split() {
        let parts = Parts::new(&overlay(3, Some("/run/gcs/c/1/scratch"))).unwrap();
        assert_eq!(parts.lower, ["/tmp/p0", "/tmp/p1", "/tmp/p2"].map(PathBuf::from));
        let scratch = Path::new("/run/gcs/c/1/scratch");
        assert_eq!(parts.scratch, Some((scratch.join("upper"), scratch.join("work"))));
        assert_eq!(Parts::new(&overlay(1, None)).unwrap().scratch, None);
    }

    #[test]
    fn none_or_too_many_layers_are_refused() {
        assert!(Parts::new(&overlay(0, None)).is_err());
        assert!(Parts::new(&overlay(500, None)).is_ok());
        assert!(Parts::new(&overlay(501, None)).is_err());
    }

    #[test]
    fn five_hundred_layers_fit_one_page_of_options() {
        let longest = 500 * "/l/499:".len() + "lowerdir=,upperdir=/l/500,workdir=/l/501".len();
        assert!(longest <= OPTION_BYTES, "{longest}");
    }

    #[test]
    fn short_options_name_links_in_order() {
        let links = tempfile::tempdir().unwrap();
        let parts = Parts::new(&overlay(2, Some("/run/gcs/c/1/scratch"))).unwrap();
        let dir = links.path().display();
        assert_eq!(
            option_string(&parts, links.path()).unwrap(),
            format!("lowerdir={dir}/0:{dir}/1,upperdir={dir}/2,workdir={dir}/3")
        );
        assert_eq!(
            fs::read_link(links.path().join("1")).unwrap(),
            Path::new("/tmp/p1")
        );
    }
}
