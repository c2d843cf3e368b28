//! Whether a kernel configuration keeps what a fragment asks for.

use std::collections::BTreeMap;

/// A configuration or a fragment: option names with their values, `n` for what is off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Config(BTreeMap<String, String>);

/// An option that came out other than asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The option, with its `CONFIG_`.
    pub name: String,
    /// The value the fragment asks for.
    pub wanted: String,
    /// The value it has now; `n` also where the kernel does not know it.
    pub got: String,
}

impl Config {
    /// Reads `CONFIG_X=value` and `# CONFIG_X is not set`; other lines are comments.
    pub(crate) fn parse(text: &str) -> Self {
        let option = |line: &str| -> Option<(String, String)> {
            if let Some(off) = line.strip_prefix("# CONFIG_") {
                return Some((
                    format!("CONFIG_{}", off.strip_suffix(" is not set")?),
                    "n".to_owned(),
                ));
            }
            let (name, value) = line.split_once('=')?;
            name.starts_with("CONFIG_")
                .then(|| (name.to_owned(), value.to_owned()))
        };
        Config(text.lines().map(str::trim).filter_map(option).collect())
    }

    /// The options of `self` (a fragment) that `result` (a whole configuration) does not keep.
    pub(crate) fn lost_in(&self, result: &Config) -> Vec<Lost> {
        let got = |name: &String| result.0.get(name).cloned().unwrap_or_else(|| "n".to_owned());
        self.0
            .iter()
            .map(|(name, wanted)| Lost {
                name: name.clone(),
                wanted: wanted.clone(),
                got: got(name),
            })
            .filter(|lost| lost.wanted != lost.got)
            .collect()
    }

    /// The options alone, in one order: comments and their order in the file change nothing of a kernel.
    pub(crate) fn canonical(&self) -> String {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect()
    }

    /// How many options there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_keeps_everything_loses_nothing() {
        let fragment = Config::parse("# a comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=\"-uvm\"\n");
        let whole = Config::parse("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"-uvm\"\nCONFIG_D=64\n");
        assert_eq!(fragment.len(), 3);
        assert_eq!(fragment.lost_in(&whole), []);
    }

    #[test]
    fn an_option_dropped_selected_or_made_a_module_is_lost() {
        let fragment = Config::parse("CONFIG_DROPPED=y\nCONFIG_SELECTED=n\nCONFIG_MODULE=y\n");
        let whole = Config::parse("CONFIG_SELECTED=y\nCONFIG_MODULE=m\n");
        let lost: Vec<_> = fragment
            .lost_in(&whole)
            .into_iter()
            .map(|l| format!("{}: {} is {}", l.name, l.wanted, l.got))
            .collect();
        assert_eq!(
            lost,
            [
                "CONFIG_DROPPED: y is n",
                "CONFIG_MODULE: y is m",
                "CONFIG_SELECTED: n is y"
            ]
        );
    }

    #[test]
    fn comments_and_order_do_not_make_another_configuration() {
        let one = Config::parse("# why\nCONFIG_A=y\nCONFIG_B=n\n");
        let other = Config::parse("# CONFIG_B is not set\n\nCONFIG_A=y\n");
        assert_eq!(one.canonical(), other.canonical());
        assert_ne!(one.canonical(), Config::parse("CONFIG_A=y\n").canonical());
    }

    #[test]
    fn the_repositorys_fragment_asks_for_what_containers_need() {
        let fragment = Config::parse(include_str!("../../../kernel/uvm-kernel.fragment"));
        let need = "CONFIG_PVH CONFIG_SCSI_VIRTIO CONFIG_VIRTIO_PMEM CONFIG_FS_DAX CONFIG_DM_VERITY CONFIG_OVERLAY_FS \
                    CONFIG_9P_FS CONFIG_NET_9P_FD CONFIG_VIRTIO_VSOCKETS CONFIG_VIRTIO_NET CONFIG_NF_TABLES \
                    CONFIG_HW_RANDOM_VIRTIO CONFIG_SECCOMP_FILTER CONFIG_CFS_BANDWIDTH CONFIG_CPUSETS \
                    CONFIG_BLK_DEV_THROTTLING CONFIG_MEMCG CONFIG_CGROUP_PIDS";
        for name in need.split_whitespace() {
            assert_eq!(fragment.0.get(name).map(String::as_str), Some("y"), "{name}");
        }
        assert_eq!(
            fragment
                .0
                .get("CONFIG_OVERLAY_FS_REDIRECT_DIR")
                .map(String::as_str),
            Some("n")
        );
    }
}
