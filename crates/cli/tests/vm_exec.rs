//! As whom, where and with what a further process runs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod owned;

use std::process::{Child, Output};

use bundle::{Bundle, output_of};
use owned::{ID, cofferdam, running, said};

struct Running {
    bundle: Bundle,
    child: Child,
}

impl Running {
    /// A container whose own files of users and groups are mounts.
    fn new() -> Self {
        let bundle = Bundle::with_layers("mkdir -p /srv/app; echo ready; exec sleep 600");
        let users = bundle.directory(
            "users",
            &[
                (
                    "passwd",
                    "root:x:0:0::/root:/bin/sh\nweb:x:1033:1034::/srv/app:/bin/sh\n",
                ),
                ("group", "root:x:0:\nadm:x:4:web\nwww:x:1034:\n"),
            ],
        );
        let bundle = bundle
            .mount("bind", users.join("passwd"), "/etc/passwd", &["rbind"])
            .mount("bind", users.join("group"), "/etc/group", &["rbind"]);
        let child = running(&bundle);
        Self { bundle, child }
    }

    fn exec(&self, options: &[&str], command: &[&str]) -> Output {
        cofferdam(&self.bundle, &["exec"])
            .env("FROM_THE_CALLER", "here")
            .args(options)
            .arg(ID)
            .args(command)
            .output()
            .unwrap()
    }

    fn shell(&self, options: &[&str], script: &str) -> String {
        output_of(&self.exec(options, &["bash", "-c", script]), 0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The VM goes with its owner.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const WHO: &str = "while read -r name rest; do case $name in Uid:|Gid:|Groups:) echo $name $rest;; esac; done \
                   </proc/self/status; echo $HOME";

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn users_are_whom_the_containers_own_files_say_they_are() {
    let running = Running::new();
    for (user, uid, gid, groups, home) in [
        ("web", 1033, 1034, "4 1034", "/srv/app"),
        ("1033", 1033, 1034, "4 1034", "/srv/app"),
        ("web:adm", 1033, 4, "4", "/srv/app"),
        ("7:8", 7, 8, "8", "/"),
    ] {
        let ids = |id: i32| format!("{id} {id} {id} {id}");
        let expected = format!("Uid: {}\nGid: {}\nGroups: {groups}\n{home}\n", ids(uid), ids(gid));
        assert_eq!(running.shell(&["--user", user], WHO), expected, "{user}");
    }
    for (user, words) in [
        (
            "nobody",
            "unable to find user nobody: no matching entries in passwd file",
        ),
        (
            "web:nobody",
            "unable to find group nobody: no matching entries in group file",
        ),
    ] {
        let refused = running.exec(&["-u", user], &["true"]);
        assert_eq!(refused.status.code(), Some(126), "{}", said(&refused));
        assert!(said(&refused).contains(words), "{}", said(&refused));
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn what_is_not_said_is_the_containers_own() {
    let running = Running::new();
    let own = running.shell(&[], "echo $LC_ALL $HOME; pwd");
    assert_eq!(own, "C /root\n/\n");
    let options = [
        "-e",
        "LC_ALL=de",
        "-e",
        "A=b=c",
        "-e",
        "FROM_THE_CALLER",
        "-e",
        "PATH_IS_UNSET",
        "-w",
        "/srv/app",
    ];
    let told = running.shell(
        &options,
        "echo $LC_ALL $A $FROM_THE_CALLER; pwd; echo ${PATH_IS_UNSET-unset}",
    );
    assert_eq!(told, "de b=c here\n/srv/app\nunset\n");
    let relative = running.exec(&["-w", "srv"], &["true"]);
    assert!(
        said(&relative).contains("--workdir srv: it is an absolute path"),
        "{}",
        said(&relative)
    );
    let missing = running.exec(&["-w", "/no/such"], &["true"]);
    assert_eq!(missing.status.code(), Some(126), "{}", said(&missing));
    assert!(said(&missing).contains("/no/such"), "{}", said(&missing));
}
