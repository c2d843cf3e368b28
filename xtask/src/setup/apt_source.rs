//! The apt source of a suite beside the one the host already has, derived from it: the same address and key, another
//! suite. No mirror's name stands in this repository. Formats: sources.list(5), one-line and deb822 style.

/// One entry of the host's apt configuration that carries binary packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    /// Other options that decide whether the mirror is believed or used (`Trusted`, `Architectures`), kept as they are.
    options: Vec<(String, String)>,
}

/// The sources of one-line style text (`*.list`).
pub(crate) fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let mut source = Source::default();
    let rest = match rest.strip_prefix('[') {
        None => rest,
        Some(options) => {
            let (options, rest) = options.split_once(']')?;
            for (name, value) in options
                .split_whitespace()
                .filter_map(|option| option.split_once('='))
            {
                match name {
                    "signed-by" => source.signed_by = Some(value.replace(',', " ")),
                    "trusted" => source.options.push(("Trusted".into(), value.into())),
                    "arch" => source
                        .options
                        .push(("Architectures".into(), value.replace(',', " "))),
                    _ => {}
                }
            }
            rest
        }
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris.push(words.next()?);
    source.suites.push(words.next()?);
    source.components = words.collect();
    Some(source)
}

/// The sources of deb822 style text (`*.sources`).
pub(crate) fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let disabled = field("enabled").is_some_and(|value| matches!(value, "no" | "false" | "0"));
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    let options = [("trusted", "Trusted"), ("architectures", "Architectures")];
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
        options: options
            .into_iter()
            .filter_map(|(name, shown)| Some((shown.to_owned(), field(name)?.to_owned())))
            .collect(),
    })
}

/// Whether a suite is among the sources already.
pub(crate) fn has_suite(sources: &[Source], suite: &str) -> bool {
    sources
        .iter()
        .any(|source| source.suites.iter().any(|s| s == suite))
}

/// The deb822 text of a source for `suite`, beside the one that carries `base_suite` with the component `main`.
pub(crate) fn beside(sources: &[Source], base_suite: &str, suite: &str) -> Option<String> {
    let base = sources.iter().find(|source| {
        source.suites.iter().any(|s| s == base_suite) && source.components.iter().any(|c| c == "main")
    })?;
    let mut text = format!(
        "# Added by `cargo xtask setup`: packages that are too old in {base_suite}.\n\
         Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
        base.uris.join(" ")
    );
    if let Some(key) = &base.signed_by {
        text.push_str(&format!("Signed-By: {key}\n"));
    }
    for (name, value) in &base.options {
        text.push_str(&format!("{name}: {value}\n"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main
";

    #[test]
    fn a_suite_takes_address_and_key_from_the_deb822_source_beside_it() {
        let text = beside(&parse_deb822(DEB822), "bookworm", "bookworm-backports").unwrap();
        let body: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            body,
            [
                "Types: deb",
                "URIs: http://mirror.example/debian",
                "Suites: bookworm-backports",
                "Components: main",
                "Signed-By: /usr/share/keyrings/archive.gpg",
            ]
        );
    }

    #[test]
    fn the_derived_text_is_itself_a_source_of_the_suite() {
        let text = beside(&parse_deb822(DEB822), "bookworm", "bookworm-backports").unwrap();
        assert!(has_suite(&parse_deb822(&text), "bookworm-backports"));
    }

    #[test]
    fn a_one_line_source_gives_its_address_and_options() {
        let list = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://m.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg trusted=yes] http://m.example/debian bookworm main # here\n";
        let sources = parse_one_line(list);
        assert_eq!(sources.len(), 1);
        let text = beside(&sources, "bookworm", "bookworm-backports").unwrap();
        assert!(text.contains("URIs: http://m.example/debian\n"), "{text}");
        assert!(text.contains("Signed-By: /k.gpg\n"), "{text}");
        assert!(
            text.contains("Trusted: yes\n") && text.contains("Architectures: amd64\n"),
            "{text}"
        );
    }

    #[test]
    fn a_key_written_into_the_source_is_kept_whole() {
        let text = "Types: deb\nURIs: http://m.example/d\nSuites: bookworm\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let derived = beside(&parse_deb822(text), "bookworm", "bookworm-backports").unwrap();
        assert!(
            derived.contains("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n"),
            "{derived}"
        );
    }

    #[test]
    fn disabled_and_source_only_stanzas_do_not_count() {
        let text = "Types: deb\nEnabled: no\nURIs: http://m.example/d\nSuites: bookworm\nComponents: main\n\n\
                    Types: deb-src\nURIs: http://m.example/d\nSuites: bookworm\nComponents: main\n";
        assert!(parse_deb822(text).is_empty());
    }

    #[test]
    fn without_the_base_suite_nothing_is_derived() {
        let only_security = parse_one_line("deb http://m.example/security bookworm-security main\n");
        assert_eq!(beside(&only_security, "bookworm", "bookworm-backports"), None);
        assert!(!has_suite(&only_security, "bookworm"));
    }
}
