//! The agent's copies, as plain processes and as the host starts them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    path::Path,
    process::{Command, Output, Stdio},
};

use cofferdam_copy::Order;

use crate::agent::{Agent, command};

fn archive(root: &Path, order: &Order, input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cofferdam-agent"))
        .args(["archive", "--root"])
        .arg(root)
        .arg(serde_json::to_string(order).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What it does not want to read is no failure here.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn out(path: &str) -> Order {
    Order::Out {
        path: path.to_owned(),
        follow: false,
    }
}

fn into(path: &str, source: &str) -> Order {
    Order::In {
        path: path.to_owned(),
        source: Some(source.to_owned()),
        keep: false,
    }
}

#[test]
fn files_go_out_and_in_and_failures_are_one_line() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("from")).unwrap();
    fs::write(root.path().join("from/note"), "hello").unwrap();
    let sent = archive(root.path(), &out("/from"), b"");
    assert!(sent.status.success(), "{}", said(&sent));
    let taken = archive(root.path(), &into("/to", "from"), &sent.stdout);
    assert!(taken.status.success(), "{}", said(&taken));
    assert_eq!(fs::read(root.path().join("to/note")).unwrap(), b"hello");

    for (order, input, words) in [
        (out("/none"), &b""[..], "copying /none: No such file"),
        (
            into("/none/x", "from"),
            &sent.stdout,
            "the directory that holds /none/x",
        ),
        (into("/new", "other"), &sent.stdout, "not asked for"),
        (
            into("/new", "from"),
            &sent.stdout[..sent.stdout.len() - 1024 - 510],
            "cut off",
        ),
        (into("/new", "from"), &[7; 512], "not a tar header"),
        (into("/new", "from"), b"", "nothing came"),
    ] {
        let output = archive(root.path(), &order, input);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(words), "{order:?}: {}", said(&output));
        assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    }
}

#[test]
fn the_host_starts_one_like_any_process_and_it_goes_to_no_process_but_the_containers() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("note"), "hello").unwrap();
    let mut agent = Agent::ready();
    let order = serde_json::to_string(&out("/note")).unwrap();
    let words = [
        "/proc/self/exe",
        "archive",
        "--root",
        root.path().to_str().unwrap(),
        &order,
    ];
    let (pid, [stdin, stdout, _]) = agent.execute(command(&words), [true, true, false]);
    stdin.unwrap().shutdown(Shutdown::Write).unwrap();
    let mut stream = Vec::new();
    stdout.unwrap().read_to_end(&mut stream).unwrap();
    assert_eq!(agent.wait(pid), 0);
    assert!(stream.windows(5).any(|bytes| bytes == b"hello") && stream.len() % 512 == 0);

    let own = std::process::id().to_string();
    let words = ["/proc/self/exe", "archive", "web", &own, &order];
    let (pid, [_, _, stderr]) = agent.execute(command(&words), [false, false, true]);
    let mut text = String::new();
    stderr.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("process {own} is not one of container web\n"));
    assert_eq!(agent.wait(pid), 1);
}
