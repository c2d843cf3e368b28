//! Which side of a copy is the container's.

use std::ffi::OsStr;

use anyhow::{Context as _, Result, bail};
use cofferdam_copy::Order;

use crate::args::CpArgs;

/// What is copied from where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The container.
    pub(super) id: String,
    pub(super) way: Way,
    pub(super) keep: bool,
    pub(super) follow: bool,
    pub(super) quiet: bool,
}

/// Container paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    In { from: Local, path: String },
    Out { path: String, to: Local },
}

/// This host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Local {
    Path(Vec<u8>),
    /// An archive on a standard stream.
    Stream,
}

enum Side {
    Local(Local),
    Container { id: String, path: String },
}

impl Copy {
    /// What the command line asks for.
    pub(crate) fn of(args: &CpArgs) -> Result<Self> {
        let (id, way) = match (side(&args.source)?, side(&args.destination)?) {
            (Side::Local(from), Side::Container { id, path }) => (id, Way::In { from, path }),
            (Side::Container { id, path }, Side::Local(to)) => (id, Way::Out { path, to }),
            (Side::Container { .. }, Side::Container { .. }) => {
                bail!("between two containers: copy to this host first, or through a pipe with -")
            }
            (Side::Local(_), Side::Local(_)) => bail!("one of SRC and DST is ID:PATH, in a container"),
        };
        Ok(Self {
            id,
            way,
            keep: args.archive,
            follow: args.follow_link,
            quiet: args.quiet,
        })
    }

    /// What the agent is asked for.
    pub(super) fn order(&self) -> Result<Order> {
        Ok(match &self.way {
            Way::Out { path, .. } => Order::Out {
                path: path.clone(),
                follow: self.follow,
            },
            Way::In { from, path } => Order::In {
                path: path.clone(),
                source: match from {
                    Local::Path(path) => Some(last_part(path)?),
                    Local::Stream => None,
                },
                keep: self.keep,
            },
        })
    }
}

/// As docker tells them apart: what begins with `/` or `.` is a path of this host, whatever colons are in it.
fn side(text: &OsStr) -> Result<Side> {
    let bytes = text.as_encoded_bytes();
    if bytes == b"-" {
        return Ok(Side::Local(Local::Stream));
    }
    let colon = bytes.iter().position(|byte| *byte == b':');
    let Some(colon) = colon.filter(|colon| *colon > 0 && !matches!(bytes[0], b'/' | b'.')) else {
        if bytes.is_empty() {
            bail!("a path is empty");
        }
        return Ok(Side::Local(Local::Path(bytes.to_vec())));
    };
    let text = text
        .to_str()
        .with_context(|| format!("{}: a container's path is UTF-8", text.display()))?;
    let (id, path) = (&text[..colon], &text[colon + 1..]);
    if path.is_empty() {
        bail!("{text}: there is no path after the container's name");
    }
    // A container's working directory for this is its root.
    let path = match path.strip_prefix('/') {
        Some(_) => path.to_owned(),
        None => format!("/{path}"),
    };
    Ok(Side::Container {
        id: id.to_owned(),
        path,
    })
}

/// All that the agent needs to know of a path of this host: what its archive's entries begin with.
fn last_part(path: &[u8]) -> Result<String> {
    let trimmed = match path.iter().rposition(|byte| *byte != b'/') {
        Some(last) => &path[..=last],
        None => b"/",
    };
    let last = trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let text = std::str::from_utf8(last)
        .with_context(|| format!("{}: its name is not UTF-8", String::from_utf8_lossy(path)))?;
    Ok(match text {
        "" => "/".to_owned(),
        text => text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(source: &str, destination: &str) -> Result<Copy> {
        Copy::of(&CpArgs {
            archive: false,
            follow_link: true,
            quiet: false,
            source: source.into(),
            destination: destination.into(),
        })
    }

    fn path(text: &str) -> Local {
        Local::Path(text.into())
    }

    #[test]
    fn one_side_is_the_containers() {
        for (source, destination, way) in [
            (
                "a",
                "web:/b",
                Way::In {
                    from: path("a"),
                    path: "/b".into(),
                },
            ),
            (
                "./x:y",
                "web:b",
                Way::In {
                    from: path("./x:y"),
                    path: "/b".into(),
                },
            ),
            (
                "/x:y",
                "web:/",
                Way::In {
                    from: path("/x:y"),
                    path: "/".into(),
                },
            ),
            (
                ":x",
                "web:/",
                Way::In {
                    from: path(":x"),
                    path: "/".into(),
                },
            ),
            (
                "-",
                "web:/tmp",
                Way::In {
                    from: Local::Stream,
                    path: "/tmp".into(),
                },
            ),
            (
                "web:/a:b",
                "c",
                Way::Out {
                    path: "/a:b".into(),
                    to: path("c"),
                },
            ),
            (
                "web:/etc",
                "-",
                Way::Out {
                    path: "/etc".into(),
                    to: Local::Stream,
                },
            ),
        ] {
            let copy = copy(source, destination).unwrap();
            assert_eq!(
                (copy.id.as_str(), copy.way),
                ("web", way),
                "{source} {destination}"
            );
        }
        for (source, destination, words) in [
            ("a", "b", "one of SRC and DST"),
            ("a:/b", "c:/d", "between two containers"),
            ("-", "-", "one of SRC and DST"),
            ("web:", "b", "no path after"),
            ("", "web:/", "a path is empty"),
        ] {
            let refused = copy(source, destination).unwrap_err().to_string();
            assert!(refused.contains(words), "{source} {destination}: {refused}");
        }
    }

    #[test]
    fn the_agent_is_told_no_more_than_it_needs() {
        for (source, told) in [
            ("/home/me/site", "site"),
            ("site/", "site"),
            ("site/.", "."),
            (".", "."),
            ("/", "/"),
        ] {
            let order = copy(source, "web:/srv").unwrap().order().unwrap();
            let Order::In { source, .. } = order else {
                panic!("{order:?}")
            };
            assert_eq!(source.as_deref(), Some(told));
        }
        let order = copy("web:/etc", "x").unwrap().order().unwrap();
        let follow = true;
        assert_eq!(
            order,
            Order::Out {
                path: "/etc".into(),
                follow
            }
        );
    }
}
