//! Debian packages as files: resolved and downloaded with apt, unpacked with dpkg-deb, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{progress::Step, setup, tool::Tool, workspace};

/// A package in one version, as apt would take it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Its name.
    pub name: String,
    /// Its version, as Debian writes it.
    pub version: String,
}

/// `apt-get update`.
pub(crate) fn update_lists() -> Result<()> {
    let apt = Tool::as_root("apt-get")?;
    let step = Step::start("Bringing apt's lists up to date");
    apt.args(["update", "-q"])
        .log("apt-update")
        .hint("check the network and the sources in /etc/apt")
        .run_lines(|line| step.at(line))?;
    step.done("");
    Ok(())
}

/// Whether apt's lists know every one of the packages.
pub(crate) fn known(packages: &[String]) -> Result<bool> {
    Ok(policy(packages)?.len() == packages.len())
}

/// The versions apt would take, bringing the lists up to date first if they do not know every package.
pub(crate) fn resolve(packages: &[&str]) -> Result<Vec<Candidate>> {
    let names: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
    if !known(&names)? {
        update_lists()?;
    }
    let found = policy(&names)?;
    match names
        .iter()
        .find(|&name| !found.iter().any(|candidate| candidate.name == *name))
    {
        None => Ok(found),
        Some(name) => {
            bail!("apt knows no package {name}; check the sources in /etc/apt (Debian 12 is expected)")
        }
    }
}

/// The newest kernel package of a series (`6.12`) in Debian's generic flavour, from whichever suite has it.
pub(crate) fn resolve_kernel(series: &str) -> Result<Candidate> {
    let prefix = format!("linux-image-{series}.");
    let newest = || -> Result<Option<String>> {
        let names = Tool::new("apt-cache").args(["pkgnames", &prefix]).read()?;
        Ok(newest_kernel(&names, series))
    };
    let name = match newest()? {
        Some(name) => name,
        None => {
            // Either the lists were never fetched, or only backports carries the series.
            update_lists()?;
            match newest()? {
                Some(name) => name,
                None => {
                    if setup::add_backports()? {
                        update_lists()?;
                    }
                    newest()?
                        .with_context(|| format!("no suite of the apt sources has a {prefix}* kernel"))?
                }
            }
        }
    };
    resolve(&[&name])?
        .pop()
        .context("invariant: one package asked, one answered")
}

fn newest_kernel(names: &str, series: &str) -> Option<String> {
    let patch_level = |name: &str| -> Option<u32> {
        let rest = name
            .strip_prefix("linux-image-")?
            .strip_prefix(series)?
            .strip_prefix('.')?;
        rest.strip_suffix("+deb12-amd64")?.parse().ok()
    };
    names
        .lines()
        .filter_map(|name| Some((patch_level(name)?, name)))
        .max()
        .map(|(_, name)| name.to_owned())
}

fn policy(packages: &[String]) -> Result<Vec<Candidate>> {
    Ok(parse_policy(
        &Tool::new("apt-cache").arg("policy").args(packages).read()?,
    ))
}

fn parse_policy(text: &str) -> Vec<Candidate> {
    let mut name = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) {
            name = Some(heading.to_owned());
        } else if let Some(version) = line.trim_start().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            found.extend(name.take().map(|name| Candidate {
                name,
                version: version.to_owned(),
            }));
        }
    }
    found
}

/// Downloads packages into a directory and returns the files, in the order asked.
pub(crate) fn download(candidates: &[Candidate], dir: &Path) -> Result<Vec<PathBuf>> {
    workspace::create_dir(dir)?;
    let fetch = || {
        let mut apt = Tool::new("apt-get")
            .args(["download", "-q"])
            .in_dir(dir)
            .log("apt-download");
        if rustix::process::geteuid().is_root() {
            // apt's own user may not be able to write here.
            apt = apt.args(["-o", "APT::Sandbox::User=root"]);
        }
        apt.args(candidates.iter().map(|c| format!("{}={}", c.name, c.version)))
            .hint("`apt-get update`, then try again; check that the mirror of /etc/apt is reachable")
            .run()
    };
    if fetch().is_err() {
        // Lists older than the mirror name files that it no longer has.
        update_lists()?;
        fetch()?;
    }
    candidates
        .iter()
        .map(|candidate| downloaded(candidate, dir))
        .collect()
}

fn downloaded(candidate: &Candidate, dir: &Path) -> Result<PathBuf> {
    let prefix = format!("{}_", candidate.name);
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".deb") {
            return Ok(dir.join(name));
        }
    }
    bail!(
        "apt downloaded no file for {} {}",
        candidate.name,
        candidate.version
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_highest_patch_level_of_the_generic_flavour() {
        let names = "linux-image-6.12.95+deb12-amd64\nlinux-image-6.12.117+deb12-amd64\n\
                     linux-image-6.12.120+deb12-rt-amd64\nlinux-image-6.12.121+deb12-cloud-amd64\n\
                     linux-image-6.12.122+deb12-amd64-dbg\nlinux-image-6.1.200+deb12-amd64\n";
        assert_eq!(
            newest_kernel(names, "6.12").as_deref(),
            Some("linux-image-6.12.117+deb12-amd64")
        );
        assert_eq!(newest_kernel("", "6.12"), None);
    }

    #[test]
    fn candidates_are_read_from_apts_policy() {
        let text = "bash:\n  Installed: 5.2-1\n  Candidate: 5.2-2\n  Version table:\n     5.2-2 500\n\
                    gone:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n\
                    qemu-utils:\n  Installed: (none)\n  Candidate: 1:10.0.2+ds-2~bpo12+1\n";
        let found = parse_policy(text);
        let shown: Vec<_> = found
            .iter()
            .map(|c| format!("{}={}", c.name, c.version))
            .collect();
        assert_eq!(shown, ["bash=5.2-2", "qemu-utils=1:10.0.2+ds-2~bpo12+1"]);
    }
}
