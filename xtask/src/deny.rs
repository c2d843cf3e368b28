//! `cargo xtask deny`: licences, sources and banned crates against `deny.toml`, from `cargo metadata` alone.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{
    layering::metadata::{self, Metadata, Package},
    progress::Step,
};

const FILE: &str = "deny.toml";

/// The parts of `deny.toml` that are checked here; the rest is cargo-deny's own.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// Checks the dependencies of the workspace at `root`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let step = Step::start("Licences, sources, banned crates");
    let text = fs::read_to_string(root.join(FILE)).with_context(|| format!("could not read {FILE}"))?;
    let policy: Policy = toml::from_str(&text).with_context(|| format!("{FILE} is not as expected"))?;
    let metadata = metadata::read(root)?;
    let used = metadata.graph()?;
    let packages: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| used.contains_key(&package.id))
        .collect();
    let broken = check(&policy, &metadata, &packages)?;
    if !broken.is_empty() {
        let list: Vec<_> = broken.iter().map(|line| format!("  {line}")).collect();
        bail!("{} crates do not keep {FILE}:\n{}", broken.len(), list.join("\n"));
    }
    step.done(format!(
        "{} crates, {} in several versions",
        packages.len(),
        several_versions(&packages)
    ));
    Ok(())
}

fn check(policy: &Policy, metadata: &Metadata, packages: &[&Package]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        let license = package
            .license
            .clone()
            .or_else(|| license_of_file(&package.license_text()?));
        if let Err(why) = check_license(license.as_deref(), &policy.licenses.allowed_for(&package.name)?) {
            broken.push(format!("{name}: {why}"));
        }
        if let Err(why) = check_source(package.source.as_deref(), metadata.is_member(package)) {
            broken.push(format!("{name}: {why}"));
        }
        if let Some(ban) = policy.bans.deny.iter().find(|ban| ban.name == package.name) {
            broken.push(format!("{name} is banned: {}", ban.reason));
        }
        if metadata.is_member(package) {
            let wild = package
                .dependencies
                .iter()
                .filter(|dep| dep.req == "*" && dep.path.is_none());
            broken.extend(wild.map(|dep| format!("{name} asks for any version of {}", dep.name)));
        }
    }
    Ok(broken)
}

impl Licenses {
    fn allowed_for(&self, name: &str) -> Result<Vec<spdx::Licensee>> {
        let exceptions = self.exceptions.iter().filter(|exception| exception.name == name);
        let texts = self
            .allow
            .iter()
            .chain(exceptions.flat_map(|exception| &exception.allow));
        texts.map(|text| licensee(text)).collect()
    }
}

/// The licence whose text a crate carries instead of naming it. Only the one that is met in practice is known.
fn license_of_file(text: &str) -> Option<String> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_mit = words
        .contains("Permission is hereby granted, free of charge, to any person obtaining a copy")
        && words.contains(
            "The above copyright notice and this permission notice shall be included in all copies",
        );
    is_mit.then(|| "MIT".to_owned())
}

fn licensee(text: &str) -> Result<spdx::Licensee> {
    spdx::Licensee::parse(text).with_context(|| format!("{FILE} allows `{text}`, which is no SPDX licence"))
}

fn check_license(expression: Option<&str>, allowed: &[spdx::Licensee]) -> Result<(), String> {
    let Some(expression) = expression else {
        return Err("states no licence".into());
    };
    // Old manifests write `MIT/Apache-2.0`.
    let parsed = spdx::Expression::parse_mode(expression, spdx::ParseMode::LAX)
        .map_err(|error| format!("its licence `{expression}` cannot be read: {}", error.reason))?;
    if parsed.evaluate(|requirement| allowed.iter().any(|licensee| licensee.satisfies(requirement))) {
        Ok(())
    } else {
        Err(format!("its licence `{expression}` is not allowed"))
    }
}

fn check_source(source: Option<&str>, member: bool) -> Result<(), String> {
    match source {
        // Cargo writes the default registry's name whatever mirror it was fetched from.
        Some(source) if source.starts_with("registry+") || source.starts_with("sparse+") => Ok(()),
        Some(source) => Err(format!("comes from {source}, not from the registry")),
        None if member => Ok(()),
        None => Err("comes from a path outside the workspace".into()),
    }
}

fn several_versions(packages: &[&Package]) -> usize {
    let mut versions = BTreeMap::new();
    for package in packages {
        *versions.entry(&package.name).or_insert(0) += 1;
    }
    versions.values().filter(|&&count| count > 1).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn license(expression: Option<&str>) -> Result<(), String> {
        let policy: Policy = toml::from_str(include_str!("../../deny.toml")).unwrap();
        let allowed: Vec<_> = policy
            .licenses
            .allow
            .iter()
            .map(|text| licensee(text).unwrap())
            .collect();
        check_license(expression, &allowed)
    }

    #[test]
    fn one_allowed_licence_of_a_choice_is_enough() {
        for expression in [
            "MIT",
            "GPL-3.0-only OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            license(Some(expression)).unwrap();
        }
        license(Some("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only")).unwrap();
    }

    #[test]
    fn a_licence_that_is_not_allowed_unreadable_or_absent_is_refused() {
        for expression in [
            Some("GPL-3.0-only"),
            Some("MIT AND GPL-2.0-only"),
            Some("do what you want"),
            None,
        ] {
            assert!(license(expression).is_err(), "{expression:?}");
        }
    }

    #[test]
    fn only_the_registry_and_the_workspace_are_sources() {
        check_source(Some("registry+https://registry.example/index"), false).unwrap();
        check_source(None, true).unwrap();
        assert!(check_source(Some("git+https://git.example/x"), false).is_err());
        assert!(check_source(None, false).is_err());
    }
}
