//! Two network namespaces of a test's own: a pod with an interface, and the node at its other end.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test target uses a part of it, and a test may panic"
)]

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The pod's address, and the node's.
pub(crate) const POD: &str = "10.99.0.2";
pub(crate) const NODE: &str = "10.99.0.1";

/// They go with this value.
pub(crate) struct Pod {
    pod: String,
    node: String,
}

impl Pod {
    /// As a CNI plugin would make it.
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |part: &str| format!("cofferdam-{part}-{}-{number}", std::process::id());
        let pod = Self {
            pod: name("pod"),
            node: name("node"),
        };
        let Self { pod: inner, node } = &pod;
        for words in [
            format!("netns add {inner}"),
            format!("netns add {node}"),
            format!("-n {inner} link add name eth0 mtu 1450 type veth peer name veth0 mtu 1450 netns {node}"),
            format!("-n {inner} link set lo up"),
            format!("-n {inner} addr add {POD}/24 dev eth0"),
            format!("-n {inner} -6 addr add fd00:99::2/64 dev eth0 nodad"),
            format!("-n {inner} link set eth0 up"),
            format!("-n {inner} route add default via {NODE}"),
            format!("-n {node} addr add {NODE}/24 dev veth0"),
            format!("-n {node} link set veth0 up"),
        ] {
            ip(&words);
        }
        pod
    }

    /// The pod's network namespace.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.pod)
    }

    /// A command's output in the pod.
    pub(crate) fn inside(&self, words: &str) -> String {
        told(&in_namespace(&self.pod, words))
    }

    /// A command of the node, however it ends.
    pub(crate) fn node(&self, words: &str) -> Output {
        in_namespace(&self.node, words)
    }

    /// Whether the pod answers one of the node's echo requests before long: a busy machine is slow, and the node may have to
    /// forget first that nobody was there.
    pub(crate) fn answers_soon(&self) -> bool {
        (0..15).any(|_| self.answers())
    }

    /// Whether the pod answers the node's echo request.
    pub(crate) fn answers(&self) -> bool {
        self.node(&format!("busybox ping -c 1 -W 2 {POD}"))
            .status
            .success()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for name in [&self.pod, &self.node] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn in_namespace(name: &str, words: &str) -> Output {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name]).args(words.split(' '));
    command.output().unwrap()
}

fn ip(words: &str) {
    told(&Command::new("ip").args(words.split(' ')).output().unwrap());
}

fn told(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{output:?} (network namespaces need root)"
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}
