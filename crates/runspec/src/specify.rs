//! All of it together.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    ImageConfig, Origin, SpecifyError, Variable, WantedMount, capabilities, command, defaults, environment,
    mount,
};

/// Annotation that the guest, or the host in process isolation, reads: `cofferdam_rootfs::VOLUMES`.
const VOLUMES: &str = "io.cofferdam.volumes";

/// What the user wishes, beside the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Instead of the image's entrypoint; an empty one takes it away.
    pub entrypoint: Option<String>,
    /// Instead of the image's command.
    pub command: Vec<String>,
    /// Variables, in the order they were given.
    pub variables: Vec<Variable>,
    /// Instead of the image's working directory.
    pub working_directory: Option<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// The container's own name on networks; the container's name otherwise.
    pub hostname: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its root filesystem cannot be written to.
    pub read_only: bool,
    /// Mounts of `-v`, `--mount` and `--tmpfs`.
    pub mounts: Vec<WantedMount>,
    /// Capabilities beside the usual ones.
    pub add_capabilities: Vec<String>,
    /// Usual capabilities it does not have.
    pub drop_capabilities: Vec<String>,
}

/// Where the container is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The layers' folders, the base first.
    pub layers: Vec<PathBuf>,
    /// The folder with the scratch disk, relative to the bundle.
    pub scratch: PathBuf,
    /// Where relative sources of mounts start.
    pub working_directory: PathBuf,
    /// Where volumes with names are.
    pub volumes: PathBuf,
    /// The container's name.
    pub id: String,
    /// Whether it runs on the host itself.
    pub process_isolation: bool,
}

/// A spec, and what has to be there for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Specified {
    /// The OCI runtime spec, written for the host. `hosts` and `hostname` are mounted from files of its bundle.
    pub spec: Value,
    /// The container's host name.
    pub hostname: String,
    /// Directories to be made if there is nothing at their path.
    pub directories: Vec<PathBuf>,
    /// Sources of mounts that are not made: they have to be there.
    pub sources: Vec<PathBuf>,
}

/// Files of the bundle, and where they are in the container.
const FILES: [(&str, &str); 2] = [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

/// Makes the spec.
///
/// # Errors
/// Wishes that cannot be, or an image that says nothing to run.
pub fn specify(image: &ImageConfig, wishes: &Wishes, place: &Place) -> Result<Specified, SpecifyError> {
    let hostname = hostname(wishes.hostname.as_deref(), &place.id)?;
    let args = command::arguments(image, wishes.entrypoint.as_deref(), &wishes.command)?;
    let capabilities = capabilities::capabilities(&wishes.add_capabilities, &wishes.drop_capabilities)?;
    let user = wishes.user.as_deref().unwrap_or(&image.user);
    let mut made = Made::default();
    made.mounts(wishes, place)?;
    made.volumes_of(image);
    let mut layers: Vec<_> = place.layers.iter().rev().collect();
    layers.push(&place.scratch);
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "hostname": hostname,
        "root": { "readonly": wishes.read_only },
        "process": {
            "terminal": wishes.terminal,
            // Names are known in the root filesystem only, and so are the groups of a number.
            "user": { "uid": 0, "gid": 0, "username": if user.is_empty() { "0" } else { user } },
            "args": args,
            "env": environment::environment(&image.env, &wishes.variables, &hostname, wishes.terminal),
            "cwd": working_directory(image, wishes)?,
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "mounts": made.entries(),
        "linux": defaults::linux(!place.process_isolation),
        "windows": { "layerFolders": layers },
    });
    if !made.anonymous.is_empty() {
        let list = json!(made.anonymous).to_string();
        spec["annotations"] = json!({ VOLUMES: list });
    }
    Ok(Specified {
        spec,
        hostname,
        directories: made.directories,
        sources: made.sources,
    })
}

/// The mounts as they come together.
#[derive(Default)]
struct Made {
    wished: Vec<Value>,
    destinations: BTreeSet<String>,
    anonymous: BTreeSet<String>,
    directories: Vec<PathBuf>,
    sources: Vec<PathBuf>,
}

impl Made {
    fn mounts(&mut self, wishes: &Wishes, place: &Place) -> Result<(), SpecifyError> {
        let mut mounts: Vec<_> = wishes.mounts.iter().collect();
        // Outer ones first, so that they do not cover inner ones.
        mounts.sort_by_key(|mount| mount.destination.matches('/').count());
        for mount in mounts {
            if !self.destinations.insert(mount.destination.clone()) {
                return Err(SpecifyError::DuplicateMount(mount.destination.clone()));
            }
            self.mount(mount, place);
        }
        Ok(())
    }

    fn mount(&mut self, mount: &WantedMount, place: &Place) {
        let (kind, source) = match &mount.origin {
            Origin::Host { path, make } => {
                let path = place.working_directory.join(path);
                let list = if *make {
                    &mut self.directories
                } else {
                    &mut self.sources
                };
                list.push(path.clone());
                ("bind", path)
            }
            Origin::Named(name) => {
                let path = place.volumes.join(name);
                self.directories.push(path.clone());
                ("bind", path)
            }
            Origin::Disk { kind, path } => {
                let path = place.working_directory.join(path);
                self.sources.push(path.clone());
                (*kind, path)
            }
            Origin::Sandbox(path) => ("bind", PathBuf::from(path)),
            Origin::Memory => ("tmpfs", PathBuf::from("tmpfs")),
            Origin::Anonymous => {
                self.anonymous.insert(mount.destination.clone());
                return;
            }
        };
        let rights = if mount.read_only { "ro" } else { "rw" };
        let binds: &[&str] = if kind == "bind" {
            &["rbind", "rprivate"]
        } else {
            &[]
        };
        let further = mount.options.iter().map(String::as_str);
        let options: Vec<_> = binds.iter().copied().chain(further).chain([rights]).collect();
        self.wished
            .push(entry(&mount.destination, kind, &source, &options));
    }

    /// The image's volumes, but for those that something else is mounted on.
    fn volumes_of(&mut self, image: &ImageConfig) {
        let named = image
            .volumes
            .keys()
            .filter_map(|path| mount::destination(path).ok());
        let free = named.filter(|path| !self.destinations.contains(path));
        self.anonymous.extend(free.collect::<Vec<_>>());
    }

    fn entries(&mut self) -> Vec<Value> {
        let replaced = |destination: &str| self.destinations.contains(destination);
        let mut all = defaults::mounts();
        all.retain(|mount| !mount["destination"].as_str().is_some_and(replaced));
        for (file, destination) in FILES
            .into_iter()
            .filter(|(_, destination)| !replaced(destination))
        {
            all.push(entry(
                destination,
                "bind",
                Path::new(file),
                &["rbind", "rprivate", "rw"],
            ));
        }
        all.append(&mut self.wished);
        all
    }
}

fn entry(destination: &str, kind: &str, source: &Path, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn working_directory(image: &ImageConfig, wishes: &Wishes) -> Result<String, SpecifyError> {
    match wishes.working_directory.as_deref() {
        Some(path) if path.starts_with('/') && !path.contains('\0') => {
            Ok(mount::destination(path).unwrap_or_else(|_| "/".to_owned()))
        }
        Some(path) => Err(SpecifyError::WorkingDirectory(path.to_owned())),
        // An image's relative one starts at the root.
        None => Ok(mount::destination(&format!("/{}", image.working_dir)).unwrap_or_else(|_| "/".to_owned())),
    }
}

/// Bytes of a host name (`HOST_NAME_MAX`).
const HOST_NAME_BYTES: usize = 64;

fn hostname(wished: Option<&str>, id: &str) -> Result<String, SpecifyError> {
    match wished {
        None => Ok(id.chars().take(HOST_NAME_BYTES).collect()),
        Some(name)
            if !name.is_empty()
                && name.len() <= HOST_NAME_BYTES
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) =>
        {
            Ok(name.to_owned())
        }
        Some(name) => Err(SpecifyError::HostName(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tmpfs, volume};

    fn image() -> ImageConfig {
        let document = json!({ "config": {
            "Cmd": ["sh"], "User": "web:adm", "WorkingDir": "srv", "Env": ["A=1"],
            "Volumes": { "/data/": {}, "/log": {}, "/": {} },
        } });
        ImageConfig::from_document(&document).unwrap()
    }

    fn place() -> Place {
        Place {
            layers: vec!["/l/base".into(), "/l/top".into()],
            scratch: ".".into(),
            working_directory: "/home/me".into(),
            volumes: "/store/volumes".into(),
            id: "web".to_owned(),
            process_isolation: false,
        }
    }

    fn destinations(spec: &Value) -> Vec<String> {
        let mounts = spec["mounts"].as_array().unwrap();
        mounts
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn an_image_alone_is_what_its_configuration_says() {
        let Specified {
            spec,
            hostname,
            directories,
            ..
        } = specify(&image(), &Wishes::default(), &place()).unwrap();
        assert_eq!(spec["process"]["args"], json!(["sh"]));
        assert_eq!(spec["process"]["cwd"], "/srv");
        assert_eq!(spec["process"]["user"]["username"], "web:adm");
        assert_eq!(spec["windows"]["layerFolders"], json!(["/l/top", "/l/base", "."]));
        assert_eq!(spec["annotations"][VOLUMES], "[\"/data\",\"/log\"]");
        assert_eq!((hostname.as_str(), &spec["hostname"]), ("web", &json!("web")));
        assert!(directories.is_empty());
        assert!(destinations(&spec).ends_with(&["/etc/hostname".to_owned(), "/etc/hosts".to_owned()]));
        let kinds = |spec: &Value| spec["linux"]["namespaces"].to_string();
        assert!(!kinds(&spec).contains("network"));
        let alone = Place {
            process_isolation: true,
            ..place()
        };
        assert!(kinds(&specify(&image(), &Wishes::default(), &alone).unwrap().spec).contains("network"));
    }

    #[test]
    fn wishes_come_before_the_image() {
        let wishes = Wishes {
            user: Some("7".to_owned()),
            working_directory: Some("/w/".to_owned()),
            hostname: Some("box".to_owned()),
            read_only: true,
            terminal: true,
            ..Wishes::default()
        };
        let spec = specify(&image(), &wishes, &place()).unwrap().spec;
        assert_eq!(spec["process"]["user"]["username"], "7");
        assert_eq!(spec["process"]["cwd"], "/w");
        assert_eq!(spec["hostname"], "box");
        assert_eq!(spec["root"], json!({ "readonly": true }));
        assert!(
            spec["process"]["env"]
                .as_array()
                .unwrap()
                .contains(&json!("TERM=xterm"))
        );
        for (wishes, words) in [
            (
                Wishes {
                    working_directory: Some("w".to_owned()),
                    ..Wishes::default()
                },
                "working directory `w`",
            ),
            (
                Wishes {
                    hostname: Some("a b".to_owned()),
                    ..Wishes::default()
                },
                "host name `a b`",
            ),
        ] {
            let error = specify(&image(), &wishes, &place()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn mounts_are_ordered_and_take_the_place_of_volumes_and_usual_ones() {
        let mounts = ["./in:/data/in", "vol:/log:ro", "/h:/etc/hosts", "/anon"];
        let mut mounts: Vec<_> = mounts.map(|text| volume(text).unwrap()).into();
        mounts.push(tmpfs("/dev/shm:size=1m").unwrap());
        mounts.push(WantedMount::parse("type=virtual-disk,src=d.vhdx,dst=/disk,ro").unwrap());
        let wishes = Wishes {
            mounts,
            ..Wishes::default()
        };
        let Specified {
            spec,
            directories,
            sources,
            ..
        } = specify(&image(), &wishes, &place()).unwrap();
        assert_eq!(sources, [PathBuf::from("/home/me/d.vhdx")]);
        let order = destinations(&spec);
        assert!(
            order.ends_with(&["/log", "/disk", "/data/in", "/etc/hosts", "/dev/shm"].map(str::to_owned)),
            "{order:?}"
        );
        assert_eq!(
            order
                .iter()
                .filter(|path| *path == "/etc/hosts" || *path == "/dev/shm")
                .count(),
            2
        );
        assert_eq!(spec["annotations"][VOLUMES], "[\"/anon\",\"/data\"]");
        assert_eq!(
            directories,
            ["/store/volumes/vol", "/home/me/./in", "/h"].map(PathBuf::from)
        );
        let disk = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .find(|mount| mount["destination"] == "/disk")
            .unwrap();
        assert_eq!(
            *disk,
            json!({ "destination": "/disk", "type": "virtual-disk", "source": "/home/me/d.vhdx", "options": ["ro"] })
        );
    }

    #[test]
    fn two_mounts_at_one_place_are_refused() {
        let mounts = vec![volume("/a:/x").unwrap(), tmpfs("/x/").unwrap()];
        let error = specify(
            &image(),
            &Wishes {
                mounts,
                ..Wishes::default()
            },
            &place(),
        )
        .unwrap_err();
        assert_eq!(error, SpecifyError::DuplicateMount("/x".to_owned()));
    }
}
