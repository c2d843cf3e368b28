//! `cofferdam run --no-vm IMAGE`: what docker's options do, and what is left afterwards.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bundle;
mod picture;

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
};

use bundle::output_of;
use picture::{IMAGE, Picture, said};
use serde_json::json;

#[test]
fn an_image_runs_its_command_or_the_users_and_the_status_comes_back() {
    let picture = Picture::on_host(json!({}));
    assert_eq!(
        output_of(&picture.run(&["--rm", IMAGE]), 0),
        "from the image\nby the image\n"
    );
    // What follows the image is the command's, options too.
    let run = picture.run(&[IMAGE, "/bin/sh", "-c", "echo $0 $*; exit 3", "--rm", "-t", "x"]);
    assert_eq!(output_of(&run, 3), "--rm -t x\n");
    let run = picture.run(&["--entrypoint", "/bin/cat", IMAGE, "/srv/plain"]);
    assert_eq!(output_of(&run, 0), "no program\n");
}

#[test]
fn an_entrypoint_gets_the_command_and_an_empty_one_is_none() {
    let picture =
        Picture::on_host(json!({ "Entrypoint": ["/bin/sh", "-c", "echo entry $0 $*"], "Cmd": ["a", "b"] }));
    assert_eq!(output_of(&picture.run(&[IMAGE]), 0), "entry a b\n");
    assert_eq!(output_of(&picture.run(&[IMAGE, "c"]), 0), "entry c\n");
    let run = picture.run(&["--entrypoint", "", IMAGE, "/bin/cat", "/srv/plain"]);
    assert_eq!(output_of(&run, 0), "no program\n");
    let run = picture.run(&["--entrypoint", "", IMAGE]);
    output_of(&run, 125);
    assert!(said(&run).contains("no command specified"), "{}", said(&run));
}

#[test]
fn variables_directories_users_and_host_names() {
    let picture = Picture::on_host(json!({ "User": "web" }));
    let script = "echo $FROM $A $B; pwd; id; echo $HOME; hostname; cat /etc/hostname";
    fs::write(picture.path("vars"), "# ours\nA=file\nB=file\n").unwrap();
    let options = ["--name", "box", "--env-file", "vars", "-e", "A=option"];
    let groups = "uid=33(web) gid=34(www) groups=34(www),4(adm)";
    let expected = format!("image option file\n/srv\n{groups}\n/var/www\nbox\nbox\n");
    assert_eq!(output_of(&picture.script(&options, script), 0), expected);

    let options = [
        "-u",
        "7:adm",
        "-w",
        "/made/here",
        "--hostname",
        "other",
        "-e",
        "FROM",
    ];
    let run = picture.script(&options, "echo [$FROM]; pwd; id -u; id -G; echo $HOME; hostname");
    assert_eq!(output_of(&run, 0), "[]\n/made/here\n7\n4\n/\nother\n");

    let run = picture.script(&["-u", "nobody"], "true");
    output_of(&run, 125);
    assert!(
        said(&run).contains("unable to find user nobody: no matching entries in passwd file"),
        "{}",
        said(&run)
    );
}

#[test]
fn volumes_of_the_host_of_the_store_and_of_memory() {
    let picture = Picture::on_host(json!({}));
    fs::create_dir(picture.path("in")).unwrap();
    fs::write(picture.path("in/file"), "of the host\n").unwrap();
    let single = format!("{}:/single:ro", picture.path("in/file").display());
    let options = [
        "-v",
        "./in:/in:ro",
        "-v",
        &single,
        "-v",
        "./made:/out",
        "-v",
        "kept:/kept",
        "--mount",
        "type=bind,src=in,dst=/rw",
        "--tmpfs",
        "/fast:size=1m",
    ];
    let script = "cat /in/file /single; echo w > /in/x || echo w > /single || echo refused; \
                  echo o > /out/o && echo k > /kept/k && echo r > /rw/r && echo f > /fast/f";
    assert_eq!(
        output_of(&picture.script(&options, script), 0),
        "of the host\nof the host\nrefused\n"
    );
    let read = |name: &str| fs::read_to_string(picture.path(name)).unwrap();
    assert_eq!(
        (read("made/o"), read("in/r"), read("store/volumes/kept/k")),
        ("o\n".into(), "r\n".into(), "k\n".into())
    );
    assert!(!picture.path("in/x").exists());
    // It outlives the container.
    assert_eq!(
        output_of(&picture.script(&["-v", "kept:/data"], "cat /data/k"), 0),
        "k\n"
    );

    let run = picture.script(&["--mount", "type=bind,src=/nowhere/at/all,dst=/x"], "true");
    output_of(&run, 125);
    assert!(
        said(&run).contains("the source /nowhere/at/all of a --mount"),
        "{}",
        said(&run)
    );
    let run = picture.script(&["-v", "/a:relative"], "true");
    output_of(&run, 2);
    assert!(said(&run).contains("absolute path"), "{}", said(&run));
}

#[test]
fn a_read_only_container_writes_to_its_volumes_only() {
    let picture = Picture::on_host(json!({ "Volumes": { "/srv/data": {}, "/new": {} } }));
    let script = "cat /srv/data/given; echo w > /srv/data/w && echo w > /new/w && echo n > /anon/n && echo volumes; \
                  echo w > /w || echo refused";
    let run = picture.script(&["--read-only", "-v", "/anon"], script);
    assert_eq!(output_of(&run, 0), "by the image\nvolumes\nrefused\n");
    let run = picture.script(
        &[],
        "echo w > /srv/data/w && echo w > /new/w && echo w > /w && echo all",
    );
    assert_eq!(output_of(&run, 0), "all\n");
}

#[test]
fn standard_input_is_read_only_if_it_is_asked_for() {
    let picture = Picture::on_host(json!({}));
    for (options, read) in [(&[][..], ""), (&["-i"][..], "typed\n")] {
        let mut command = picture.command();
        command.args(options).args([IMAGE, "/bin/cat"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever reads nothing may be gone.
        let _ = child.stdin.take().unwrap().write_all(b"typed\n");
        assert_eq!(output_of(&child.wait_with_output().unwrap(), 0), read);
    }
}

#[test]
fn capabilities_are_those_of_docker_with_more_or_fewer() {
    let picture = Picture::on_host(json!({}));
    let effective =
        "while read name value; do test $name = CapEff: && echo $value; done < /proc/self/status; exit 0";
    assert_eq!(
        output_of(&picture.script(&[], effective), 0),
        "00000000a80425fb\n"
    );
    let run = picture.script(&["--cap-drop", "ALL", "--cap-add", "chown"], effective);
    assert_eq!(output_of(&run, 0), "0000000000000001\n");
    let run = picture.script(&["--cap-add", "fly"], "true");
    output_of(&run, 125);
    assert!(said(&run).contains("invalid capability: `fly`"), "{}", said(&run));
}

#[test]
fn an_image_that_is_not_there_is_refused_with_what_to_do() {
    let picture = Picture::on_host(json!({}));
    let run = picture.run(&["nowhere"]);
    output_of(&run, 125);
    assert!(said(&run).contains("cofferdam image import"), "{}", said(&run));
    let run = picture.run(&["--pull", "never", "registry.example/app"]);
    output_of(&run, 125);
    assert!(
        said(&run).contains("no image `registry.example/app` in the store"),
        "{}",
        said(&run)
    );
    let run = picture.run(&[]);
    output_of(&run, 2);
    assert!(said(&run).contains("name an IMAGE"), "{}", said(&run));
}

#[test]
fn what_a_killed_command_left_is_found_and_removed() {
    let picture = Picture::on_host(json!({}));
    let mut command = picture.command();
    command.args(["--name", "web", IMAGE, "/bin/sh", "-c", "echo ready; sleep 600"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let bundle = picture.store().join("containers/cofferdam-web");
    assert!(bundle.join("sandbox.vhdx").exists());
    let repaired = picture.repair();
    let text = output_of(&repaired, 0);
    assert!(text.contains(bundle.to_str().unwrap()), "{text}");
    assert_eq!(picture.left(), Vec::<String>::new());
}

#[test]
fn a_plan_shows_what_an_image_would_take_and_makes_nothing() {
    let picture = Picture::on_host(json!({ "Volumes": { "/log": {} } }));
    let plan = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .args(["plan", "--format", "json", "--store"])
            .arg(picture.store());
        command
            .current_dir(picture.path(""))
            .args(words)
            .output()
            .unwrap()
    };
    let shown = output_of(
        &plan(&["-v", "./made:/m", "-v", "kept:/k:ro", "--image", IMAGE]),
        0,
    );
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let resources = &shown["resources"];
    assert_eq!(resources["layers"].as_array().unwrap().len(), 2);
    assert_eq!(resources["scratch"]["guestPath"], "/run/gcs/c/1/scratch");
    let shares = resources["shares"].as_array().unwrap();
    let ends = ["hostname", "hosts", "made", "kept"];
    for (share, end) in shares.iter().zip(ends) {
        let path = share["hostPath"].as_str().unwrap();
        let name = share["allowedNames"][0].as_str();
        assert!(name == Some(end) || path.ends_with(end), "{share}");
    }
    assert_eq!(shares.len(), ends.len());
    assert!(!picture.path("made").exists() && !picture.store().join("volumes").exists());
    assert_eq!(picture.left(), Vec::<String>::new());

    let refused = plan(&[
        "--mount",
        "type=bind,src=/nowhere/at/all,dst=/x",
        "--image",
        IMAGE,
    ]);
    assert!(output_of(&refused, 1).contains("/nowhere/at/all"));
    output_of(&plan(&["--image", "registry.example/app"]), 1);
    output_of(&plan(&["-e", "A=1", "--bundle", "."]), 2);
}

#[test]
fn a_network_is_the_vms_and_refused_without_one() {
    let picture = Picture::on_host(json!({}));
    for (options, reason) in [
        (
            ["-p", "8080:80"].as_slice(),
            "--publish is for containers in a utility VM",
        ),
        (&["--dns", "192.0.2.1"], "--dns is for containers in a utility VM"),
        (
            &["--network", "user"],
            "--network is for containers in a utility VM",
        ),
        (
            &["--network", "none", "-p", "8080:80"],
            "--publish needs a network",
        ),
        (
            &["-p", "80"],
            "which port of this host leads there? As in `8080:80`",
        ),
    ] {
        let run = picture.run(&[options, &[IMAGE]].concat());
        output_of(&run, 2);
        assert!(said(&run).contains(reason), "{options:?}: {}", said(&run));
    }
    output_of(&picture.run(&["--network", "none", IMAGE]), 0);
}
