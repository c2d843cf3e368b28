//! `--tmpfs DESTINATION[:OPTIONS]`.

use crate::{
    SpecifyError,
    mount::{Origin, WantedMount, destination},
};

/// What a tmpfs has unless its options say the opposite.
const USUAL: [(&str, &str); 3] = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
/// Options without a value.
const FLAGS: [&str; 14] = [
    "ro",
    "rw",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "atime",
    "noatime",
    "relatime",
    "strictatime",
];
/// Options with one.
const VALUES: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];

/// Reads it.
///
/// # Errors
/// The destination is no absolute path below `/`; an option is unknown.
pub fn tmpfs(text: &str) -> Result<WantedMount, SpecifyError> {
    let refused = |problem: String| SpecifyError::Tmpfs {
        text: text.to_owned(),
        problem,
    };
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = of(destination(path).map_err(refused)?, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option
            .split_once('=')
            .map_or((option, None), |(name, value)| (name, Some(value)));
        let known = match value {
            None => FLAGS.contains(&name),
            Some(value) => VALUES.contains(&name) && !value.is_empty(),
        };
        if !known {
            return Err(refused(format!("invalid tmpfs option `{option}`")));
        }
        let opposite = |there: &String| {
            USUAL
                .iter()
                .any(|(usual, other)| there == usual && *other == name)
        };
        mount.options.retain(|there| !opposite(there) && there != name);
        mount.options.push(option.to_owned());
    }
    mount.read_only = mount
        .options
        .iter()
        .rfind(|option| *option == "ro" || *option == "rw")
        .is_some_and(|last| last == "ro");
    mount.options.retain(|option| option != "ro" && option != "rw");
    Ok(mount)
}

/// A tmpfs with the usual options and these.
pub(crate) fn of(destination: String, options: Vec<String>) -> WantedMount {
    let usual = USUAL.iter().map(|(usual, _)| (*usual).to_owned());
    WantedMount {
        destination,
        origin: Origin::Memory,
        read_only: false,
        options: usual.chain(options).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_take_the_place_of_the_usual_ones() {
        let mount = tmpfs("/run:rw,exec,size=64m,mode=1777").unwrap();
        assert_eq!((mount.destination.as_str(), mount.read_only), ("/run", false));
        assert_eq!(
            mount.options,
            ["nosuid", "nodev", "exec", "size=64m", "mode=1777"]
        );
        assert!(tmpfs("/run:rw,ro").unwrap().read_only);
        assert_eq!(tmpfs("/run").unwrap().options, ["noexec", "nosuid", "nodev"]);
        for (text, words) in [
            ("run", "absolute"),
            ("/", "`/`"),
            ("/x:size=", "`size=`"),
            ("/x:loud", "`loud`"),
        ] {
            let error = tmpfs(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
