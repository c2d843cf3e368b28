//! Names of images: `[host[:port]/]path[:tag][@digest]`.
//!
//! As docker writes them, but that no registry is meant where none is named: a name without a host is one of this store
//! alone. Source: distribution's reference grammar.

use std::{fmt, str::FromStr};

use cofferdam_archive::Digest;

const TAG: &str = "latest";
const LONGEST: usize = 255;

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    host: Option<String>,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no name of an image: {reason}")]
pub struct BadReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// The registry, with its port if it has one.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The repository in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag: `latest` where neither it nor a digest is said.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some(TAG),
            (None, Some(_)) => None,
        }
    }

    /// The digest, if it is said.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Host and repository.
    pub fn repository(&self) -> String {
        match &self.host {
            Some(host) => format!("{host}/{}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository())?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = |reason| BadReference {
            text: text.chars().take(LONGEST).flat_map(char::escape_debug).collect(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| bad("what is after `@` is no sha256 digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (rest, host) = match rest.split_once('/') {
            Some((first, rest)) if is_host(first) => (rest, Some(first.to_owned())),
            _ => (rest, None),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad(
                "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, the first no `.` or `-`",
            ));
        }
        if path.len() + host.as_ref().map_or(0, String::len) > LONGEST || !path.split('/').all(is_component) {
            return Err(bad(
                "a repository has lower-case letters and digits, with `/`, `.`, `_`, `__` or `-` between them",
            ));
        }
        Ok(Self {
            host,
            path: path.to_owned(),
            tag,
            digest,
        })
    }
}

/// Whether the first part is a registry: it has a dot or a port, or is `localhost`.
fn is_host(part: &str) -> bool {
    let (name, port) = match part.strip_prefix('[') {
        // An IPv6 address.
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) => {
                let digits = |c: char| c.is_ascii_hexdigit() || c == ':';
                let port = port.strip_prefix(':');
                return address.chars().all(digits) && port.is_none_or(is_port);
            }
            None => return false,
        },
        None => match part.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (part, None),
        },
    };
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(label)
        && port.is_none_or(is_port)
        && (name.contains('.') || port.is_some() || name == "localhost")
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_tag(tag: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&tag.len()) && tag.chars().all(inner) && !tag.starts_with(['.', '-'])
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or dashes.
fn is_component(part: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(word) || !part.ends_with(word) {
        return false;
    }
    part.split(word)
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn names_are_taken_apart_as_docker_does_it() {
        let name = parse("registry.example:5000/team/app:v1.2");
        assert_eq!(
            (name.host(), name.path(), name.tag()),
            (Some("registry.example:5000"), "team/app", Some("v1.2"))
        );
        let name = parse("localhost/app");
        assert_eq!((name.host(), name.tag()), (Some("localhost"), Some("latest")));
        let name = parse("team/app");
        assert_eq!((name.host(), name.path()), (None, "team/app"));
        assert_eq!(parse("[::1]:5000/app").host(), Some("[::1]:5000"));
        let digest = Digest::of(b"");
        let name = parse(&format!("app@{digest}"));
        assert_eq!((name.tag(), name.digest()), (None, Some(digest)));
        assert_eq!(
            parse(&format!("app:a@{digest}")).to_string(),
            format!("app:a@{digest}")
        );
    }

    #[test]
    fn names_that_are_none_are_refused_with_the_reason() {
        for bad in [
            "",
            "App",
            "a//b",
            "a/",
            "-a",
            "a:",
            "a:b:c",
            "a:.b",
            "a@sha256:12",
            "a b",
            "../etc",
            "a..b",
            "a___b",
            "localhost:0/a",
            "a\n",
        ] {
            let error = bad.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains("no name of an image"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(text in "([a-z]{1,5}\\.[a-z]{2}(:[1-9][0-9]{1,3})?/)?[a-z0-9]{1,6}([._/-][a-z0-9]{1,6}){0,3}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,8})?") {
            let name = parse(&text);
            prop_assert_eq!(parse(&name.to_string()).to_string(), name.to_string());
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<Reference>();
        }
    }
}
