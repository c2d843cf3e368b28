//! Who is told what happens, and who is waited for.

use std::{io::Read as _, os::unix::net::UnixStream, path::Path, sync::Arc, time::Duration};

use cofferdam_backend::fake::{FakeBackend, FakeOptions, FakeProgram, ProgramFor};
use cofferdam_observe::{Events, Subscription, Told, types};
use cofferdam_owner::control;
use cofferdam_plan::Spec;
use cofferdam_pod::{Endpoints, Event, NewContainer, Pod, ProcessName};
use cofferdam_vm::{BootOptions, UtilityVm};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::timeout,
};

/// For what must happen.
const SOON: Duration = Duration::from_secs(30);
/// What an owner keeps for those who come later.
const HISTORY: u64 = 256;

/// An owner's directory, whose events are told by hand.
struct Scene {
    dir: tempfile::TempDir,
    events: Events,
    told: UnboundedSender<Event>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (told, received) = unbounded_channel();
        let events = Events::serve(dir.path(), received).unwrap();
        Self { dir, events, told }
    }

    /// Tells events that are told apart by their numbers.
    fn tell(&self, numbers: std::ops::Range<u64>) {
        for kills in numbers {
            let container = "web".to_owned();
            self.told.send(Event::OutOfMemory { container, kills }).unwrap();
        }
    }

    async fn open(&self, from: u64) -> (Subscription, cofferdam_observe::Heard) {
        timeout(SOON, Subscription::open(self.dir.path(), from))
            .await
            .unwrap()
            .unwrap()
    }
}

fn number(told: &Told) -> u64 {
    told.attributes["kills"].as_u64().unwrap()
}

async fn next(subscription: &mut Subscription) -> Option<Told> {
    timeout(SOON, subscription.next()).await.unwrap().unwrap()
}

fn connected(dir: &Path) -> UnixStream {
    control::connect(dir, "events.sock").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_container_is_told_in_order_to_its_last_event() {
    let backend = FakeBackend::new(FakeOptions::default());
    backend.set_program(ProgramFor::Init("web".to_owned()), FakeProgram::runs());
    backend.set_program(ProgramFor::Command("seven".to_owned()), FakeProgram::exits(7));
    let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default()).await;
    let (pod, received) = Pod::new(vm.unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rootfs")).unwrap();
    let (events, mut passed_on) = Events::pass_on(dir.path(), received).unwrap();
    let (mut early, past) = Subscription::open(dir.path(), 0).await.unwrap();
    assert_eq!(past.events, []);

    let spec = json!({ "root": { "path": "rootfs" }, "process": { "args": ["init"], "cwd": "/" } });
    let spec = Spec::parse(&spec.to_string()).unwrap();
    let new = NewContainer {
        id: "web",
        spec: &spec,
        bundle: dir.path(),
        endpoints: Endpoints::default(),
        check_image: &|_| Ok(()),
    };
    pod.create(new).await.unwrap();
    let init = ProcessName::init("web");
    pod.start(&init).await.unwrap();
    let exec = ProcessName::exec("web", "one");
    pod.exec(
        &exec,
        json!({ "args": ["seven"], "cwd": "/" }),
        Endpoints::default(),
    )
    .unwrap();
    pod.start(&exec).await.unwrap();
    pod.wait(&exec).await.unwrap();
    pod.pause("web").await.unwrap();
    pod.resume("web").await.unwrap();
    pod.kill(&init, 9, false).await.unwrap();
    pod.wait(&init).await.unwrap();
    pod.delete(&init).await.unwrap();
    events.finish().await;

    let mut heard = Vec::new();
    while let Some(told) = next(&mut early).await {
        assert_eq!(told.id, "web");
        let status = told
            .attributes
            .get("exitStatus")
            .map(|status| status.as_u64().unwrap());
        heard.push((told.kind, told.exec, status));
    }
    let of = |kind: &str, exec: Option<&str>, status| (kind.to_owned(), exec.map(str::to_owned), status);
    assert_eq!(
        heard,
        [
            of(types::CREATE, None, None),
            of(types::START, None, None),
            of(types::EXEC_ADDED, Some("one"), None),
            of(types::EXEC_STARTED, Some("one"), None),
            of(types::EXIT, Some("one"), Some(7)),
            of(types::PAUSED, None, None),
            of(types::RESUMED, None, None),
            of(types::EXIT, None, Some(137)),
            of(types::DELETE, None, Some(137)),
        ]
    );
    let mut others = 0;
    while passed_on.recv().await.is_some() {
        others += 1;
    }
    assert_eq!(
        others,
        heard.len(),
        "whoever they are passed on to gets each of them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_is_told_a_bounded_past_and_who_comes_back_what_was_missed() {
    let scene = Scene::new();
    let (mut first, _) = scene.open(0).await;
    // In parts that a subscriber who reads can keep up with.
    for part in 0..30 {
        let numbers = part * 10..(part + 1) * 10;
        scene.tell(numbers.clone());
        for wanted in numbers {
            assert_eq!(number(&next(&mut first).await.unwrap()), wanted);
        }
    }
    let (later, past) = scene.open(0).await;
    assert_eq!((past.missed, past.events.len() as u64), (0, HISTORY));
    assert_eq!(number(&past.events[0]), 300 - HISTORY);
    assert_eq!((later.heard(), first.heard()), (300, 300));
    let (_back, past) = scene.open(10).await;
    assert_eq!(past.missed, 300 - HISTORY - 10);
    let (_back, past) = scene.open(298).await;
    assert_eq!(past.events.iter().map(number).collect::<Vec<_>>(), [298, 299]);
    assert_eq!(past.missed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_dropped_and_nobody_waits_for_it() {
    let scene = Scene::new();
    let mut slow = connected(scene.dir.path());
    let (mut quick, _) = scene.open(0).await;
    let bundle = "x".repeat(8 << 10);
    let total: u64 = 1000;
    for _ in 0..total / 10 {
        for _ in 0..10 {
            let event = Event::Created {
                container: "web".to_owned(),
                bundle: bundle.clone().into(),
                endpoints: Endpoints::default(),
            };
            scene.told.send(event).unwrap();
        }
        for _ in 0..10 {
            next(&mut quick).await.unwrap();
        }
    }
    let read = tokio::task::spawn_blocking(move || {
        slow.set_read_timeout(Some(SOON)).unwrap();
        let mut all = Vec::new();
        slow.read_to_end(&mut all).unwrap();
        all.len()
    });
    let read = read.await.unwrap();
    assert!(read < bundle.len() * 900, "{read} bytes were kept for it");
    drop(scene.events);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_subscriber_says_is_not_heard_and_one_that_does_not_stop_is_dropped() {
    let scene = Scene::new();
    let stream = connected(scene.dir.path());
    stream.set_nonblocking(true).unwrap();
    let (input, mut output) = tokio::net::UnixStream::from_std(stream).unwrap().into_split();
    output
        .write_all(b"{\"op\": \"inspect\"}\n\xff\x00rubbish")
        .await
        .unwrap();
    scene.tell(0..1);
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(input));
    let line = async |lines: &mut tokio::io::Lines<_>| timeout(SOON, lines.next_line()).await.unwrap();
    assert!(line(&mut lines).await.unwrap().unwrap().contains("history"));
    // It may have come before or after the event.
    assert!(line(&mut lines).await.unwrap().unwrap().contains("\"oom\""));
    let flood = async {
        // Until the other end is gone.
        while output.write_all(&[b'x'; 4096]).await.is_ok() {}
    };
    timeout(SOON, flood).await.unwrap();
    // Closed with bytes that nobody read, which the system tells as an error.
    assert!(!matches!(line(&mut lines).await, Ok(Some(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_limited_and_come_back() {
    let scene = Scene::new();
    let mut all = Vec::new();
    let refused = loop {
        match Subscription::open(scene.dir.path(), 0).await {
            Ok((subscription, _)) => all.push(subscription),
            Err(error) => break error,
        }
        assert!(all.len() < 100, "nobody is sent away");
    };
    assert!(
        refused.to_string().contains("listening to the owner"),
        "{refused}"
    );
    let places = all.len();
    drop(all);
    for _ in 0..2 * places {
        let opened = async {
            while Subscription::open(scene.dir.path(), 0).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, opened).await.unwrap();
    }
}
