//! Capabilities: docker's usual ones, more or fewer.

use crate::SpecifyError;

/// What root has in a container, as docker gives it.
const USUAL: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All there are (capabilities(7)).
const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// The usual ones with `add` and without `drop`, each with or without `CAP_`, in any letter case. `ALL` is all; a name
/// that is both added and dropped is dropped, but for `ALL`, which the names beside it are exceptions from.
pub(crate) fn capabilities(add: &[String], drop: &[String]) -> Result<Vec<String>, SpecifyError> {
    let (add, drop) = (names(add)?, names(drop)?);
    let (add_all, drop_all) = (add.contains(&"ALL"), drop.contains(&"ALL"));
    let has = |name: &str| {
        let usual = add_all || (USUAL.contains(&name) && !drop_all);
        !drop.contains(&name) && (usual || add.contains(&name))
    };
    Ok(ALL
        .iter()
        .filter(|name| has(name))
        .map(|name| format!("CAP_{name}"))
        .collect())
}

fn names(texts: &[String]) -> Result<Vec<&'static str>, SpecifyError> {
    let known = |text: &String| {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok("ALL");
        }
        ALL.into_iter()
            .find(|known| *known == name)
            .ok_or_else(|| SpecifyError::Capability(text.clone()))
    };
    texts.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        capabilities(&owned(add), &owned(drop)).unwrap()
    }

    #[test]
    fn capabilities_are_added_and_dropped_by_any_spelling() {
        let usual = with(&[], &[]);
        assert_eq!(usual.len(), USUAL.len());
        assert!(with(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!with(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(with(&["CHOWN"], &["all"]), ["CAP_CHOWN"]);
        assert_eq!(with(&["ALL"], &["cap_sys_admin"]).len(), ALL.len() - 1);
        assert!(
            capabilities(&["FLY".to_owned()], &[])
                .unwrap_err()
                .to_string()
                .contains("`FLY`")
        );
    }
}
