//! What `cargo metadata` says of the workspace, as far as the checks need it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::rules::{Crate, Graph};
use crate::tool::Tool;

/// The platform whose dependencies are looked at: the project's programs run on no other.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The whole answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

/// One package, of this repository or of others.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    license_file: Option<PathBuf>,
    /// Absent for packages given by a path.
    pub source: Option<String>,
    manifest_path: PathBuf,
    pub dependencies: Vec<Requirement>,
}

/// What a manifest asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Requirement {
    pub name: String,
    pub req: String,
    pub path: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// Absent for normal dependencies, else `dev` or `build`.
    kind: Option<String>,
}

impl Package {
    /// The text of the licence file that the manifest names.
    pub(crate) fn license_text(&self) -> Option<String> {
        let dir = self.manifest_path.parent()?;
        std::fs::read_to_string(dir.join(self.license_file.as_ref()?)).ok()
    }
}

/// Asks cargo.
pub(crate) fn read(root: &Path) -> Result<Metadata> {
    let text = Tool::cargo()
        .args([
            "metadata",
            "--format-version",
            "1",
            "--filter-platform",
            PLATFORM,
            "--manifest-path",
        ])
        .arg(root.join("Cargo.toml"))
        .read()?;
    serde_json::from_str(&text).context("cargo metadata's answer is not as expected")
}

impl Metadata {
    /// The dependency graph.
    pub(crate) fn graph(&self) -> Result<Graph> {
        let mut graph = Graph::new();
        for node in &self.resolve.nodes {
            let package = self.packages.iter().find(|package| package.id == node.id);
            let name = package
                .with_context(|| format!("cargo metadata names no package {}", node.id))?
                .name
                .clone();
            let of_kind = |dev: bool| -> BTreeSet<String> {
                let is_dev = |kind: &Kind| kind.kind.as_deref() == Some("dev");
                let matching = node
                    .deps
                    .iter()
                    .filter(|dep| dep.dep_kinds.iter().any(|kind| is_dev(kind) == dev));
                matching.map(|dep| dep.pkg.clone()).collect()
            };
            let member = self.workspace_members.contains(&node.id);
            let (dependencies, dev_dependencies) = (of_kind(false), of_kind(true));
            graph.insert(
                node.id.clone(),
                Crate {
                    name,
                    member,
                    dependencies,
                    dev_dependencies,
                },
            );
        }
        Ok(graph)
    }

    /// Whether a package is of this repository.
    pub(crate) fn is_member(&self, package: &Package) -> bool {
        self.workspace_members.contains(&package.id)
    }

    /// The crate a file of the repository belongs to; empty for none.
    pub(crate) fn crate_of(&self, root: &Path, path: &str) -> &str {
        let file = root.join(path);
        let holds = |package: &&Package| {
            package
                .manifest_path
                .parent()
                .is_some_and(|dir| file.starts_with(dir))
        };
        let members = self.packages.iter().filter(|package| self.is_member(package));
        members
            .filter(holds)
            .map(|package| package.name.as_str())
            .next()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_dependencies_are_kept_apart() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"packages": [
                 {"id": "a", "name": "a", "version": "1.0.0", "manifest_path": "/r/crates/a/Cargo.toml",
                  "license": null, "source": null, "dependencies": []},
                 {"id": "b", "name": "b", "version": "1.0.0", "manifest_path": "/c/b/Cargo.toml",
                  "license": "MIT", "source": "registry", "dependencies": []}],
                "workspace_members": ["a"],
                "resolve": {"nodes": [
                 {"id": "a", "deps": [{"pkg": "b", "dep_kinds": [{"kind": "dev"}]}]},
                 {"id": "b", "deps": []}]}}"#,
        )
        .unwrap();
        let graph = metadata.graph().unwrap();
        assert!(graph["a"].member && !graph["b"].member);
        assert!(graph["a"].dependencies.is_empty());
        assert!(graph["a"].dev_dependencies.contains("b"));
        assert_eq!(metadata.crate_of(Path::new("/r"), "crates/a/src/lib.rs"), "a");
        assert_eq!(metadata.crate_of(Path::new("/r"), "docs/x.rs"), "");
    }
}
