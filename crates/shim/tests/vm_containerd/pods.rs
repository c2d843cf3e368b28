//! Pods through containerd's CRI plugin: a sandbox, its containers, their network.

use std::{fs, net::TcpStream, path::Path, time::Duration};

use serde_json::json;

use crate::{
    cri::{
        ContainerConfig, ContainerMetadata, ContainerStatus, ContainerStatusResponse, CreateContainer, Cri,
        Dns, Empty, ExecSync, ExecSyncResponse, Id, LinuxConfig, LinuxSandbox, Metadata, Mount, Resources,
        RunSandbox, SandboxConfig, SandboxStatusResponse,
    },
    daemon::{Containerd, IMAGE, eventually},
};

const PAUSE: &str = "localhost/pause:1";
const RUNNING: i32 = 1;
const EXITED: i32 = 2;

pub(crate) struct Scene {
    pub(crate) containerd: Containerd,
    pub(crate) cri: Cri,
    pub(crate) sandbox_config: SandboxConfig,
}

impl Scene {
    /// A containerd whose pods have a bridge of their own, in this subnet.
    pub(crate) fn new(bridge: &str, subnet: &str) -> Self {
        let plugins = std::env::var("COFFERDAM_TEST_CNI").expect("cargo xtask test vm");
        let configure = |dir: &Path| {
            let cni = dir.join("cni");
            fs::create_dir(&cni).unwrap();
            let network = json!({
                "cniVersion": "0.4.0",
                "name": "pods",
                "plugins": [{
                    "type": "bridge",
                    "bridge": bridge,
                    "isGateway": true,
                    "mtu": 1400,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{ "subnet": subnet }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                        "dataDir": dir.join("addresses"),
                    },
                }],
            });
            fs::write(cni.join("10-pods.conflist"), network.to_string()).unwrap();
            format!(
                "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {PAUSE:?}\ndisable_apparmor = true\n\
                 restrict_oom_score_adj = true\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndefault_runtime_name = \"cofferdam\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.cofferdam]\n\
                 runtime_type = \"io.containerd.cofferdam.v1\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\nconf_dir = {cni:?}\n"
            )
        };
        let containerd = Containerd::start(configure);
        containerd.import("k8s.io", PAUSE, &["sleep", "2147483647"]);
        containerd.import("k8s.io", IMAGE, &["sh"]);
        let sandbox_config = SandboxConfig {
            metadata: Some(Metadata {
                name: "pod".to_owned(),
                uid: "uid".to_owned(),
                namespace: "tests".to_owned(),
            }),
            hostname: "podhost".to_owned(),
            log_directory: containerd.path("logs").display().to_string(),
            dns: Some(Dns {
                servers: vec!["10.9.8.7".to_owned()],
            }),
            linux: Some(LinuxSandbox::default()),
        };
        let cri = Cri::connect(&containerd.path("sock"));
        Self {
            containerd,
            cri,
            sandbox_config,
        }
    }

    pub(crate) fn sandbox(&self) -> String {
        let config = Some(self.sandbox_config.clone());
        let ran: Result<Id, _> = self.cri.call("RunPodSandbox", RunSandbox { config });
        let id = ran.unwrap_or_else(|error| panic!("{error}\n{}", self.containerd.last_words()));
        id.id
    }

    pub(crate) fn container(&self, sandbox: &str, config: ContainerConfig) -> String {
        let create = CreateContainer {
            sandbox: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(self.sandbox_config.clone()),
        };
        let created: Result<Id, _> = self.cri.call("CreateContainer", create);
        let container = created.unwrap();
        let started: Result<Empty, _> = self.cri.call("StartContainer", container.clone());
        started.unwrap_or_else(|error| panic!("{error}\n{}", self.containerd.last_words()));
        container.id
    }

    fn status(&self, id: &str) -> ContainerStatus {
        let request = Id { id: id.to_owned() };
        let answer: ContainerStatusResponse = self.cri.call("ContainerStatus", request).unwrap();
        answer.status.unwrap()
    }

    pub(crate) fn exited(&self, id: &str) -> ContainerStatus {
        eventually("it has exited", || self.status(id).state == EXITED);
        self.status(id)
    }

    pub(crate) fn exec(&self, id: &str, command: &str) -> (String, i32) {
        let request = ExecSync {
            container: id.to_owned(),
            command: ["sh", "-c", command].map(str::to_owned).to_vec(),
            timeout: 30,
        };
        let answer: ExecSyncResponse = self.cri.call("ExecSync", request).unwrap();
        (String::from_utf8(answer.stdout).unwrap(), answer.exit_code)
    }

    fn address(&self, sandbox: &str) -> String {
        let request = Id {
            id: sandbox.to_owned(),
        };
        let answer: SandboxStatusResponse = self.cri.call("PodSandboxStatus", request).unwrap();
        answer.status.unwrap().network.unwrap().id
    }

    pub(crate) fn do_with(&self, method: &str, id: &str) {
        let request = Id { id: id.to_owned() };
        let done: Result<Empty, _> = self.cri.call(method, request);
        done.unwrap_or_else(|error| panic!("{method}: {error}\n{}", self.containerd.last_words()));
    }
}

/// A bridge stays when its last pod has gone.
pub(crate) struct Bridge(pub(crate) &'static str);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["link", "delete", self.0])
            .output();
    }
}

pub(crate) fn config(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
        }),
        image: Some(Id { id: IMAGE.to_owned() }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        ..ContainerConfig::default()
    }
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_pod_has_containers_that_share_its_vm_its_name_and_its_network() {
    let _bridge = Bridge("cofferdam-t0");
    let scene = Scene::new("cofferdam-t0", "10.88.71.0/24");
    let sandbox = scene.sandbox();
    let mut serving = config("serving", "echo out; echo err >&2; exec httpd -f -p 80 -h /etc");
    let shared = scene.containerd.path("shared");
    fs::create_dir(&shared).unwrap();
    serving.mounts = vec![Mount {
        container_path: "/shared".to_owned(),
        host_path: shared.display().to_string(),
    }];
    let serving = scene.container(&sandbox, serving);
    let failing = scene.container(&sandbox, config("failing", "hostname; exit 4"));
    let failed = scene.exited(&failing);
    assert_eq!((failed.exit_code, failed.reason.as_str()), (4, "Error"));
    assert_eq!(scene.status(&serving).state, RUNNING);

    let log = |name: &str| fs::read_to_string(scene.containerd.path("logs").join(name)).unwrap();
    eventually("the logs are written", || {
        log("serving.log").contains("stdout F out") && log("serving.log").contains("stderr F err")
    });
    assert!(
        log("failing.log").ends_with("stdout F podhost\n"),
        "{}",
        log("failing.log")
    );

    let (seen, status) = scene.exec(
        &serving,
        "hostname; cat /etc/resolv.conf /sys/class/net/eth0/mtu; ip addr show eth0; touch /shared/made; exit 3",
    );
    assert_eq!(status, 3, "{seen}");
    let address = scene.address(&sandbox);
    for words in [
        "podhost\n",
        "nameserver 10.9.8.7\n",
        "\n1400\n",
        &format!("inet {address}/24 "),
    ] {
        assert!(seen.contains(words), "{words:?} is not in\n{seen}");
    }
    assert!(shared.join("made").exists());
    // The host reaches the pod, and the pod its gateway.
    let socket = format!("{address}:80").parse().unwrap();
    eventually("it serves", || {
        TcpStream::connect_timeout(&socket, Duration::from_secs(5)).is_ok()
    });
    let (pinged, status) = scene.exec(&serving, "ping -c 1 -W 10 10.88.71.1");
    assert_eq!(status, 0, "{pinged}");

    assert_eq!(scene.containerd.processes("qemu").len(), 1);
    scene.do_with("StopPodSandbox", &sandbox);
    for container in [&serving, &failing] {
        scene.do_with("RemoveContainer", container);
    }
    scene.do_with("RemovePodSandbox", &sandbox);
    scene.containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_container_that_runs_out_of_memory_says_so_and_the_others_do_not_notice() {
    let _bridge = Bridge("cofferdam-t1");
    let scene = Scene::new("cofferdam-t1", "10.88.72.0/24");
    let sandbox = scene.sandbox();
    let other = scene.container(&sandbox, config("other", "sleep 600"));
    // The shell itself grows, so that it is the one that is killed.
    let mut greedy = config("greedy", "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done");
    greedy.linux = Some(LinuxConfig {
        resources: Some(Resources {
            memory_limit_in_bytes: 32 << 20,
            ..Resources::default()
        }),
    });
    let greedy = scene.container(&sandbox, greedy);
    let ended = scene.exited(&greedy);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(scene.exec(&other, "echo there"), ("there\n".to_owned(), 0));
    scene.do_with("StopPodSandbox", &sandbox);
    scene.do_with("RemovePodSandbox", &sandbox);
    scene.containerd.assert_nothing_left();
}
