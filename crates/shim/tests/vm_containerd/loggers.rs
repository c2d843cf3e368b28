//! Where `ctr run --log-uri` sends a container's output.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    ctr::{run, started},
    daemon::{Containerd, eventually},
};

/// Waits for the container's end and deletes it; its logger has ended then, too.
fn deleted(containerd: &Containerd) {
    eventually("it has stopped", || {
        let list = containerd.ctr(&["task", "ls"]).output().unwrap();
        containerd.succeeded(&list).contains("STOPPED")
    });
    // It tells a status that is not 0 by its own, as if it were an error.
    containerd.ctr(&["task", "delete", "c"]).output().unwrap();
    containerd.assert_nothing_left();
}

/// A container that runs a script, and whose output goes there.
fn detached(containerd: &Containerd, uri: &str, script: &str) {
    let options = ["-d", "--log-uri", uri];
    let output = run(containerd, &options, "c", &["sh", "-c", script])
        .output()
        .unwrap();
    containerd.succeeded(&output);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_program_takes_a_detached_containers_output_and_that_of_a_command_in_it() {
    let containerd = started();
    let logger = containerd.path("logger");
    let script = "#!/bin/sh\n\
        dir=$2; id=$CONTAINER_ID\n\
        echo \"$CONTAINER_NAMESPACE $3 $4\" > \"$dir/$id.whose\"\n\
        cat <&3 > \"$dir/$id.out\" 5>&- &\n\
        cat <&4 > \"$dir/$id.err\" 5>&- &\n\
        exec 5>&-\n\
        wait\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let dir = containerd.dir.path().display();
    let uri = format!("binary://{}?dir={dir}&more=a%20b", logger.display());
    let script = "while ! test -e /go; do sleep 0.1; done; echo out; echo err >&2; exit 3";
    detached(&containerd, &uri, script);
    let kept = |name: &str| fs::read_to_string(containerd.path(name)).unwrap();
    // Ready before the process started.
    assert_eq!(kept("c.whose"), "default more a b\n");
    let options = ["task", "exec", "--exec-id", "e", "--log-uri", &uri, "c"];
    let mut go = containerd.ctr(&options);
    go.args(["sh", "-c", "echo going; touch /go"]);
    containerd.succeeded(&go.output().unwrap());
    deleted(&containerd);
    assert_eq!((kept("c.out"), kept("c.err")), ("out\n".into(), "err\n".into()));
    assert_eq!(kept("e.out"), "going\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_file_takes_both_streams() {
    let containerd = started();
    let file = containerd.path("made for it/log");
    let uri = format!("file://{}", file.display().to_string().replace(' ', "%20"));
    let script = "echo out; sleep 0.2; echo err >&2";
    detached(&containerd, &uri, script);
    deleted(&containerd);
    assert_eq!(fs::read_to_string(&file).unwrap(), "out\nerr\n");
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_logger_that_is_missing_is_named_and_leaves_nothing() {
    let containerd = started();
    let uri = "binary:///no/such/logger";
    let output = run(&containerd, &["-d", "--log-uri", uri], "c", &["true"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("starting the logger /no/such/logger"), "{said}");
    deleted(&containerd);
}
