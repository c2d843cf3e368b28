//! `-v [SOURCE:]DESTINATION[:OPTIONS]`.

use crate::{
    SpecifyError,
    mount::{Origin, WantedMount, destination, is_volume_name},
};

/// Options of docker that say nothing here: a share is as consistent as it can be, there is no SELinux in the VM, and
/// mounts made on the host later do not reach into it.
const WITHOUT_MEANING: [&str; 14] = [
    "z",
    "Z",
    "nocopy",
    "cached",
    "delegated",
    "consistent",
    "default",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "rbind",
];

/// Reads it. A source that begins with `/`, or with `.`, is a path of the host, and made a directory if there is nothing;
/// another is a volume's name. Without a source it is a volume of this container only.
///
/// # Errors
/// It has too many parts, a destination that is none, or an option that is unknown.
pub fn volume(text: &str) -> Result<WantedMount, SpecifyError> {
    let refused = |problem: String| SpecifyError::Volume {
        text: text.to_owned(),
        problem,
    };
    let parts: Vec<_> = text.split(':').collect();
    let (source, path, options) = match parts.as_slice() {
        [path] => (None, *path, ""),
        [source, path] => (Some(*source), *path, ""),
        [source, path, options] => (Some(*source), *path, *options),
        _ => return Err(refused("it is SOURCE:DESTINATION[:OPTIONS]".to_owned())),
    };
    let destination = destination(path).map_err(refused)?;
    let origin = match source {
        None => Origin::Anonymous,
        Some("") => return Err(refused("its source is empty".to_owned())),
        Some(path) if path.starts_with(['/', '.']) => Origin::Host {
            path: path.to_owned(),
            make: true,
        },
        Some(name) if is_volume_name(name) => Origin::Named(name.to_owned()),
        Some(name) => {
            return Err(refused(format!(
                "`{name}` is neither an absolute path, nor one that begins with `./`, nor a volume's name: letters, \
                 digits, `_`, `.` and `-`, at least two"
            )));
        }
    };
    let mut rights = None;
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option {
            "ro" | "rw" if rights.is_none() => rights = Some(option),
            known if WITHOUT_MEANING.contains(&known) => {}
            _ => return Err(refused(format!("invalid mode `{options}`"))),
        }
    }
    Ok(WantedMount {
        destination,
        origin,
        read_only: rights == Some("ro"),
        options: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str) -> Origin {
        Origin::Host {
            path: path.to_owned(),
            make: true,
        }
    }

    #[test]
    fn every_form_is_what_docker_takes_it_for() {
        for (text, origin, destination, read_only) in [
            ("/src:/dst", host("/src"), "/dst", false),
            ("/src:/dst:ro", host("/src"), "/dst", true),
            ("./src:/dst/", host("./src"), "/dst", false),
            ("../src:/a//b:rw,z", host("../src"), "/a/b", false),
            (
                "data:/dst:ro,nocopy",
                Origin::Named("data".to_owned()),
                "/dst",
                true,
            ),
            (
                "my.data-1_x:/dst",
                Origin::Named("my.data-1_x".to_owned()),
                "/dst",
                false,
            ),
            ("/dst", Origin::Anonymous, "/dst", false),
        ] {
            let mount = volume(text).unwrap();
            assert_eq!(
                (mount.origin, mount.destination.as_str(), mount.read_only),
                (origin, destination, read_only),
                "{text}"
            );
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_with_the_reason() {
        for (text, words) in [
            ("", "absolute"),
            ("dst", "absolute"),
            ("/src:dst", "absolute"),
            ("/src:/", "`/`"),
            ("/src:/a/..", "`/`"),
            (":/dst", "source is empty"),
            ("/a:/b:ro:x", "SOURCE:DESTINATION"),
            ("/a:/b:ro,rw", "invalid mode `ro,rw`"),
            ("/a:/b:fast", "invalid mode `fast`"),
            ("a b:/dst", "`a b` is neither"),
            ("x:/dst", "at least two"),
            ("dir/sub:/dst", "`dir/sub` is neither"),
        ] {
            let error = volume(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
