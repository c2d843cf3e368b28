//! Limits of containers in a real VM: that they hold, that they change, and how a container ends that runs out of
//! memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod real_pod;

use std::time::Duration;

use cofferdam_container::{
    Allocation, Created, Handle, RunError, Running, Stdio, delete_state, limit_pod, pod_stats,
};
use cofferdam_protocol::{HResult, message::Metrics};
use real_pod::Pod;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream},
    time::timeout,
};

/// No step takes longer, or it never ends. Generous: the VM may be emulated on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Fills memory without end, in pieces of this process's own.
const FILL: &str = "x=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; while :; do x=$x$x; done";
/// Some seconds of work for a CPU.
const WORK: &str = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
const MIB: u64 = 1 << 20;

/// A container that waits for lines and runs each.
struct Container {
    name: &'static str,
    allocation: Allocation,
    running: Running,
    handle: Handle,
    input: DuplexStream,
    output: tokio::io::Lines<BufReader<DuplexStream>>,
}

impl Container {
    async fn start(pod: &Pod, name: &'static str, resources: Value) -> Self {
        let script = "while IFS= read -r line; do eval \"$line\"; done";
        Self::run(pod, name, script, resources).await
    }

    async fn run(pod: &Pod, name: &'static str, script: &str, resources: Value) -> Self {
        let mut spec = pod.layered(&format!("{name}.scratch"), script, &[]);
        spec["linux"]["resources"] = resources;
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({"type": "cgroup"}));
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/cg", "type": "cgroup", "source": "cgroup", "options": ["rw"]
        }));
        let plan = pod.plan(&spec);
        let allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
        let created = Created::create(pod.vm.clone(), name, &plan.container_root, &plan.spec)
            .await
            .unwrap();
        let (input, stdin) = tokio::io::duplex(64 << 10);
        let (stdout, output) = tokio::io::duplex(64 << 10);
        let stdio = Stdio {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
        };
        let running = created.start(stdio, None).await.unwrap();
        Self {
            name,
            allocation,
            handle: running.handle(),
            running,
            input,
            output: BufReader::new(output).lines(),
        }
    }

    async fn tell(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn hear(&mut self) -> String {
        let line = timeout(LIMIT, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{}: it says nothing", self.name));
        line.unwrap()
            .unwrap_or_else(|| panic!("{}: it has ended", self.name))
    }

    /// What it prints for a line: one line.
    async fn says(&mut self, line: &str) -> String {
        self.tell(line).await;
        self.hear().await
    }

    /// The content of a file of its cgroup.
    async fn cgroup(&mut self, file: &str) -> String {
        self.says(&format!("read -r first < /cg/{file}; echo \"$first\""))
            .await
    }

    /// Its status once it has ended.
    async fn wait(self, pod: &Pod) -> (u8, Ended) {
        let Self {
            name,
            allocation,
            running,
            handle,
            input,
            ..
        } = self;
        let status = timeout(LIMIT, running.wait()).await.expect("it ends");
        drop(input);
        let vm = pod.vm.clone();
        (
            status.unwrap(),
            Ended {
                name,
                allocation,
                handle,
                vm,
            },
        )
    }

    async fn kill(self, pod: &Pod) {
        self.handle.signal(9).await.unwrap();
        let (status, ended) = self.wait(pod).await;
        assert_eq!(status, 137);
        ended.delete().await;
    }
}

/// A container that has ended and is still known.
struct Ended {
    name: &'static str,
    allocation: Allocation,
    handle: Handle,
    vm: std::sync::Arc<cofferdam_vm::UtilityVm>,
}

impl Ended {
    async fn delete(mut self) {
        self.allocation.release().await.unwrap();
        delete_state(&self.vm, self.name).await.unwrap();
        self.handle.out_of_memory().await.unwrap_err();
    }
}

fn metrics(metrics: &Metrics) -> (u64, u64, u64) {
    let (pids, cpu) = (metrics.pids.unwrap(), metrics.cpu.unwrap());
    let memory = metrics.memory.unwrap();
    (pids.limit, memory.usage.limit, cpu.usage.total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn the_limits_of_a_spec_are_those_of_its_cgroup_and_can_be_changed() {
    let pod = Pod::boot().await;
    let resources = json!({
        "memory": {"limit": 64 * MIB, "reservation": 16 * MIB, "swap": 64 * MIB},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 1024, "cpus": "0,500", "mems": "0"},
        "pids": {"limit": 32},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"memory.high": "50331648"},
    });
    let mut container = Container::start(&pod, "a", resources).await;
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "16777216"),
        ("memory.high", "50331648"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "0"),
        ("cpuset.cpus.effective", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "32"),
    ] {
        assert_eq!(container.cgroup(file).await, value, "{file}");
    }
    // It may write to its cgroup, but that is not to say that it may lift its limits.
    for write in [
        "max > /cg/memory.max",
        "max > /cg/pids.max",
        "0 > /cg/cgroup.freeze",
    ] {
        let lifted = container
            .says(&format!(
                "if (echo {write}) 2>/dev/null; then echo lifted; else echo denied; fi"
            ))
            .await;
        assert_eq!(lifted, "denied", "{write}");
    }
    assert_eq!(
        container
            .says("if mkdir /cg/below && rmdir /cg/below; then echo made; else echo denied; fi")
            .await,
        "made",
        "it is mounted writable"
    );
    let handle = container.handle.clone();
    container.says(&format!("{WORK}; echo done")).await;
    let stats = handle.stats().await.unwrap();
    let (pids, memory, used_before) = metrics(&stats);
    assert_eq!((pids, memory), (32, 64 * MIB));
    let throttling = stats.cpu.unwrap().throttling;
    assert!(
        throttling.throttled_periods > 0,
        "more than half of a CPU was wanted: {throttling:?}"
    );

    let new = json!({"memory": {"limit": 128 * MIB}, "cpu": {"quota": -1}, "pids": {"limit": -1}});
    handle.update(&new).await.unwrap();
    for (file, value) in [
        ("memory.max", "134217728"),
        ("cpu.max", "max 100000"),
        ("pids.max", "max"),
        ("cpu.weight", "100"),
    ] {
        assert_eq!(container.cgroup(file).await, value, "{file}");
    }

    for (new, said) in [
        (
            json!({"pids": {"limit": 9}, "cpu": {"quota": 1, "period": 7}}),
            "linux.resources.cpu.quota",
        ),
        (
            json!({"pids": {"limit": 9}, "unified": {"memory.high": "lots"}}),
            "linux.resources.unified.memory.high",
        ),
        (
            json!({"pids": {"limit": 9}, "unified": {"memory.no.such": "1"}}),
            "memory.no.such",
        ),
        (json!({"pids": {"limit": 9}, "cpu": {"cpus": "700"}}), "cpu.cpus"),
        (
            json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}),
            "in use already",
        ),
    ] {
        let refused = handle.update(&new).await.unwrap_err().to_string();
        assert!(refused.contains(said), "{new}: {refused}");
    }
    assert_eq!(container.cgroup("pids.max").await, "max", "all or nothing");
    assert_eq!(container.cgroup("memory.max").await, "134217728");

    // Reading a file nobody has read before has to reach the disk.
    container
        .says("cat /usr/bin/* 2>/dev/null | head -c 8000000 | wc -c")
        .await;
    let stats = handle.stats().await.unwrap();
    assert!(metrics(&stats).2 > used_before);
    let blkio = stats.blkio.expect("figures of block devices");
    assert!(
        blkio
            .io_service_bytes_recursive
            .iter()
            .any(|figure| figure.op == "Read" && figure.value > 0),
        "{blkio:?}"
    );
    assert_eq!(stats.memory_oom_control.unwrap().oom_kill, 0);
    container.kill(&pod).await;
    pod.assert_empty("at the end").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_container_cannot_have_more_processes_than_its_limit() {
    let pod = Pod::boot().await;
    let mut container = Container::start(&pod, "a", json!({"pids": {"limit": 4}})).await;
    // Bash tries again for a while before it gives a fork up: one attempt is enough here.
    let script = "for i in 1 2 3 4 5 6; do /bin/sleep 60 & done 2>/dev/null; echo $(jobs -r | wc -l)";
    container
        .tell(&format!("({script}) 2>/dev/null & wait $!; echo $?"))
        .await;
    let status = container.hear().await;
    let stats = container.handle.stats().await.unwrap().pids.unwrap();
    assert_eq!(stats.limit, 4);
    assert!(stats.current <= 4, "{stats:?}");
    assert_ne!(status, "0", "the shell that could not fork gave up");
    container.kill(&pod).await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn running_out_of_memory_is_told_from_every_other_death() {
    let pod = Pod::boot().await;
    let memory = json!({"memory": {"limit": 32 * MIB}});

    // The first process itself.
    let mut container = Container::start(&pod, "init", memory.clone()).await;
    let mut events = container.running.oom().unwrap();
    container.tell(FILL).await;
    assert_eq!(timeout(LIMIT, events.next()).await.unwrap().unwrap(), Some(1));
    let (status, ended) = container.wait(&pod).await;
    assert_eq!(status, 137);
    let verdict = ended.handle.out_of_memory().await.unwrap();
    assert_eq!((verdict.kills, verdict.init_killed), (1, true));
    assert_eq!(timeout(LIMIT, events.next()).await.unwrap().unwrap(), None);
    ended.delete().await;

    // A child of it, and the container lives on to end with the same status by itself.
    let mut container = Container::start(&pod, "child", memory.clone()).await;
    let mut events = container.running.oom().unwrap();
    let status = container.says(&format!("( {FILL} ) 2>/dev/null; echo $?")).await;
    assert_eq!(status, "137");
    assert_eq!(timeout(LIMIT, events.next()).await.unwrap().unwrap(), Some(1));
    let verdict = container.handle.out_of_memory().await.unwrap();
    assert_eq!((verdict.kills, verdict.init_killed), (1, false));
    container.tell("exit 137").await;
    let (status, ended) = container.wait(&pod).await;
    assert_eq!(status, 137);
    let verdict = ended.handle.out_of_memory().await.unwrap();
    assert_eq!((verdict.kills, verdict.init_killed), (1, false));
    ended.delete().await;

    // Killed by the host.
    let container = Container::start(&pod, "killed", memory.clone()).await;
    let mut events = container.running.oom().unwrap();
    container.handle.signal(9).await.unwrap();
    assert_eq!(timeout(LIMIT, events.next()).await.unwrap().unwrap(), None);
    let (status, ended) = container.wait(&pod).await;
    assert_eq!(status, 137);
    let verdict = ended.handle.out_of_memory().await.unwrap();
    assert_eq!((verdict.kills, verdict.init_killed), (0, false));
    ended.delete().await;

    // Within a limit that was lowered while it ran.
    let mut container = Container::start(&pod, "lowered", json!({})).await;
    assert_eq!(container.says("echo up").await, "up");
    container
        .handle
        .update(&json!({"memory": {"limit": 24 * MIB}}))
        .await
        .unwrap();
    container.tell(FILL).await;
    let (status, ended) = container.wait(&pod).await;
    assert_eq!(status, 137);
    assert!(ended.handle.out_of_memory().await.unwrap().init_killed);
    ended.delete().await;

    // Without any limit but the VM's own memory: the VM lives on.
    let mut container = Container::start(&pod, "unlimited", json!({})).await;
    container.tell(FILL).await;
    let (status, ended) = container.wait(&pod).await;
    assert_eq!(status, 137);
    assert!(ended.handle.out_of_memory().await.unwrap().init_killed);
    ended.delete().await;
    pod.assert_empty("at the end").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_paused_container_stands_still_goes_on_and_can_be_killed() {
    let pod = Pod::boot().await;
    let mut container = Container::start(&pod, "a", json!({})).await;
    assert_eq!(container.says("echo one").await, "one");
    let handle = container.handle.clone();
    handle.pause().await.unwrap();
    handle.pause().await.unwrap();
    let used = metrics(&handle.stats().await.unwrap()).2;
    container.tell("echo two").await;
    let quiet = timeout(Duration::from_secs(2), container.output.next_line()).await;
    quiet.expect_err("a paused container says nothing");
    assert_eq!(metrics(&handle.stats().await.unwrap()).2, used, "nor does it run");
    let refused = pod.vm.bridge().execute_process(
        "a",
        cofferdam_protocol::message::ProcessParameters {
            oci_process: Some(json!({"args": ["/bin/true"], "cwd": "/"})),
            ..Default::default()
        },
        Default::default(),
    );
    let refused = refused.await.unwrap_err();
    assert_eq!(refused.result(), Some(HResult::INVALID_STATE));
    assert!(refused.to_string().contains("is paused"), "{refused}");
    handle.update(&json!({"pids": {"limit": 77}})).await.unwrap();
    handle.resume().await.unwrap();
    handle.resume().await.unwrap();
    assert_eq!(container.hear().await, "two");
    assert_eq!(container.cgroup("pids.max").await, "77");

    // Processes that are started while it is paused start before or not at all, and none is left half way.
    for _ in 0..5 {
        let bridge = pod.vm.bridge();
        let exec = || async {
            let true_program = cofferdam_protocol::message::ProcessParameters {
                oci_process: Some(json!({"args": ["/bin/true"], "cwd": "/"})),
                ..Default::default()
            };
            bridge
                .execute_process("a", true_program, Default::default())
                .await
        };
        let (paused, first, second, third) = tokio::join!(handle.pause(), exec(), exec(), exec());
        paused.unwrap();
        handle.resume().await.unwrap();
        for started in [first, second, third] {
            match started {
                Ok(pid) => {
                    let ended = timeout(LIMIT, bridge.wait_for_process("a", pid)).await;
                    assert_eq!(ended.expect("it ends").unwrap(), 0);
                }
                Err(error) => assert_eq!(error.result(), Some(HResult::INVALID_STATE), "{error}"),
            }
        }
    }
    assert_eq!(container.says("echo three").await, "three");

    handle.pause().await.unwrap();
    container.kill(&pod).await;
    let late = handle.pause().await.unwrap_err();
    assert_eq!(late.result(), Some(HResult::CONTAINER_NOT_FOUND), "{late}");

    // The other way to kill it, and one that only asks.
    let container = Container::start(&pod, "b", json!({})).await;
    container.handle.pause().await.unwrap();
    pod.vm.bridge().shutdown_forced("b").await.unwrap();
    let (status, ended) = container.wait(&pod).await;
    assert_eq!(status, 137);
    let late = ended.handle.pause().await.unwrap_err();
    assert_eq!(late.result(), Some(HResult::ALREADY_STOPPED), "{late}");
    ended.delete().await;
    pod.assert_empty("at the end").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn all_containers_together_stay_within_the_limits_of_the_pod() {
    let pod = Pod::boot().await;
    limit_pod(
        &pod.vm,
        &json!({"memory": {"limit": 48 * MIB}, "pids": {"limit": 64}, "cpu": {"quota": 90_000}}),
    )
    .await
    .unwrap();
    // Neither has a limit of its own.
    let mut first = Container::start(&pod, "a", json!({})).await;
    let second = Container::start(&pod, "b", json!({})).await;
    let (pids, memory, _) = metrics(&pod_stats(&pod.vm).await.unwrap());
    assert_eq!((pids, memory), (64, 48 * MIB));
    first.tell(FILL).await;
    let (status, ended) = first.wait(&pod).await;
    assert_eq!(status, 137);
    assert!(ended.handle.out_of_memory().await.unwrap().init_killed);
    let other = second.handle.out_of_memory().await.unwrap();
    assert_eq!((other.kills, other.init_killed), (0, false));
    ended.delete().await;
    limit_pod(&pod.vm, &json!({"memory": {"limit": -1}, "pids": {"limit": -1}}))
        .await
        .unwrap();
    let (pids, memory, _) = metrics(&pod_stats(&pod.vm).await.unwrap());
    assert_eq!(pids, 0);
    assert!(memory > 1 << 60, "{memory}");
    let refused = limit_pod(&pod.vm, &json!({"cpu": {"cpus": "900"}})).await;
    assert!(refused.unwrap_err().to_string().contains("cpu.cpus"));
    second.kill(&pod).await;
    pod.assert_empty("at the end").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn a_spec_with_a_limit_that_makes_no_sense_is_refused_with_its_member() {
    let pod = Pod::boot().await;
    for (memory, said) in [
        (
            json!({"limit": 64 * MIB, "swap": 1}),
            "linux.resources.memory.swap: 1 is less",
        ),
        (
            json!({"limit": 8192}),
            "linux.resources.memory.limit 8192: it is too little",
        ),
    ] {
        let mut spec = pod.layered("a.scratch", "true", &[]);
        spec["linux"]["resources"] = json!({ "memory": memory });
        let plan = pod.plan(&spec);
        let mut allocation = Allocation::allocate(pod.vm.driver(), &plan).await.unwrap();
        let refused = Created::create(pod.vm.clone(), "a", &plan.container_root, &plan.spec).await;
        let Err(RunError::Create(refused)) = refused else {
            panic!("created")
        };
        assert!(refused.to_string().contains(said), "{refused}");
        allocation.release().await.unwrap();
        pod.assert_empty("after the refusal").await;
    }
    pod.shut_down().await;
}
