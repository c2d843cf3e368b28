//! `--mount`, and what all wished mounts have in common.

use crate::{SpecifyError, tmpfs};

/// A mount somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedMount {
    /// Where in the container: absolute, without `.`, `..` and doubled slashes.
    pub destination: String,
    /// What is mounted.
    pub origin: Origin,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Further options of the filesystem.
    pub options: Vec<String>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A directory or a file of the host, maybe relative; `make`: a directory, if there is nothing.
    Host {
        /// Its path.
        path: String,
        /// Whether it is made.
        make: bool,
    },
    /// A volume with a name, which outlives the container.
    Named(String),
    /// A volume of this container only.
    Anonymous,
    /// Memory.
    Memory,
    /// A disk: `virtual-disk`, `automanage-virtual-disk` or `physical-disk`.
    Disk {
        /// Its type in the spec.
        kind: &'static str,
        /// Its path.
        path: String,
    },
    /// A directory of the VM.
    Sandbox(String),
}

/// Types of disks.
const DISKS: [&str; 3] = ["virtual-disk", "automanage-virtual-disk", "physical-disk"];

impl WantedMount {
    /// Reads `type=…,source=…,destination=…[,readonly]`, fields as in CSV. The type is `volume` where none is said, as
    /// docker has it.
    ///
    /// # Errors
    /// A field is unknown, missing, or does not fit the type.
    pub fn parse(text: &str) -> Result<Self, SpecifyError> {
        parse(text).map_err(|problem| SpecifyError::Mount {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<WantedMount, String> {
    let (mut kind, mut source, mut target, mut read_only) = ("volume".to_owned(), None, None, false);
    let (mut size, mut mode) = (None, None);
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        };
        let unknown = || Err(format!("unexpected field `{field}`"));
        let needs = |value: Option<String>| {
            value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("`{field}` needs a value"))
        };
        match key.as_str() {
            "type" => kind = needs(value)?.to_ascii_lowercase(),
            "source" | "src" => source = Some(needs(value)?),
            "destination" | "dst" | "target" => target = Some(destination(&needs(value)?)?),
            "readonly" | "ro" => {
                read_only = truth(value.as_deref()).ok_or_else(|| format!("invalid value of `{field}`"))?
            }
            "tmpfs-size" => size = Some(format!("size={}", needs(value)?)),
            "tmpfs-mode" => mode = Some(format!("mode={}", needs(value)?)),
            // See the options of `-v` that say nothing here.
            "consistency" | "bind-propagation" | "bind-nonrecursive" | "bind-recursive" | "volume-nocopy" => {
            }
            _ => return unknown(),
        }
    }
    let destination = target.ok_or("a mount needs a destination")?;
    if kind != "tmpfs" && (size.is_some() || mode.is_some()) {
        return Err("tmpfs-size and tmpfs-mode are for type=tmpfs".to_owned());
    }
    let mut options = Vec::new();
    let origin = match (kind.as_str(), source) {
        ("bind", Some(path)) => match path.strip_prefix("sandbox://") {
            Some(_) => Origin::Sandbox(path),
            None => Origin::Host { path, make: false },
        },
        ("volume", None) => Origin::Anonymous,
        ("volume", Some(name)) if is_volume_name(&name) => Origin::Named(name),
        ("volume", Some(name)) => {
            return Err(format!("`{name}` is no volume's name; a path is for type=bind"));
        }
        ("tmpfs", None) => {
            options = tmpfs::of(String::new(), size.into_iter().chain(mode).collect()).options;
            Origin::Memory
        }
        ("tmpfs", Some(_)) => return Err("type=tmpfs has no source".to_owned()),
        (kind, source) => {
            let kind = DISKS
                .into_iter()
                .chain(["bind"])
                .find(|known| *known == kind)
                .ok_or_else(|| {
                    format!(
                        "unknown type `{kind}`: it is bind, volume, tmpfs, {}",
                        DISKS.join(" or ")
                    )
                })?;
            let path = source.ok_or_else(|| format!("type={kind} needs a source"))?;
            Origin::Disk { kind, path }
        }
    };
    Ok(WantedMount {
        destination,
        origin,
        read_only,
        options,
    })
}

fn truth(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(_) => None,
    }
}

/// The fields of a line of CSV: one that begins with a quote ends with one, and holds two for each of its own.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("something follows a closing quote".to_owned()),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or("a quote is not closed")?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, rest)),
        }
    }
}

/// A path in the container as it is compared: absolute, plain, and not the root itself.
pub(crate) fn destination(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!(
            "invalid destination `{path}`: it must be an absolute path"
        ));
    }
    if path.contains('\0') {
        return Err("the destination holds a NUL".to_owned());
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("invalid destination: it can't be `/`".to_owned());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// docker's rule: at least two letters, digits, `_`, `.` and `-`, the first a letter or digit.
pub(crate) fn is_volume_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() >= 2
        && name.len() <= 255
        && name.bytes().all(plain)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(text: &str) -> Origin {
        WantedMount::parse(text).unwrap().origin
    }

    #[test]
    fn types_and_their_sources() {
        let path = "/s".to_owned();
        assert_eq!(
            origin("type=bind,source=/s,target=/d"),
            Origin::Host { path, make: false }
        );
        assert_eq!(origin("src=data,dst=/d"), Origin::Named("data".to_owned()));
        assert_eq!(origin("dst=/d"), Origin::Anonymous);
        assert_eq!(
            origin("type=bind,src=sandbox:///x,dst=/d"),
            Origin::Sandbox("sandbox:///x".to_owned())
        );
        let disk = Origin::Disk {
            kind: "virtual-disk",
            path: "d.vhdx".to_owned(),
        };
        assert_eq!(origin("Type=virtual-disk,SRC=d.vhdx,dst=/d"), disk);
        let memory = WantedMount::parse("type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1770,ro").unwrap();
        assert!(
            memory.read_only
                && memory
                    .options
                    .ends_with(&["size=1m".to_owned(), "mode=1770".to_owned()])
        );
        let quoted = Origin::Host {
            path: "/a,\"b\"".to_owned(),
            make: false,
        };
        assert_eq!(origin("type=bind,\"source=/a,\"\"b\"\"\",dst=/d"), quoted);
        assert!(!WantedMount::parse("dst=/d,readonly=false").unwrap().read_only);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "unexpected field ``"),
            ("type=bind,dst=/d", "type=bind needs a source"),
            ("type=bind,src=/s", "needs a destination"),
            ("src=/s,dst=/d", "a path is for type=bind"),
            ("type=tmpfs,src=x,dst=/d", "no source"),
            ("type=npipe,src=x,dst=/d", "unknown type `npipe`"),
            ("type=virtual-disk,dst=/d", "type=virtual-disk needs a source"),
            ("dst=d", "absolute"),
            ("dst=/d,ro=maybe", "`ro=maybe`"),
            ("dst=/d,loud", "`loud`"),
            ("dst=/d,tmpfs-size=1", "type=tmpfs"),
            ("\"dst=/d", "not closed"),
            ("\"dst=/d\"x", "follows"),
            ("dst=", "needs a value"),
        ] {
            let error = WantedMount::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_destination_is_absolute_plain_and_stays_itself(path in "/[a./]{0,12}") {
            if let Ok(plain) = destination(&path) {
                prop_assert!(plain.starts_with('/') && plain.len() > 1 && !plain.contains("//"));
                prop_assert!(plain.split('/').all(|part| part != "." && part != ".."));
                prop_assert_eq!(destination(&plain).unwrap(), plain);
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}", csv in "[a-z=,\"]{0,30}") {
            let _ = (WantedMount::parse(&text), WantedMount::parse(&csv), crate::volume(&text), crate::tmpfs(&text));
        }
    }
}
