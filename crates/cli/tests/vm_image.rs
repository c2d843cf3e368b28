//! `cofferdam run IMAGE` in real VMs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod picture;

use std::fs;

use bundle::output_of;
use picture::{IMAGE, Picture, said};
use serde_json::json;

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn an_image_runs_in_a_vm_and_its_status_or_why_it_did_not_run_comes_back() {
    let picture = Picture::in_vm(json!({}));
    assert_eq!(
        output_of(&picture.run(&["--rm", IMAGE]), 0),
        "from the image\nby the image\n"
    );
    output_of(&picture.script(&[], "exit 3"), 3);
    output_of(&picture.run(&[IMAGE, "/srv/plain"]), 126);
    output_of(&picture.run(&[IMAGE, "/no/such/program"]), 127);
    let run = picture.script(&["-u", "nobody"], "true");
    output_of(&run, 125);
    assert!(
        said(&run).contains("unable to find user nobody: no matching entries in passwd file"),
        "{}",
        said(&run)
    );
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn variables_users_directories_and_host_names_are_those_of_the_host_side() {
    let picture = Picture::in_vm(json!({ "User": "web" }));
    let options = ["--name", "box", "-e", "A=option", "-w", "/made/here"];
    let script = "echo $FROM $A; pwd; id; echo $HOME; hostname; cat /etc/hostname; \
                  while read name value; do test $name = CapBnd: && echo $value; done < /proc/self/status; \
                  test -e /sys/fs/cgroup/cgroup.procs && test -d /dev/mqueue && test -w /dev/shm && echo all there";
    let groups = "uid=33(web) gid=34(www) groups=34(www),4(adm)";
    let expected =
        format!("image option\n/made/here\n{groups}\n/var/www\nbox\nbox\n00000000a80425fb\nall there\n");
    assert_eq!(output_of(&picture.script(&options, script), 0), expected);
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn volumes_reach_into_the_vm_and_the_rest_can_be_read_only() {
    let picture = Picture::in_vm(json!({ "Volumes": { "/srv/data": {} } }));
    fs::create_dir(picture.path("in")).unwrap();
    fs::write(picture.path("in/file"), "of the host\n").unwrap();
    let single = format!("{}:/single:ro", picture.path("in/file").display());
    let options = [
        "--read-only",
        "-v",
        "./in:/in:ro",
        "-v",
        &single,
        "-v",
        "./made:/out",
        "-v",
        "kept:/kept",
        "--tmpfs",
        "/fast",
    ];
    let script = "cat /in/file /single /srv/data/given; for f in /in/x /single /w /etc/w; do echo w > $f || echo $f refused; done; \
                  echo o > /out/o && echo k > /kept/k && echo f > /fast/f && echo d > /srv/data/d && echo written";
    let expected = "of the host\nof the host\nby the image\n/in/x refused\n/single refused\n/w refused\n/etc/w refused\nwritten\n";
    assert_eq!(output_of(&picture.script(&options, script), 0), expected);
    let read = |name: &str| fs::read_to_string(picture.path(name)).unwrap();
    assert_eq!(
        (read("made/o"), read("store/volumes/kept/k")),
        ("o\n".into(), "k\n".into())
    );
}
