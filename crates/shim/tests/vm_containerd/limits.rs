//! What a pod may use: told by CRI, kept by its VM and by the cgroup of all its containers.

use std::fs;

use serde_json::Value;

use crate::{
    cri::{ContainerConfig, LinuxConfig, LinuxSandbox, Resources},
    daemon::eventually,
    pods::{Bridge, Scene, config},
};

const MIB: i64 = 1 << 20;

fn limited(name: &str, script: &str, memory_mib: i64) -> ContainerConfig {
    ContainerConfig {
        linux: Some(LinuxConfig {
            resources: Some(Resources {
                memory_limit_in_bytes: memory_mib * MIB,
                cpu_quota: 100_000,
                cpu_period: 100_000,
                ..Resources::default()
            }),
        }),
        ..config(name, script)
    }
}

/// The spec that CRI has made of a sandbox.
fn document(scene: &Scene, sandbox: &str) -> Value {
    let bundle = format!("state/io.containerd.runtime.v2.task/k8s.io/{sandbox}/config.json");
    serde_json::from_slice(&fs::read(scene.containerd.path(&bundle)).unwrap()).unwrap()
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn a_pods_limits_size_its_vm_and_hold_for_its_containers_together() {
    let _bridge = Bridge("cofferdam-t2");
    let mut scene = Scene::new("cofferdam-t2", "10.88.73.0/24");
    scene.sandbox_config.linux = Some(LinuxSandbox {
        resources: Some(Resources {
            cpu_period: 100_000,
            cpu_quota: 150_000,
            cpu_shares: 2048,
            memory_limit_in_bytes: 448 * MIB,
        }),
    });
    let sandbox = scene.sandbox();
    let told = &document(&scene, &sandbox)["annotations"];
    assert_eq!(told["io.kubernetes.cri.sandbox-memory"], "469762048", "{told}");
    assert_eq!(told["io.kubernetes.cri.sandbox-cpu-quota"], "150000", "{told}");
    // Long as a pod's name is, its VM's sockets are where its owner's record is, if that is not too deep itself.
    let record = scene.containerd.path(&format!("owners/k8s.io-{sandbox}"));
    let inside = fs::read_dir(&record).unwrap().flatten();
    let sockets = inside
        .map(|entry| entry.path().join("vsock"))
        .any(|path| path.exists());
    assert_eq!(sockets, record.as_os_str().len() <= 94, "{}", record.display());

    // Alone it has room enough; beside another that holds its part, it has not.
    let greedy = "exec dd if=/dev/zero of=/dev/null bs=390M count=1";
    let alone = scene.container(&sandbox, limited("alone", greedy, 440));
    let ended = scene.exited(&alone);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (0, "Completed"));
    let holding = "dd if=/dev/zero bs=200M count=1 | sleep 600";
    let holding = scene.container(&sandbox, limited("holding", holding, 440));
    let used = || {
        let (bytes, _) = scene.exec(&holding, "cat /sys/fs/cgroup/cofferdam/memory.current");
        bytes.trim().parse::<i64>().unwrap()
    };
    eventually("it holds its part", || used() > 200 * MIB);
    let beside = scene.container(&sandbox, limited("beside", greedy, 440));
    let ended = scene.exited(&beside);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    assert!(used() > 200 * MIB, "the other one was killed too");

    let pod = |file: &str| {
        scene
            .exec(&holding, &format!("cat /sys/fs/cgroup/cofferdam/{file}"))
            .0
    };
    assert_eq!(pod("memory.max"), "469762048\n");
    assert_eq!(pod("cpu.max"), "150000 100000\n");
    assert_eq!(pod("cpu.weight"), "174\n");
    let (memory, _) = scene.exec(&holding, "cat /proc/meminfo");
    let total_kib = memory.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap();
    // The limit, a sixteenth of it, and 128 MiB; the kernel's own part is not in its total.
    let vm_mib = 448 + 28 + 128;
    assert!((512..=vm_mib).contains(&(total_kib >> 10)), "{memory}");
    let (processors, _) = scene.exec(&holding, "cat /proc/cpuinfo");
    let expected = std::thread::available_parallelism().unwrap().get().min(2);
    assert_eq!(
        processors.matches("processor\t").count(),
        expected,
        "{processors}"
    );

    // Kubernetes' sum says nothing of a container without a limit.
    let unlimited = scene.container(&sandbox, config("unlimited", "sleep 600"));
    assert_eq!(pod("memory.max"), "max\n");
    assert_eq!(pod("cpu.max"), "max 100000\n");
    assert_eq!(scene.exec(&unlimited, "echo there"), ("there\n".to_owned(), 0));
    scene.do_with("StopPodSandbox", &sandbox);
    scene.do_with("RemovePodSandbox", &sandbox);
    scene.containerd.assert_nothing_left();
}

#[test]
#[ignore = "needs a utility VM: cargo xtask test vm"]
fn an_annotation_that_is_no_limit_is_named_and_leaves_nothing() {
    let containerd = crate::ctr::started();
    let annotation = "io.kubernetes.cri.sandbox-memory=lots";
    let options = ["--rm", "--annotation", annotation];
    let output = crate::ctr::run(&containerd, &options, "c", &["true"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("io.kubernetes.cri.sandbox-memory is \"lots\""),
        "{said}"
    );
    containerd.assert_nothing_left();
}
