//! Loggers: programs that take a process's output.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use cofferdam_backend::fake::FakeProgram;
use cofferdam_pod::{Endpoints, ProcessName, Status};
use serde_json::json;

use crate::scene::{SOON, Scene};

/// Writes whose output it is, and each stream, into the directory that is its argument.
const KEEPS: &str = r#"
echo "$CONTAINER_ID of $CONTAINER_NAMESPACE: $*" > "$1/whose"
cat <&3 >"$1/out" 5>&- &
cat <&4 >"$1/err" 5>&- &
exec 5>&-
wait
"#;

/// Endpoints with a logger of this script, whose first argument is the scene's directory. The program is a shell: one that was
/// just written cannot be run while another test's child still has it open.
fn endpoints(scene: &Scene, script: &str) -> Endpoints {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("-c", script);
    query.append_pair("logger", scene.dir.path().to_str().unwrap());
    let uri = format!("binary:///bin/s%68?{}", query.finish());
    Endpoints {
        stdout: Some(uri.clone()),
        stderr: Some(uri),
        ..Endpoints::default()
    }
}

fn kept(scene: &Scene, name: &str) -> String {
    fs::read_to_string(scene.path(name)).unwrap()
}

/// Starts a container with this logger, which fails; the container has not run, and can be deleted.
async fn refused(script: &str) -> String {
    let scene = Scene::new().await;
    scene.program("c", FakeProgram::exits(0));
    scene.create_with("c", endpoints(&scene, script)).await.unwrap();
    let name = ProcessName::init("c");
    let error = scene.pod.start(&name).await.unwrap_err();
    assert!(matches!(scene.status(&name), Status::Stopped(exit) if exit.status == 127));
    scene.pod.delete(&name).await.unwrap();
    scene.assert_nothing_left();
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logger_gets_every_byte_of_both_streams_and_is_told_whose_they_are() {
    let scene = Scene::new().await;
    let sent: String = (0..300_000).map(|n| format!("{n}\n")).collect();
    scene.program(
        "c",
        FakeProgram::exits(3).stdout(sent.clone()).stderr("and errors\n"),
    );
    scene.create_with("c", endpoints(&scene, KEEPS)).await.unwrap();
    let name = ProcessName::init("c");
    scene.pod.start(&name).await.unwrap();
    assert_eq!(scene.exit(&name).await, 3);
    scene.pod.delete(&name).await.unwrap();
    // Deleted only once the logger has ended, so that nothing is under way any more.
    assert!(kept(&scene, "out") == sent);
    assert_eq!(kept(&scene, "err"), "and errors\n");
    let dir = scene.dir.path().display();
    assert_eq!(kept(&scene, "whose"), format!("c of tests: {dir}\n"));
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_process_has_a_logger_of_its_own() {
    let scene = Scene::new().await;
    let init = scene.running("c").await;
    scene.command("ls", FakeProgram::exits(0).stdout("listed\n"));
    let exec = ProcessName::exec("c", "e");
    scene
        .pod
        .exec(
            &exec,
            json!({ "args": ["ls"], "cwd": "/" }),
            endpoints(&scene, KEEPS),
        )
        .unwrap();
    scene.pod.start(&exec).await.unwrap();
    assert_eq!(scene.exit(&exec).await, 0);
    scene.pod.delete(&exec).await.unwrap();
    assert_eq!(kept(&scene, "out"), "listed\n");
    assert!(kept(&scene, "whose").starts_with("e of tests: "));
    scene.pod.kill(&init, 9, false).await.unwrap();
    scene.exit(&init).await;
    scene.pod.delete(&init).await.unwrap();
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_terminal_there_is_one_stream() {
    let scene = Scene::new().await;
    scene.program("c", FakeProgram::exits(0).stdout("shown\n"));
    let endpoints = Endpoints {
        terminal: true,
        ..endpoints(&scene, KEEPS)
    };
    scene.create_with("c", endpoints).await.unwrap();
    let name = ProcessName::init("c");
    scene.pod.start(&name).await.unwrap();
    assert_eq!(scene.exit(&name).await, 0);
    scene.pod.delete(&name).await.unwrap();
    assert_eq!(
        (kept(&scene, "out"), kept(&scene, "err")),
        ("shown\n".into(), String::new())
    );
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logger_that_does_not_become_ready_is_named_and_nothing_has_run() {
    assert_eq!(
        refused("exit 3").await,
        "the logger /bin/sh ended before it was ready: exit status: 3"
    );
    let begun = Instant::now();
    assert_eq!(
        refused("exec sleep 600").await,
        "the logger /bin/sh was not ready within 10 s"
    );
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_logger_that_cannot_be_run_is_named() {
    for (uri, expected) in [
        (
            "binary:///no/such/logger?k=v",
            "starting the logger /no/such/logger: No such file",
        ),
        (
            "binary:///etc/passwd",
            "starting the logger /etc/passwd: Permission denied",
        ),
        ("binary:///a%00b", "starting the logger /a\0b: "),
        ("binary://logger", "stdout at binary://logger: "),
    ] {
        let scene = Scene::new().await;
        let endpoints = Endpoints {
            stdout: Some(uri.to_owned()),
            ..Endpoints::default()
        };
        scene.create_with("c", endpoints).await.unwrap();
        let name = ProcessName::init("c");
        let error = scene.pod.start(&name).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
        scene.pod.delete(&name).await.unwrap();
        scene.assert_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_goes_on_when_its_logger_has_gone() {
    let scene = Scene::new().await;
    let output = vec![b'x'; 4 << 20];
    scene.program("c", FakeProgram::exits(0).stdout(output.clone()).stderr(output));
    let dies = "exec 5>&-; head -c 10 <&3 > \"$1/out\"; exit 1";
    scene.create_with("c", endpoints(&scene, dies)).await.unwrap();
    let name = ProcessName::init("c");
    scene.pod.start(&name).await.unwrap();
    assert_eq!(scene.exit(&name).await, 0);
    scene.pod.delete(&name).await.unwrap();
    assert_eq!(kept(&scene, "out"), "xxxxxxxxxx");
    scene.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logger_that_does_not_end_is_ended() {
    for script in ["exec sleep 600", "trap '' TERM; exec sleep 600"] {
        let scene = Scene::new().await;
        let script = format!("echo $$ > \"$1/pid\"; exec 5>&-; {script}");
        scene.program("c", FakeProgram::exits(0).stdout("lost\n"));
        scene.create_with("c", endpoints(&scene, &script)).await.unwrap();
        let name = ProcessName::init("c");
        scene.pod.start(&name).await.unwrap();
        scene.exit(&name).await;
        let process = Path::new("/proc").join(kept(&scene, "pid").trim());
        assert!(process.exists());
        let begun = Instant::now();
        scene.pod.delete(&name).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(!process.exists());
        scene.assert_nothing_left();
    }
}
