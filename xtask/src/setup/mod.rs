//! `cargo xtask setup`: the Debian packages the project needs. What is there is left alone; when nothing is missing,
//! apt is not called at all.

mod apt_source;
mod needs;

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

pub(crate) use needs::For;

use crate::{
    debs,
    progress::{self, Step},
    tool::Tool,
};
use needs::Need;

const RELEASE: &str = "bookworm";
const BACKPORTS: &str = "bookworm-backports";
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/cofferdam-backports.sources";

/// Installs what is missing for the demo and the tests, and for building the kernel if `kernel`.
pub(crate) fn run(kernel: bool) -> Result<()> {
    let mut purposes = vec![For::Running];
    if !rustix::process::geteuid().is_root() {
        purposes.push(For::RunningUnprivileged);
    }
    if kernel {
        purposes.push(For::Kernel);
    }
    ensure(&purposes)
}

/// Installs what is missing for some purposes.
pub(crate) fn ensure(purposes: &[For]) -> Result<()> {
    let missing = needs::missing(purposes, needs::Sign::present);
    if missing.is_empty() {
        Step::start("Packages").done("all there");
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|need| need.package).collect();
    if !is_debian_12(&fs::read_to_string("/etc/os-release").unwrap_or_default()) {
        bail!(
            "this host lacks what Debian 12 packages as: {}\n\
             set-up installs packages on Debian 12 only: install these by your system's means (QEMU 8 or later), \
             then run the command again",
            names.join(", ")
        );
    }
    install(&missing).with_context(|| format!("could not install {}", names.join(", ")))?;
    let still = needs::missing(purposes, needs::Sign::present);
    if !still.is_empty() {
        let names: Vec<_> = still
            .iter()
            .map(|need| format!("{} ({:?})", need.package, need.sign))
            .collect();
        bail!("apt ended well, yet this is still missing: {}", names.join(", "));
    }
    Ok(())
}

fn install(missing: &[Need]) -> Result<()> {
    drop(Tool::as_root("apt-get")?); // refused here rather than half way
    let installed = needs::installed(
        &Tool::new("dpkg-query")
            .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
            .read()?,
    );
    let backports = needs::from_backports(missing, &installed);
    let stable: Vec<String> = missing
        .iter()
        .filter(|need| !need.backports)
        .map(|need| need.package.to_owned())
        .collect();
    let mut updated = false;
    if !backports.is_empty() && add_backports()? {
        debs::update_lists()?;
        updated = true;
    }
    let groups = [(stable, None), (backports, Some(BACKPORTS))];
    for (packages, suite) in groups.into_iter().filter(|(packages, _)| !packages.is_empty()) {
        if !updated && !debs::known(&packages)? {
            debs::update_lists()?;
            updated = true;
        }
        let first = apt_install(&packages, suite);
        if first.is_err() && !updated {
            // The lists may be older than the mirror: packages they name are gone from it.
            debs::update_lists()?;
            updated = true;
            apt_install(&packages, suite)?;
        } else {
            first?;
        }
    }
    Ok(())
}

fn apt_install(packages: &[String], suite: Option<&str>) -> Result<()> {
    let from = suite.map(|suite| format!(" from {suite}")).unwrap_or_default();
    let mut apt = Tool::as_root("apt-get")?.log("apt-install");
    let step = Step::start(format!("Installing packages{from}"));
    step.at(packages.join(" "));
    if let Some(suite) = suite {
        apt = apt.args(["-t", suite]);
    }
    apt.args([
        "install",
        "-y",
        "--no-install-recommends",
        "-q",
        "-o",
        "Dpkg::Use-Pty=0",
    ])
    .args(packages)
    .env("DEBIAN_FRONTEND", "noninteractive")
    .hint("look at the log; `apt-get install` with the packages it names shows the conflict by itself")
    .run_lines(|line| step.at(line))?;
    step.done(packages.join(" "));
    Ok(())
}

/// Makes the backports suite an apt source, beside the host's own source of the release. Returns whether the lists must
/// be brought up to date.
pub(crate) fn add_backports() -> Result<bool> {
    let sources = host_sources()?;
    if apt_source::has_suite(&sources, BACKPORTS) {
        return Ok(false);
    }
    let text = apt_source::beside(&sources, RELEASE, BACKPORTS).with_context(|| {
        format!(
            "no apt source of {RELEASE} with the component main was found, so the mirror to take {BACKPORTS} from is \
             not known; add a source of {BACKPORTS} to /etc/apt/sources.list.d yourself and run this again"
        )
    })?;
    let install = Tool::as_root("install")?;
    let step = Step::start(format!("Adding the apt source {BACKPORTS}"));
    let mut file = tempfile::NamedTempFile::new()?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    install
        .args(["-m", "644"])
        .arg(file.path())
        .arg(BACKPORTS_FILE)
        .run()?;
    step.done(BACKPORTS_FILE);
    Ok(true)
}

fn host_sources() -> Result<Vec<apt_source::Source>> {
    let mut sources = Vec::new();
    let main = Path::new("/etc/apt/sources.list");
    if main.exists() {
        sources.extend(apt_source::parse_one_line(&fs::read_to_string(main)?));
    }
    let parts = fs::read_dir("/etc/apt/sources.list.d").context("could not read /etc/apt/sources.list.d")?;
    for entry in parts {
        let path = entry?.path();
        let text = || {
            // A source that only root may read (it holds a password) is of no use here.
            fs::read_to_string(&path).unwrap_or_else(|error| {
                progress::warn(format!("left out {}: {error}", path.display()));
                String::new()
            })
        };
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(apt_source::parse_one_line(&text())),
            Some("sources") => sources.extend(apt_source::parse_deb822(&text())),
            _ => {}
        }
    }
    Ok(sources)
}

/// Whether the text of os-release(5) is Debian 12's.
fn is_debian_12(os_release: &str) -> bool {
    let value = |name: &str| {
        os_release
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.trim_matches('"')))
    };
    value("ID") == Some("debian") && value("VERSION_ID") == Some("12")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_12_is_told_from_its_neighbours() {
        assert!(is_debian_12(
            "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n"
        ));
        assert!(!is_debian_12("VERSION_ID=\"13\"\nID=debian\n"));
        assert!(!is_debian_12("VERSION_ID=\"12\"\nID=ubuntu\nID_LIKE=debian\n"));
        assert!(!is_debian_12(""));
    }
}
