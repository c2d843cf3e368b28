//! Which kernel modules a guest loads, and in what order: the closure of what is wanted over `modules.dep` and
//! `modules.softdep`, as depmod(8) writes them. The guest has no modprobe: it loads the files in this order.

use std::collections::{BTreeMap, BTreeSet};

/// What depmod and the kernel package say about a kernel's modules.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// Module name to its file, relative to the modules directory, and the files it needs.
    modules: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
    /// Module name to what must be loaded before it (names or aliases).
    soft: BTreeMap<String, Vec<String>>,
    aliases: BTreeMap<String, Vec<String>>,
}

/// A wanted module that the kernel has neither as a module nor built in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown(pub(crate) String);

impl Catalogue {
    /// Reads the texts of `modules.dep`, `modules.builtin`, `modules.softdep` and `modules.alias`.
    pub(crate) fn parse(dep: &str, builtin: &str, softdep: &str, alias: &str) -> Self {
        let mut catalogue = Catalogue::default();
        for (file, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            catalogue.modules.insert(name_of(file), (file.to_owned(), needs));
        }
        catalogue.builtin = builtin.lines().map(name_of).collect();
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(module) = words.next() else { continue };
            let before = words
                .skip_while(|&word| word != "pre:")
                .skip(1)
                .take_while(|&word| word != "post:");
            catalogue
                .soft
                .entry(module.to_owned())
                .or_default()
                .extend(before.map(str::to_owned));
        }
        for line in alias.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if let ["alias", alias, module] = words[..] {
                catalogue
                    .aliases
                    .entry(alias.to_owned())
                    .or_default()
                    .push(module.to_owned());
            }
        }
        catalogue
    }

    /// The files to load for `wanted`, each after everything it needs. What is built in needs no file.
    pub(crate) fn closure(&self, wanted: &[&str]) -> Result<Vec<String>, Unknown> {
        let mut order = Vec::new();
        let mut visited = BTreeSet::new();
        for name in wanted {
            self.visit(&name.replace('-', "_"), &mut visited, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        visited: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) -> Result<(), Unknown> {
        let Some((file, needs)) = self.modules.get(name) else {
            return if self.builtin.contains(name) {
                Ok(())
            } else {
                Err(Unknown(name.to_owned()))
            };
        };
        // Marked before its needs: a circle ends here instead of running for ever.
        if !visited.insert(name.to_owned()) {
            return Ok(());
        }
        for soft in self.soft.get(name).into_iter().flatten() {
            if let Some(module) = self.provider(soft) {
                self.visit(module, visited, order)?;
            }
        }
        // depmod lists the needs with the deepest last.
        for need in needs.iter().rev() {
            self.visit(&name_of(need), visited, order)?;
        }
        order.push(file.clone());
        Ok(())
    }

    /// The module that stands for a soft dependency; none where it is built in or absent, which soft allows. Of several
    /// the portable one is taken: one made for certain CPUs refuses to load on others.
    fn provider<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.modules.contains_key(name) {
            return Some(name);
        }
        let candidates = self.aliases.get(name)?;
        let portable = candidates.iter().find(|module| module.ends_with("_generic"));
        portable
            .or(candidates.first())
            .map(String::as_str)
            .filter(|name| self.modules.contains_key(*name))
    }
}

/// A module's name from its file: `kernel/fs/9p/9p.ko.xz` is `9p`, `dm-verity.ko` is `dm_verity`.
pub(crate) fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/fs/mbcache.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/arch/x86/crypto/crc32c-intel.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-mod.ko.xz:
";
    const SOFTDEP: &str = "# soft dependencies\nsoftdep ext4 pre: crypto-crc32c post: nothing\n";
    const ALIAS: &str = "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n";

    fn names(wanted: &[&str]) -> Result<Vec<String>, Unknown> {
        let catalogue = Catalogue::parse(DEP, "kernel/drivers/virtio/virtio_pci.ko\n", SOFTDEP, ALIAS);
        Ok(catalogue
            .closure(wanted)?
            .iter()
            .map(|file| name_of(file))
            .collect())
    }

    fn before(order: &[String], first: &str, second: &str) -> bool {
        let at = |name| order.iter().position(|n| n == name).unwrap();
        at(first) < at(second)
    }

    #[test]
    fn everything_a_module_needs_comes_before_it() {
        let order = names(&["ext4", "dm_verity"]).unwrap();
        for need in ["crc16", "mbcache", "jbd2", "crc32c_generic"] {
            assert!(before(&order, need, "ext4"), "{need} in {order:?}");
        }
        assert!(
            before(&order, "dm_mod", "dm_bufio") && before(&order, "dm_bufio", "dm_verity"),
            "{order:?}"
        );
    }

    #[test]
    fn nothing_is_loaded_twice_and_nothing_unasked() {
        let order = names(&["dm-verity", "dm_mod", "dm-verity"]).unwrap();
        assert_eq!(order, ["dm_mod", "dm_bufio", "dm_verity"]);
    }

    #[test]
    fn a_soft_dependency_takes_the_portable_module() {
        let order = names(&["ext4"]).unwrap();
        assert!(!order.contains(&"crc32c_intel".to_owned()), "{order:?}");
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        assert_eq!(names(&["virtio_pci"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_module_the_kernel_lacks_is_named() {
        assert_eq!(names(&["ext4", "9p"]).unwrap_err(), Unknown("9p".into()));
    }

    #[test]
    fn a_circle_of_needs_ends() {
        let catalogue = Catalogue::parse("a.ko: b.ko\nb.ko: a.ko\n", "", "", "");
        assert_eq!(catalogue.closure(&["a"]).unwrap(), ["b.ko", "a.ko"]);
    }
}
