//! What the project needs of the host, and which of it is missing.

use std::{collections::BTreeSet, path::Path};

use crate::tool;

/// What a package is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// The demo and the tests.
    Running,
    /// The same, for users other than root.
    RunningUnprivileged,
    /// Building the small kernel.
    Kernel,
}

/// How to see that a need is met, by whatever package or build.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign {
    /// A program on the search path.
    Program(&'static str),
    /// A file.
    File(&'static str),
}

impl Sign {
    /// Whether this host shows the sign.
    pub(crate) fn present(self) -> bool {
        match self {
            Sign::Program(name) => tool::find(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
        }
    }
}

/// One Debian package the project needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// Debian's name.
    pub package: &'static str,
    /// What shows that it, or something as good, is there.
    pub sign: Sign,
    /// What it is needed for.
    pub purpose: For,
    /// Taken from backports: bookworm's own is too old, and conflicts with backports' companions.
    pub backports: bool,
}

const fn need(package: &'static str, sign: Sign, purpose: For) -> Need {
    Need {
        package,
        sign,
        purpose,
        backports: false,
    }
}

/// Everything, in the order in which it is listed to a person.
pub(crate) const NEEDS: &[Need] = &[
    Need {
        package: "qemu-system-x86",
        sign: Sign::Program("qemu-system-x86_64"),
        purpose: For::Running,
        backports: true,
    },
    Need {
        package: "qemu-utils",
        sign: Sign::Program("qemu-storage-daemon"),
        purpose: For::Running,
        backports: true,
    },
    need("e2fsprogs", Sign::Program("mke2fs"), For::Running),
    need("erofs-utils", Sign::Program("mkfs.erofs"), For::Running),
    need("cryptsetup-bin", Sign::Program("veritysetup"), For::Running),
    need("acl", Sign::Program("setfacl"), For::Running),
    need("time", Sign::Program("time"), For::Running),
    need("zstd", Sign::Program("zstd"), For::Running),
    need("kmod", Sign::Program("depmod"), For::Running),
    need("xz-utils", Sign::Program("xz"), For::Running),
    need("mount", Sign::Program("losetup"), For::Running),
    need("runc", Sign::Program("runc"), For::Running),
    need("iproute2", Sign::Program("ip"), For::Running),
    need("busybox-static", Sign::Program("busybox"), For::Running),
    need("musl-tools", Sign::Program("musl-gcc"), For::Running),
    need("fakeroot", Sign::Program("fakeroot"), For::RunningUnprivileged),
    need("make", Sign::Program("make"), For::Kernel),
    need("gcc", Sign::Program("gcc"), For::Kernel),
    need("flex", Sign::Program("flex"), For::Kernel),
    need("bison", Sign::Program("bison"), For::Kernel),
    need("bc", Sign::Program("bc"), For::Kernel),
    need("libelf-dev", Sign::File("/usr/include/libelf.h"), For::Kernel),
    need(
        "libssl-dev",
        Sign::File("/usr/include/openssl/ssl.h"),
        For::Kernel,
    ),
];

/// The needs of some purposes that this host does not meet.
pub(crate) fn missing(purposes: &[For], present: impl Fn(Sign) -> bool) -> Vec<Need> {
    NEEDS
        .iter()
        .copied()
        .filter(|need| purposes.contains(&need.purpose) && !present(need.sign))
        .collect()
}

/// The packages to name when some are installed from backports. QEMU's packages conflict across its versions, so
/// every one of them that is on the host or wanted moves together.
pub(crate) fn from_backports(missing: &[Need], installed: &BTreeSet<String>) -> Vec<String> {
    if !missing.iter().any(|need| need.backports) {
        return Vec::new();
    }
    let wanted = missing
        .iter()
        .filter(|need| need.backports)
        .map(|need| need.package.to_owned());
    let companions = installed.iter().filter(|name| name.starts_with("qemu-")).cloned();
    wanted
        .chain(companions)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// The names of the installed packages among dpkg-query's lines `<package> <status>`.
pub(crate) fn installed(dpkg_lines: &str) -> BTreeSet<String> {
    dpkg_lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, status)| *status == "installed")
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(needs: &[Need]) -> Vec<&str> {
        needs.iter().map(|need| need.package).collect()
    }

    #[test]
    fn nothing_is_missing_where_every_sign_is_there() {
        assert!(missing(&[For::Running, For::Kernel], |_| true).is_empty());
    }

    #[test]
    fn only_the_needs_of_the_asked_purpose_are_missing() {
        let without_mke2fs = |sign| !matches!(sign, Sign::Program("mke2fs" | "flex"));
        assert_eq!(names(&missing(&[For::Running], without_mke2fs)), ["e2fsprogs"]);
        assert_eq!(
            names(&missing(&[For::Running, For::Kernel], without_mke2fs)),
            ["e2fsprogs", "flex"]
        );
    }

    #[test]
    fn a_library_is_found_by_its_header() {
        let without_headers = |sign| matches!(sign, Sign::Program(_));
        assert_eq!(
            names(&missing(&[For::Kernel], without_headers)),
            ["libelf-dev", "libssl-dev"]
        );
    }

    #[test]
    fn qemus_packages_move_to_backports_together() {
        let on_host = installed("qemu-utils installed\nqemu-block-extra installed\nbash installed\n");
        let without_qemu = missing(&[For::Running], |sign| {
            !matches!(sign, Sign::Program("qemu-system-x86_64"))
        });
        assert_eq!(
            from_backports(&without_qemu, &on_host),
            ["qemu-block-extra", "qemu-system-x86", "qemu-utils"]
        );
    }

    #[test]
    fn nothing_comes_from_backports_when_only_other_packages_are_missing() {
        let on_host = installed("qemu-utils installed\n");
        let without_mke2fs = missing(&[For::Running], |sign| !matches!(sign, Sign::Program("mke2fs")));
        assert!(from_backports(&without_mke2fs, &on_host).is_empty());
    }

    #[test]
    fn a_removed_package_with_its_configuration_left_is_not_installed() {
        let on_host = installed("qemu-utils config-files\nbash installed\nbroken\n");
        assert_eq!(on_host.into_iter().collect::<Vec<_>>(), ["bash"]);
    }
}
