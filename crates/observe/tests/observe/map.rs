//! Who holds which device.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use cofferdam_backend::fake::{FakeBackend, FakeOptions, FakeProgram, ProgramFor};
use cofferdam_observe::{CheckReport, LookedAt, Machine};
use cofferdam_owner::control::{self, Question};
use cofferdam_plan::{Mount, Spec};
use cofferdam_pod::{Endpoints, NewContainer, Pod, ProcessName};
use cofferdam_vm::{BootOptions, UtilityVm};
use serde_json::{Value, json};

/// A bundle's spec with layers, a share, single files of one directory, and a disk.
fn spec(dir: &Path, scratch: &str) -> Spec {
    let bind = |source: &str, destination: &str| json!({ "type": "bind", "source": source, "destination": destination, "options": ["ro"] });
    let spec = json!({
        "ociVersion": "1.0.2",
        "annotations": { "team": "blue" },
        "process": { "args": ["init"], "cwd": "/" },
        "mounts": [
            { "type": "proc", "source": "proc", "destination": "/proc" },
            bind("share", "/share"),
            bind("files/f", "/etc/f"),
            { "type": "virtual-disk", "source": "disk.vhdx", "destination": "/mnt/x" },
        ],
        "windows": { "layerFolders": [dir.join("upper"), dir.join("base"), dir.join(scratch)] },
    });
    Spec::parse(&spec.to_string()).unwrap()
}

fn files(dir: &Path) {
    for folder in ["upper", "base", "scratch1", "scratch2", "share", "files"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    let layers = [
        "upper/layer.vhd",
        "base/layer.vhd",
        "scratch1/sandbox.vhdx",
        "scratch2/sandbox.vhdx",
    ];
    for file in layers.into_iter().chain(["disk.vhdx", "hot.vhdx", "files/f"]) {
        fs::write(dir.join(file), [0; 4096]).unwrap();
    }
}

async fn start(pod: &Pod, id: &str, spec: &Spec, dir: &Path) {
    let new = NewContainer {
        id,
        spec,
        bundle: dir,
        endpoints: Endpoints::default(),
        check_image: &|_| Ok(()),
    };
    pod.create(new).await.unwrap();
    pod.start(&ProcessName::init(id)).await.unwrap();
}

/// What each holder holds, by host path; of what has none, by the device.
fn held(machine: &Machine) -> BTreeMap<String, Vec<String>> {
    let mut held = BTreeMap::new();
    for device in &machine.devices {
        assert_eq!(
            device.references,
            device.held_by.len(),
            "somebody has no name: {device:?}"
        );
        let what = device
            .host_path
            .as_deref()
            .map_or(device.device.as_str(), |path| path.rsplit_once("/t/").unwrap().1);
        let names = device
            .held_by
            .iter()
            .map(|holder| format!("{}: {}", holder.container, holder.item));
        held.insert(what.to_owned(), names.collect());
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn every_device_names_everybody_who_holds_it() {
    let backend = FakeBackend::new(FakeOptions::default());
    for id in ["web", "db"] {
        backend.set_program(ProgramFor::Init(id.to_owned()), FakeProgram::runs());
    }
    let vm = UtilityVm::boot(Arc::new(backend.clone()), &BootOptions::default()).await;
    let (pod, _events) = Pod::new(vm.unwrap());
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("t");
    fs::create_dir(&dir).unwrap();
    files(&dir);
    let answers = LookedAt::new(pod.clone(), "not here");
    let server = tokio::spawn(control::serve(control::listen(&dir).unwrap(), Arc::new(answers)));
    let ask = async |question: Question| {
        let dir = dir.clone();
        let asked = tokio::task::spawn_blocking(move || control::ask::<Value>(&dir, &question));
        asked.await.unwrap()
    };
    let inspected =
        async || serde_json::from_value::<Machine>(ask(Question::Inspect).await.unwrap()).unwrap();
    assert_eq!(
        ask(Question::MountList).await.unwrap_err().to_string(),
        "not here"
    );
    assert_eq!(inspected().await.devices, []);

    start(&pod, "web", &spec(&dir, "scratch1"), &dir).await;
    start(&pod, "db", &spec(&dir, "scratch2"), &dir).await;
    let mounts = pod.mounts("web").unwrap();
    let entry = json!({ "type": "virtual-disk", "source": "hot.vhdx", "destination": "/hot" });
    let mount: Mount = serde_json::from_value(entry).unwrap();
    let plan = mounts.plan(&mount, &dir, &|_| Ok(())).unwrap();
    mounts.add("web", &plan).await.unwrap();

    let machine = inspected().await;
    let line = |what: &str, holders: &[&str]| {
        (
            what.to_owned(),
            holders
                .iter()
                .map(|&holder| holder.to_owned())
                .collect::<Vec<_>>(),
        )
    };
    let expected = [
        line("base/layer.vhd", &["db: layer 1", "web: layer 1"]),
        line("container mount 0", &["web: mount 4 on /hot"]),
        line("disk.vhdx", &["db: mount 3 on /mnt/x", "web: mount 3 on /mnt/x"]),
        line("files", &["db: mount 2 on /etc/f", "web: mount 2 on /etc/f"]),
        line("hot.vhdx", &["web: mount 4 on /hot"]),
        line("overlay 0", &["web: root"]),
        line("overlay 1", &["db: root"]),
        line("scratch1/sandbox.vhdx", &["web: scratch"]),
        line("scratch2/sandbox.vhdx", &["db: scratch"]),
        line("share", &["db: mount 1 on /share", "web: mount 1 on /share"]),
        line("upper/layer.vhd", &["db: layer 2", "web: layer 2"]),
    ];
    assert_eq!(held(&machine), BTreeMap::from(expected));
    let find = |path: &str| {
        let ends = |host: &String| host.ends_with(path);
        machine
            .devices
            .iter()
            .find(|device| device.host_path.as_ref().is_some_and(ends))
            .unwrap()
    };
    assert_eq!(
        find("/files").allowed_names.as_deref(),
        Some(&["f".to_owned()][..])
    );
    assert_eq!(
        (find("/share").read_only, find("/hot.vhdx").read_only),
        (Some(true), Some(false))
    );
    let hot = &find("/hot.vhdx");
    assert!(hot.held_by[0].added && hot.held_by[0].destination.as_deref() == Some("/hot"));
    assert_eq!(hot.held_by[0].guest_path, hot.mounts[0].guest_path);
    assert!(
        machine.devices.iter().all(|device| device.state == "attached"),
        "{machine:?}"
    );
    let web = &machine.containers[1];
    assert_eq!((web.id.as_str(), web.init.status.as_str()), ("web", "running"));
    assert_eq!(
        (web.oci_version.as_str(), web.annotations["team"].as_str()),
        ("1.0.2", "blue")
    );
    assert!(web.init.started_at.as_ref() >= Some(&web.created_at));

    let checked = ask(Question::Check { repair: false }).await.unwrap();
    assert_eq!(
        serde_json::from_value::<CheckReport>(checked).unwrap(),
        CheckReport::default()
    );

    // One of two holders leaves: the other's name stays.
    let name = ProcessName::init("web");
    pod.kill(&name, 9, false).await.unwrap();
    pod.wait(&name).await.unwrap();
    pod.release(&name).await.unwrap();
    let machine = inspected().await;
    assert_eq!(machine.containers[1].init.exit_status, Some(137));
    let left = held(&machine);
    assert_eq!(left["upper/layer.vhd"], ["db: layer 2"]);
    assert!(
        left.values().flatten().all(|holder| holder.starts_with("db: ")),
        "{left:?}"
    );
    assert_eq!(left.len(), 7);
    server.abort();
}
