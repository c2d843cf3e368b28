//! The rules of `layering.toml`, and the checks that need no I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// The file `layering.toml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Rules {
    pub max_lines: usize,
    pub refused_modules: Vec<String>,
    pub edges: BTreeMap<String, BTreeSet<String>>,
    /// Further edges, for tests only.
    #[serde(default)]
    pub dev_edges: BTreeMap<String, BTreeSet<String>>,
    pub pure: Pure,
    /// Crate to reason.
    #[serde(rename = "unsafe")]
    pub unsafe_crates: BTreeMap<String, String>,
    /// File to reason.
    pub long_files: BTreeMap<String, String>,
    pub refused_text: Vec<RefusedText>,
}

/// Crates without I/O.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pure {
    pub crates: Vec<String>,
    pub refused: BTreeSet<String>,
}

/// Text that no file may hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusedText {
    parts: Vec<String>,
    /// Only where a path starts with it.
    #[serde(default)]
    path: bool,
    why: String,
}

/// One crate of the dependency graph.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crate {
    pub name: String,
    /// Whether it is a crate of this repository.
    pub member: bool,
    /// Keys (package ids) of what it is built with: normal and build dependencies.
    pub dependencies: BTreeSet<String>,
    /// Keys of what its tests are built with beside that.
    pub dev_dependencies: BTreeSet<String>,
}

/// The dependency graph, by package id.
pub(crate) type Graph = BTreeMap<String, Crate>;

/// The edges between crates of this repository that the rules do not allow.
pub(crate) fn check_edges(rules: &Rules, graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    let members: BTreeSet<_> = graph
        .values()
        .filter(|c| c.member)
        .map(|c| c.name.as_str())
        .collect();
    for member in graph.values().filter(|c| c.member) {
        let Some(allowed) = rules.edges.get(&member.name) else {
            broken.push(format!(
                "{} stands in no row of [edges]: say what it may depend on",
                member.name
            ));
            continue;
        };
        let in_tests = rules.dev_edges.get(&member.name);
        let built_with = member.dependencies.iter().map(|key| (key, false));
        let tested_with = member
            .dev_dependencies
            .difference(&member.dependencies)
            .map(|key| (key, true));
        for (key, for_tests) in built_with.chain(tested_with) {
            let Some(other) = graph.get(key).filter(|c| c.member && c.name != member.name) else {
                continue;
            };
            let test_edge = for_tests && in_tests.is_some_and(|names| names.contains(&other.name));
            if !allowed.contains(&other.name) && !test_edge {
                let tests = if for_tests { ", not even in tests" } else { "" };
                broken.push(format!(
                    "{} must not depend on {}{tests}",
                    member.name, other.name
                ));
            }
        }
    }
    for (name, allowed) in rules.edges.iter().chain(&rules.dev_edges) {
        for unknown in allowed
            .iter()
            .chain([name])
            .filter(|name| !members.contains(name.as_str()))
        {
            broken.push(format!(
                "[edges] names {unknown}, which is no crate of the repository"
            ));
        }
    }
    broken
}

/// The refused dependencies of pure crates, each with the way it comes in.
pub(crate) fn check_pure(rules: &Rules, graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for name in &rules.pure.crates {
        let Some((key, _)) = graph.iter().find(|(_, c)| c.member && c.name == *name) else {
            broken.push(format!(
                "[pure] names {name}, which is no crate of the repository"
            ));
            continue;
        };
        for way in ways_to(graph, key, &rules.pure.refused) {
            broken.push(format!(
                "{name} does no I/O, yet depends on one of [pure] refused: {}",
                way.join(" -> ")
            ));
        }
    }
    broken
}

/// The shortest way from a crate to each refused one that it depends on.
fn ways_to(graph: &Graph, from: &str, refused: &BTreeSet<String>) -> Vec<Vec<String>> {
    let mut ways = Vec::new();
    let mut seen = BTreeSet::from([from]);
    let mut queue = std::collections::VecDeque::from([(from, Vec::new())]);
    while let Some((key, way)) = queue.pop_front() {
        let Some(here) = graph.get(key) else { continue };
        let way: Vec<String> = way.into_iter().chain([here.name.clone()]).collect();
        if refused.contains(&here.name) {
            ways.push(way);
            continue;
        }
        for next in &here.dependencies {
            if seen.insert(next) {
                queue.push_back((next, way.clone()));
            }
        }
    }
    ways
}

/// What is wrong with a Rust source file of a crate.
pub(crate) fn check_source(rules: &Rules, crate_name: &str, path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if lines > rules.max_lines && !rules.long_files.contains_key(path) {
        broken.push(format!(
            "{path} has {lines} lines, more than {}: split it by subject",
            rules.max_lines
        ));
    }
    // Code, not prose: the attribute as it stands at the start of a line.
    let opens_unsafe = text.lines().map(str::trim_start).any(|line| {
        (line.starts_with("#![") || line.starts_with("#[")) && {
            let attribute: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            attribute.contains("allow(unsafe_code") || attribute.contains("expect(unsafe_code")
        }
    });
    if opens_unsafe && !rules.unsafe_crates.contains_key(crate_name) {
        broken.push(format!(
            "{path} allows unsafe code, and {crate_name} is not listed in [unsafe]"
        ));
    }
    let stem = module_name(path);
    if rules.refused_modules.iter().any(|name| name == stem) {
        broken.push(format!("{path}: the name `{stem}` says nothing of what is in it"));
    }
    broken
}

/// The name of the module a file holds: `a/net/mod.rs` is `net`.
fn module_name(path: &str) -> &str {
    let mut names = path.rsplit('/');
    let stem = names.next().unwrap_or(path).trim_end_matches(".rs");
    if stem == "mod" {
        names.next().unwrap_or(stem)
    } else {
        stem
    }
}

/// The refused texts that a file holds, with their lines.
pub(crate) fn check_text(rules: &Rules, path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for refused in &rules.refused_text {
        let pattern = refused.parts.concat();
        for (number, line) in text.lines().enumerate() {
            if line
                .match_indices(&pattern)
                .any(|(at, _)| !refused.path || starts_a_path(line, at))
            {
                broken.push(format!(
                    "{path}:{}: holds `{pattern}`: {}",
                    number + 1,
                    refused.why
                ));
            }
        }
    }
    broken
}

/// Whether what stands before `at` is not itself part of a path: `scratch/x/` holds `/x/`, but does not start with it.
fn starts_a_path(line: &str, at: usize) -> bool {
    let before = line[..at].chars().next_back();
    !before.is_some_and(|c| c.is_alphanumeric() || "_-.~/}>)$*".contains(c))
}

/// Rules that exempt what is not there any more.
pub(crate) fn check_stale(rules: &Rules, is_long: impl Fn(&str) -> bool) -> Vec<String> {
    let stale = rules.long_files.keys().filter(|path| !is_long(path));
    stale
        .map(|path| format!("[long-files] names {path}, which is not that long: remove the row"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(
            r#"
            max-lines = 3
            refused-modules = ["utils"]
            [edges]
            top = ["pure"]
            pure = []
            [pure]
            crates = ["pure"]
            refused = ["runtime"]
            [unsafe]
            top = "a system call"
            [long-files]
            "crates/top/src/long.rs" = "a table"
            [[refused-text]]
            parts = ["/ho", "me/"]
            path = true
            why = "a path of one machine"
            [[refused-text]]
            parts = ["mirror.", "example"]
            why = "a mirror"
            "#,
        )
        .unwrap()
    }

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        let member = |name: &str| matches!(name, "top" | "pure");
        edges
            .iter()
            .map(|(name, dependencies)| {
                let dependencies = dependencies.iter().map(|d| (*d).to_owned()).collect();
                let dev_dependencies = BTreeSet::new();
                let node = Crate {
                    name: (*name).to_owned(),
                    member: member(name),
                    dependencies,
                    dev_dependencies,
                };
                ((*name).to_owned(), node)
            })
            .collect()
    }

    #[test]
    fn allowed_edges_and_outside_crates_pass() {
        let graph = graph(&[
            ("top", &["pure", "outside", "runtime"]),
            ("pure", &["outside"]),
            ("outside", &[]),
        ]);
        assert!(check_edges(&rules(), &graph).is_empty());
        assert!(check_pure(&rules(), &graph).is_empty());
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_refused() {
        let graph = graph(&[("top", &[]), ("pure", &["top"])]);
        assert_eq!(check_edges(&rules(), &graph), ["pure must not depend on top"]);
    }

    #[test]
    fn tests_may_use_only_the_further_edges_listed_for_them() {
        let mut graph = graph(&[("top", &[]), ("pure", &[])]);
        graph
            .get_mut("pure")
            .unwrap()
            .dev_dependencies
            .insert("top".into());
        let mut rules = rules();
        assert_eq!(
            check_edges(&rules, &graph),
            ["pure must not depend on top, not even in tests"]
        );
        rules
            .dev_edges
            .insert("pure".into(), BTreeSet::from(["top".to_owned()]));
        assert!(check_edges(&rules, &graph).is_empty());
        graph.get_mut("pure").unwrap().dependencies.insert("top".into());
        assert_eq!(check_edges(&rules, &graph), ["pure must not depend on top"]);
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_refused() {
        let mut graph = graph(&[("top", &[])]);
        graph.insert(
            "new".into(),
            Crate {
                name: "new".into(),
                member: true,
                ..Crate::default()
            },
        );
        let broken = check_edges(&rules(), &graph);
        assert!(
            broken.iter().any(|line| line.starts_with("new stands in no row")),
            "{broken:?}"
        );
        assert!(
            broken
                .iter()
                .any(|line| line.contains("names pure, which is no crate")),
            "{broken:?}"
        );
    }

    #[test]
    fn a_runtime_behind_another_crate_of_a_pure_one_is_found_with_its_way() {
        let graph = graph(&[
            ("top", &[]),
            ("pure", &["outside"]),
            ("outside", &["runtime", "pure"]),
            ("runtime", &[]),
        ]);
        let broken = check_pure(&rules(), &graph);
        assert_eq!(broken.len(), 1);
        assert!(broken[0].ends_with("pure -> outside -> runtime"), "{broken:?}");
    }

    #[test]
    fn a_long_file_is_refused_unless_listed() {
        let text = "1\n2\n3\n4\n";
        assert_eq!(
            check_source(&rules(), "top", "crates/top/src/a.rs", text).len(),
            1
        );
        assert!(check_source(&rules(), "top", "crates/top/src/long.rs", text).is_empty());
        assert!(check_source(&rules(), "top", "crates/top/src/a.rs", "1\n2\n3\n").is_empty());
    }

    #[test]
    fn unsafe_code_is_refused_outside_the_listed_crates() {
        let text = "//! Speaks of allow(unsafe_code).\n#![allow( unsafe_code, reason = \"x\")]\n";
        assert_eq!(
            check_source(&rules(), "pure", "crates/pure/src/lib.rs", text).len(),
            1
        );
        assert!(check_source(&rules(), "top", "crates/top/src/lib.rs", text).is_empty());
        let prose = "//! Speaks of allow(unsafe_code).\n";
        assert!(check_source(&rules(), "pure", "crates/pure/src/lib.rs", prose).is_empty());
    }

    #[test]
    fn modules_with_empty_names_are_refused() {
        for path in ["crates/top/src/utils.rs", "crates/top/src/utils/mod.rs"] {
            assert_eq!(check_source(&rules(), "top", path, "").len(), 1, "{path}");
        }
        assert!(check_source(&rules(), "top", "crates/top/src/mod.rs", "").is_empty());
    }

    #[test]
    fn a_refused_path_counts_only_where_a_path_starts() {
        let pattern = ["/ho", "me/"].concat();
        assert_eq!(
            check_text(&rules(), "a.md", &format!("see {pattern}x\nand `{pattern}y`\n")).len(),
            2
        );
        assert!(
            check_text(
                &rules(),
                "a.md",
                &format!("scratch{pattern}upper\n{{dir}}{pattern}\n")
            )
            .is_empty()
        );
    }

    #[test]
    fn refused_text_is_shown_with_its_line() {
        let text = format!("fine\nhttp://{}/debian\n", ["mirror.", "example"].concat());
        let broken = check_text(&rules(), "a.md", &text);
        assert!(broken[0].starts_with("a.md:2:"), "{broken:?}");
    }

    #[test]
    fn an_exemption_that_is_not_needed_any_more_is_refused() {
        assert_eq!(check_stale(&rules(), |_| false).len(), 1);
        assert!(check_stale(&rules(), |_| true).is_empty());
    }
}
