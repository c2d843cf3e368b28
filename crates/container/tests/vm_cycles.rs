//! Many containers of one real VM, one after another and at once: nothing is left, and nothing grows.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod real_pod;

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use cofferdam_container::{AllocateError, Allocation};
use futures_util::future::join_all;
use real_pod::{Pod, mount};
use serde_json::Value;

/// Cycles of one VM; `COFFERDAM_STRESS` says how many more it is to be.
const CYCLES: usize = 200;
/// From here on nothing grows any more: every cache and every pool has been used.
const WARM: usize = 20;
/// What the agent may grow between the two: a few pages of its allocator. 3 KiB a cycle would be found.
const AGENT_GROWTH_BYTES: u64 = 512 << 10;
/// The same for QEMU, whose cache of translated code need not have been full: 0.4 MiB a cycle would be found.
const QEMU_GROWTH_BYTES: u64 = 64 << 20;
/// The same for this process, whose allocator keeps what each thread has freed.
const OWN_GROWTH_BYTES: u64 = 16 << 20;
/// Streams that are just being closed. One a cycle would be found.
const FILES_GROWTH: u64 = 8;

/// What must not grow while containers come and go.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    /// The agent's resident memory.
    agent_bytes: u64,
    /// QEMU's own memory. The guest's is shared with the vsock device in this process, and not part of it.
    qemu_bytes: u64,
    qemu_files: u64,
    /// This process: bridge, vsock device and Plan 9 server.
    own_bytes: u64,
    own_files: u64,
}

impl Footprint {
    async fn of(pod: &Pod) -> Self {
        let qemu = pod.backend.process_id().unwrap().to_string();
        Self {
            agent_bytes: pod.vm.bridge().agent_memory_bytes().await.unwrap(),
            qemu_bytes: private_bytes(&qemu),
            qemu_files: open_files(&qemu),
            own_bytes: private_bytes("self"),
            own_files: open_files("self"),
        }
    }

    #[track_caller]
    fn assert_no_more_than(self, warm: Self) {
        let bounds = [
            (
                "the agent's memory",
                self.agent_bytes,
                warm.agent_bytes,
                AGENT_GROWTH_BYTES,
            ),
            (
                "QEMU's memory",
                self.qemu_bytes,
                warm.qemu_bytes,
                QEMU_GROWTH_BYTES,
            ),
            (
                "this process's memory",
                self.own_bytes,
                warm.own_bytes,
                OWN_GROWTH_BYTES,
            ),
            (
                "QEMU's open files",
                self.qemu_files,
                warm.qemu_files,
                FILES_GROWTH,
            ),
            (
                "this process's open files",
                self.own_files,
                warm.own_files,
                FILES_GROWTH,
            ),
        ];
        for (what, now, before, growth) in bounds {
            assert!(now <= before + growth, "{what} grew from {before} to {now}");
        }
    }
}

/// Resident memory of a process that no file or other process shares.
fn private_bytes(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

fn open_files(process: &str) -> u64 {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn two_hundred_containers_of_one_vm_leave_nothing_and_nothing_grows() {
    let pod = Pod::boot().await;
    let share = pod.directory("share", &[("f", "shared\n")]);
    let files = pod.directory("files", &[("one", "1\n"), ("two", "2\n"), ("three", "3\n")]);
    let (data, template) = (pod.disk("data.qcow2"), pod.disk("template.qcow2"));
    let managed = pod.path("managed.qcow2");
    // Words of the shell alone: under emulation, each further program would cost more than the cycle's devices.
    let script = "set -e; read -r s < /share/f; read -r one < /one; read -r two < /two; test ! -e /managed/n
        n=0; test ! -e /data/n || read -r n < /data/n
        echo $((n + 1)) > /managed/n; read -r n < /managed/n; echo $n > /data/n; echo $s $one $two $n";
    let spec = pod.layered(
        "scratch",
        script,
        &[
            mount("virtual-disk", &data, "/data", &[]),
            mount("automanage-virtual-disk", &managed, "/managed", &[]),
            mount("bind", &share, "/share", &["ro"]),
            mount("bind", &files.join("one"), "/one", &["ro"]),
            mount("bind", &files.join("two"), "/two", &[]),
        ],
    );
    let cycles = CYCLES + further_cycles();
    let begun = Instant::now();
    let mut said = begun;
    let mut warm = None;
    for cycle in 1..=cycles {
        fs::copy(&template, &managed).unwrap();
        let output = pod.run("soak", &spec).await;
        assert_eq!(output, format!("shared 1 2 {cycle}\n"), "cycle {cycle}");
        assert!(
            !managed.exists(),
            "cycle {cycle}: the auto-managed disk is still there"
        );
        pod.assert_empty(&format!("after cycle {cycle}")).await;
        if cycle == WARM {
            warm = Some(Footprint::of(&pod).await);
        }
        if said.elapsed() > Duration::from_secs(60) {
            // Past the capture of the test's output: whoever ends tests that hang sees that this one goes on.
            writeln!(std::io::stderr(), "cycle {cycle} of {cycles}").unwrap();
            said = Instant::now();
        }
    }
    let (warm, end) = (warm.unwrap(), Footprint::of(&pod).await);
    println!("{cycles} cycles in {:.1} s", begun.elapsed().as_secs_f64());
    println!("after {WARM}: {warm:?}\nafter {cycles}: {end:?}");
    end.assert_no_more_than(warm);
    pod.shut_down().await;
}

/// For a long soak by hand.
fn further_cycles() -> usize {
    let Some(text) = std::env::var_os("COFFERDAM_STRESS") else {
        return 0;
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.expect("COFFERDAM_STRESS is a number of further cycles")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn four_containers_at_once_share_layers_a_disk_a_directory_and_single_files() {
    let pod = Pod::boot().await;
    let share = pod.directory("share", &[("motto", "together\n")]);
    let names = ["a", "b", "c", "d"];
    let content = names.map(|name| (name, format!("file of {name}\n")));
    let files = content.each_ref().map(|(name, text)| (*name, text.as_str()));
    let files = pod.directory("files", &files);
    let data = pod.disk("data.qcow2");
    let spec = |name: &str| {
        // The first one writes to the disk; it is attached for all by the first that asks, so writable.
        let (rights, write): (&[&str], _) = match name {
            "a" => (&[], "echo written > /data/f"),
            _ => (&["ro"], "if echo no > /data/g; then exit 3; fi 2> /dev/null"),
        };
        // Nobody goes on before all four are there, and the disk has been written.
        let script = format!(
            "set -e; echo here > /share/{name}; {write}
             until test -e /share/a -a -e /share/b -a -e /share/c -a -e /share/d -a -e /data/f; do sleep 0.05; done
             read -r motto < /share/motto; read -r own < /file; read -r all < /files/{name}; read -r f < /data/f
             echo $motto $own $all $f; echo done > /share/{name}.done
             until test -e /share/a.done -a -e /share/b.done -a -e /share/c.done -a -e /share/d.done; do sleep 0.05; done"
        );
        let mounts = [
            mount("virtual-disk", &data, "/data", rights),
            mount("bind", &share, "/share", &[]),
            mount("bind", &files.join(name), "/file", &["ro"]),
            mount("bind", &files, "/files", &["ro"]),
        ];
        pod.layered(&format!("scratch-{name}"), &script, &mounts)
    };
    for round in 1..=3 {
        for name in names {
            for mark in [share.join(name), share.join(format!("{name}.done"))] {
                // Absent in the first round.
                let _ = fs::remove_file(mark);
            }
        }
        let specs = names.map(|name| (name, spec(name)));
        let outputs = join_all(specs.iter().map(|(name, spec)| pod.run(name, spec))).await;
        for (name, output) in names.iter().zip(outputs) {
            let expected = format!("together file of {name} file of {name} written\n");
            assert_eq!(output, expected, "{name} in round {round}");
        }
        pod.assert_empty(&format!("after round {round}")).await;
    }
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn one_disk_is_written_by_one_container_and_read_by_another_at_the_same_time() {
    let pod = Pod::boot().await;
    let (data, share) = (pod.disk("data.qcow2"), pod.directory("share", &[]));
    let share = mount("bind", &share, "/share", &[]);
    let await_file = |name: &str| format!("until test -e /share/{name}; do sleep 0.05; done");
    let writer = format!(
        "echo first > /data/f; echo > /share/first; {}; echo second > /data/f; echo > /share/second; {}",
        await_file("seen"),
        await_file("end")
    );
    let reader = format!(
        "{}; read -r f < /data/f; echo $f; echo > /share/seen; {}; read -r f < /data/f; echo $f
         echo no > /data/f || echo refused; mount -o remount,rw /data 2> /dev/null; echo no > /data/g || echo refused
         echo > /share/end",
        await_file("first"),
        await_file("second")
    );
    let writer = pod.layered(
        "scratch-a",
        &writer,
        &[mount("virtual-disk", &data, "/data", &[]), share.clone()],
    );
    let reader = pod.layered(
        "scratch-b",
        &reader,
        &[mount("virtual-disk", &data, "/data", &["ro"]), share],
    );
    let (_, seen) = tokio::join!(pod.run("a", &writer), pod.run("b", &reader));
    assert_eq!(seen, "first\nsecond\nrefused\nrefused\n");
    pod.assert_empty("after both").await;
    pod.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a utility VM: cargo xtask test vm"]
async fn what_cannot_be_shared_is_refused_and_works_once_the_other_has_left() {
    let pod = Pod::boot().await;
    let data = pod.disk("data.qcow2");
    let with = |scratch: &str, script: &str, rights: &[&str]| {
        pod.layered(scratch, script, &[mount("virtual-disk", &data, "/data", rights)])
    };
    let mut reader = Allocation::allocate(pod.vm.driver(), &pod.plan(&with("scratch-a", "true", &["ro"])))
        .await
        .unwrap();
    let held = pod.vm.driver().ledger().view();

    let writer = with("scratch-b", "echo x > /data/f; read -r f < /data/f; echo $f", &[]);
    let message = refusal(&pod, &writer).await;
    let expected = format!(
        "mount 3: {} is already attached read-only and cannot become writable while it is held",
        data.display()
    );
    assert_eq!(message, expected);

    let same_scratch = with("scratch-a", "true", &["ro"]);
    let message = refusal(&pod, &same_scratch).await;
    let scratch = pod.path("scratch-a/sandbox.vhdx");
    assert!(
        message.starts_with(&format!(
            "{} is in use as the scratch of /run/gcs/c/",
            scratch.display()
        )) && message.ends_with("another container needs a scratch of its own"),
        "{message}"
    );

    assert_eq!(
        pod.vm.driver().ledger().view(),
        held,
        "the refusals changed nothing"
    );
    reader.release().await.unwrap();
    assert_eq!(pod.run("b", &writer).await, "x\n");
    pod.run("c", &same_scratch).await;
    pod.assert_empty("at the end").await;
    pod.shut_down().await;
}

/// Why a container gets nothing. A refusal touches neither host nor guest, so it takes no time.
async fn refusal(pod: &Pod, spec: &Value) -> String {
    let plan = pod.plan(spec);
    let begun = Instant::now();
    let Err(error) = Allocation::allocate(pod.vm.driver(), &plan).await else {
        panic!("it was not refused");
    };
    assert!(matches!(error, AllocateError::Refused(_)), "{error}");
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
    error.to_string()
}
