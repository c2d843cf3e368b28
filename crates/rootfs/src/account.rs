//! Who a user is, from the text of passwd(5) and group(5).

use std::collections::BTreeSet;

/// The largest user or group number, as docker has it.
const MAX_NUMBER: u32 = i32::MAX as u32;
/// Most supplementary groups of a process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// As whom a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups: the group itself first, then those the user is a member of, unless a group was named.
    pub groups: Vec<u32>,
    /// The home directory of the passwd file; `/` for a user that is not in it.
    pub home: String,
}

/// Why a user is nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A name that passwd does not have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A name that group does not have.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A number out of range.
    #[error("user or group {0}: numbers are from 0 to {MAX_NUMBER}")]
    Range(String),
}

/// Finds `wanted`, of the form `user[:group]` (OCI image specification, "User"): each is a name or a number. A number
/// is always a number, never the name of somebody.
///
/// # Errors
/// A name is not in its file; a number is out of range.
pub fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Account, AccountError> {
    let (user, wanted_group) = wanted.split_once(':').unwrap_or((wanted, ""));
    // Nobody named is root.
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let found = entries(passwd, 7).find(|entry| match number {
        Some(number) => entry.number(2) == Some(number),
        None => entry.name() == user,
    });
    let name = found.as_ref().map(Entry::name);
    let mut account = match (&found, number) {
        (Some(entry), _) => Account {
            uid: entry.number(2).unwrap_or_default(),
            gid: entry.number(3).unwrap_or_default(),
            groups: Vec::new(),
            home: entry
                .field(5)
                .filter(|home| !home.is_empty())
                .unwrap_or("/")
                .to_owned(),
        },
        (None, Some(uid)) => Account {
            uid,
            gid: 0,
            groups: Vec::new(),
            home: "/".to_owned(),
        },
        (None, None) => return Err(AccountError::NoUser(user.to_owned())),
    };
    if !wanted_group.is_empty() {
        account.gid = group_number(wanted_group, group)?;
    }
    account.groups.push(account.gid);
    if let (Some(name), true) = (name, wanted_group.is_empty()) {
        let mut seen = BTreeSet::from([account.gid]);
        let member_of = entries(group, 4)
            .filter(|entry| {
                entry
                    .field(3)
                    .is_some_and(|members| members.split(',').any(|member| member == name))
            })
            .filter_map(|entry| entry.number(2))
            .filter(|gid| seen.insert(*gid));
        account.groups.extend(member_of.take(MAX_GROUPS - 1));
    }
    Ok(account)
}

fn group_number(wanted: &str, group: &str) -> Result<u32, AccountError> {
    if let Some(number) = number(wanted)? {
        return Ok(number);
    }
    entries(group, 4)
        .find(|entry| entry.name() == wanted)
        .and_then(|entry| entry.number(2))
        .ok_or_else(|| AccountError::NoGroup(wanted.to_owned()))
}

/// The number a text is, if it is one.
fn number(text: &str) -> Result<Option<u32>, AccountError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) if number <= MAX_NUMBER => Ok(Some(number)),
        _ => Err(AccountError::Range(text.to_owned())),
    }
}

/// A line of either file.
struct Entry<'a>(Vec<&'a str>);

impl<'a> Entry<'a> {
    fn field(&self, index: usize) -> Option<&'a str> {
        self.0.get(index).copied()
    }

    fn name(&self) -> &'a str {
        self.field(0).unwrap_or_default()
    }

    fn number(&self, index: usize) -> Option<u32> {
        self.field(index)
            .and_then(|text| text.parse().ok())
            .filter(|number| *number <= MAX_NUMBER)
    }
}

/// The lines that are entries. One whose numbers are none is nobody: as 0 it would be root.
fn entries(text: &str, fields: usize) -> impl Iterator<Item = Entry<'_>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(move |line| Entry(line.splitn(fields, ':').collect()))
        .filter(move |entry| entry.number(2).is_some() && (fields < 7 || entry.number(3).is_some()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "# users\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web, the:/var/www:/bin/false\n\
                          twin:x:33:99::/twin:\n1000:x:7:7::/seven:/bin/sh\nbroken:x:none:1:::\nshort:x:50:51\n";
    const GROUP: &str =
        "root:x:0:\nwww:x:34:\nadm:x:4:syslog,web\ndisk:x:6:root,web\nadm2:x:4:web\nbad:x:x:web\n";

    fn found(wanted: &str) -> (u32, u32, Vec<u32>, String) {
        let account = resolve(wanted, PASSWD, GROUP).unwrap();
        (account.uid, account.gid, account.groups, account.home)
    }

    #[test]
    fn every_form_of_a_user_is_who_docker_says_it_is() {
        for (wanted, uid, gid, groups, home) in [
            ("", 0, 0, vec![0, 6], "/root"),
            ("0", 0, 0, vec![0, 6], "/root"),
            ("root", 0, 0, vec![0, 6], "/root"),
            ("web", 33, 34, vec![34, 4, 6], "/var/www"),
            // The first entry of a number wins.
            ("33", 33, 34, vec![34, 4, 6], "/var/www"),
            ("web:adm", 33, 4, vec![4], "/var/www"),
            ("web:77", 33, 77, vec![77], "/var/www"),
            ("33:www", 33, 34, vec![34], "/var/www"),
            ("5:6", 5, 6, vec![6], "/"),
            (":adm", 0, 4, vec![4], "/root"),
            // A number is a number, though there is a user of that name.
            ("1000", 1000, 0, vec![0], "/"),
            ("2147483647", 2_147_483_647, 0, vec![0], "/"),
            ("short", 50, 51, vec![51], "/"),
            ("web:", 33, 34, vec![34, 4, 6], "/var/www"),
        ] {
            assert_eq!(found(wanted), (uid, gid, groups, home.to_owned()), "{wanted:?}");
        }
    }

    #[test]
    fn who_is_not_there_is_named_as_docker_names_it() {
        for (wanted, message) in [
            (
                "nobody",
                "unable to find user nobody: no matching entries in passwd file",
            ),
            (
                "broken",
                "unable to find user broken: no matching entries in passwd file",
            ),
            (
                "web:nobody",
                "unable to find group nobody: no matching entries in group file",
            ),
            (
                "web:bad",
                "unable to find group bad: no matching entries in group file",
            ),
            (
                "2147483648",
                "user or group 2147483648: numbers are from 0 to 2147483647",
            ),
            (
                "1:99999999999999999999",
                "user or group 99999999999999999999: numbers are from 0 to 2147483647",
            ),
            ("-1", "user or group -1: numbers are from 0 to 2147483647"),
        ] {
            assert_eq!(resolve(wanted, PASSWD, GROUP).unwrap_err().to_string(), message);
        }
        assert_eq!(resolve("7:8", "", "").unwrap().groups, [8]);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_named_user_root_by_accident(passwd in "([a-z]{0,3}[:x0-9-]{0,9}\n?){0,20}", group in "[a-z:,0-9\n]{0,80}") {
            if let Ok(account) = resolve("abc", &passwd, &group) {
                let line = passwd.lines().map(str::trim).find(|line| line.starts_with("abc:")).unwrap();
                let is_root = line.split(':').nth(2).is_some_and(|uid| uid.parse() == Ok(0_u32));
                prop_assert!(account.uid != 0 || is_root || passwd.matches("abc:").count() > 1);
            }
        }

        #[test]
        fn two_numbers_are_themselves_whatever_the_files_say(uid in 0..=MAX_NUMBER, gid in 0..=MAX_NUMBER, text in "\\PC{0,60}") {
            let account = resolve(&format!("{uid}:{gid}"), &text, &text).unwrap();
            prop_assert_eq!((account.uid, account.gid, account.groups), (uid, gid, vec![gid]));
        }
    }
}
