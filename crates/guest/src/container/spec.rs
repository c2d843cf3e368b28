//! Completing a container's OCI document for this VM.
//!
//! The document was written for a host. What names things of that host, and has no meaning here, is taken out and
//! said so in the log; what the runtime needs and the host left open is filled in.

use cofferdam_protocol::annotations::{CONTAINER_TYPE, SANDBOX_ID};
use serde_json::{Map, Value, json};

use super::{namespaces, sandbox};
use crate::{
    error::{AgentError, Result},
    network,
    process::vm::DEFAULT_PATH,
};

/// Longest host name (`HOST_NAME_MAX`).
const HOSTNAME_BYTES: usize = 64;

/// A document ready for the runtime.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Completed {
    /// The document. Sources of `sandbox://` mounts are still to be filled in.
    pub(crate) spec: Value,
    /// Mounts from below the sandbox: index in `mounts`, and the path after the prefix.
    pub(crate) sandbox_mounts: Vec<(usize, String)>,
    /// The members of `linux.resources` that are limits. The agent sets them itself.
    pub(crate) limits: Value,
    /// What was taken out, for the log.
    pub(crate) removed: Vec<String>,
}

/// Which sandbox's files a `sandbox://` mount of this container means: `None` is the container's own.
pub(crate) fn sandbox_id(spec: &Value) -> Option<&str> {
    let annotations = spec.get("annotations")?;
    if annotations.get(CONTAINER_TYPE).and_then(Value::as_str) == Some("sandbox") {
        return None;
    }
    annotations
        .get(SANDBOX_ID)
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty())
}

/// Where the container's cgroup is, below the root of the hierarchy.
pub(crate) fn cgroup_path(id: &str) -> String {
    format!("/cofferdam/{id}")
}

/// Whether the document's first process wants a console.
pub(crate) fn wants_console(spec: &Value) -> bool {
    spec.pointer("/process/terminal")
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// Whether the first process's environment says where its home is.
pub(crate) fn has_home(spec: &Value) -> bool {
    let environment = spec.pointer("/process/env").and_then(Value::as_array);
    let mut entries = environment.into_iter().flatten().filter_map(Value::as_str);
    entries.any(|entry| entry.starts_with("HOME="))
}

/// Completes the document of container `id`; `sandbox` is the process number of its sandbox's init, if it has one that
/// runs.
pub(crate) fn complete(id: &str, spec: Value, sandbox: Option<u32>) -> Result<Completed> {
    let Value::Object(mut spec) = spec else {
        return Err(AgentError::Invalid(
            "the OCI specification is not an object".into(),
        ));
    };
    let mut removed = Vec::new();
    if spec
        .get("ociVersion")
        .and_then(Value::as_str)
        .is_none_or(|version| !version.starts_with("1."))
    {
        spec.insert("ociVersion".into(), json!("1.0.2"));
    }
    for (member, why) in [
        ("windows", "it is for Windows"),
        ("solaris", "it is for Solaris"),
        ("vm", "this is the VM"),
        ("zos", "it is for z/OS"),
        ("hooks", "the programs are on the host"),
    ] {
        remove(&mut spec, "", member, why, &mut removed);
    }
    if spec
        .get("root")
        .and_then(|root| root.get("path"))
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        return Err(AgentError::Invalid(
            "the OCI specification has no root.path".into(),
        ));
    }
    let process = spec
        .get_mut("process")
        .and_then(Value::as_object_mut)
        .ok_or_else(|| AgentError::Invalid("the OCI specification has no process".into()))?;
    complete_process(process, &mut removed);
    network::share_namespace(&mut spec);
    let linux = object(&mut spec, "linux")?;
    complete_linux(id, linux, &mut removed);
    let wanted = linux.entry("namespaces").or_insert_with(|| json!([]));
    namespaces::complete(wanted, sandbox, &mut removed);
    let limits = take_limits(linux);
    let sandbox_mounts = complete_mounts(&mut spec)?;
    complete_hostname(id, &mut spec, &mut removed);
    Ok(Completed {
        spec: Value::Object(spec),
        sandbox_mounts,
        limits,
        removed,
    })
}

/// Fills in what the runtime insists on and the document may lack.
pub(crate) fn complete_process(process: &mut Map<String, Value>, removed: &mut Vec<String>) {
    remove(
        process,
        "process.",
        "apparmorProfile",
        "the VM has no AppArmor",
        removed,
    );
    remove(
        process,
        "process.",
        "selinuxLabel",
        "the VM has no SELinux",
        removed,
    );
    if process
        .get("cwd")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        process.insert("cwd".into(), json!("/"));
    }
    let user = process.entry("user").or_insert_with(|| json!({}));
    if !user.is_object() {
        *user = json!({});
    }
    if let Some(user) = user.as_object_mut() {
        user.entry("uid").or_insert(json!(0));
        user.entry("gid").or_insert(json!(0));
    }
    complete_capabilities(process);
    let environment = process.entry("env").or_insert_with(|| json!([]));
    if !environment.is_array() {
        *environment = json!([]);
    }
    if let Some(environment) = environment.as_array_mut()
        && !environment
            .iter()
            .any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("PATH=")))
    {
        environment.push(format!("PATH={DEFAULT_PATH}").into());
    }
}

/// A set of capabilities that is not named is empty, as runc has it. The runtime library leaves such a set as it is,
/// which here is the agent's own: everything.
fn complete_capabilities(process: &mut Map<String, Value>) {
    let capabilities = process.entry("capabilities").or_insert_with(|| json!({}));
    if !capabilities.is_object() {
        *capabilities = json!({});
    }
    if let Some(sets) = capabilities.as_object_mut() {
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            let named = sets.entry(set).or_insert_with(|| json!([]));
            if named.is_null() {
                *named = json!([]);
            }
        }
    }
}

fn complete_linux(id: &str, linux: &mut Map<String, Value>, removed: &mut Vec<String>) {
    for (member, why) in [
        (
            "seccomp",
            "this agent is built without a seccomp library: the filter is NOT applied",
        ),
        ("mountLabel", "the VM has no SELinux"),
        (
            "intelRdt",
            "the host's cache allocation does not reach into the VM",
        ),
        ("netDevices", "they are devices of the host"),
    ] {
        remove(linux, "linux.", member, why, removed);
    }
    if let Some(path) = linux.insert("cgroupsPath".into(), json!(cgroup_path(id)))
        && path.as_str() != Some(&cgroup_path(id))
    {
        removed.push(format!("linux.cgroupsPath {path}: it is a path of the host"));
    }
}

/// Takes the limits out, so that only the devices are left to the runtime library.
fn take_limits(linux: &mut Map<String, Value>) -> Value {
    let Some(mut limits) = linux.remove("resources") else {
        return Value::Null;
    };
    if let Some(devices) = limits
        .as_object_mut()
        .and_then(|limits| limits.remove("devices"))
        .filter(|devices| !devices.is_null())
    {
        linux.insert("resources".into(), json!({ "devices": devices }));
    }
    limits
}

fn complete_mounts(spec: &mut Map<String, Value>) -> Result<Vec<(usize, String)>> {
    let mut from_sandbox = Vec::new();
    let Some(mounts) = spec.get_mut("mounts").filter(|mounts| !mounts.is_null()) else {
        return Ok(from_sandbox);
    };
    let mounts = mounts
        .as_array_mut()
        .ok_or_else(|| AgentError::Invalid("the mounts are not a list".into()))?;
    for (index, mount) in mounts.iter_mut().enumerate() {
        let mount = mount
            .as_object_mut()
            .ok_or_else(|| AgentError::Invalid(format!("mount {index} is not an object")))?;
        let kind = mount
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let source = mount
            .get("source")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if let Some(path) = source.strip_prefix(sandbox::PREFIX) {
            sandbox::components(path)
                .map_err(|why| AgentError::Invalid(format!("mount {index}, source {source:?}: {why}")))?;
            from_sandbox.push((index, path.to_owned()));
        } else if kind != "none" && kind != "bind" {
            continue;
        }
        // The host turned disks into mounts of type `none`: they are mounted already, and bound from there.
        mount.insert("type".into(), json!("bind"));
        let options = mount.entry("options").or_insert_with(|| json!([]));
        if options.is_null() {
            *options = json!([]);
        }
        let options = options
            .as_array_mut()
            .ok_or_else(|| AgentError::Invalid(format!("the options of mount {index} are not a list")))?;
        if !options
            .iter()
            .any(|option| matches!(option.as_str(), Some("bind" | "rbind")))
        {
            options.insert(0, json!("bind"));
        }
    }
    Ok(from_sandbox)
}

fn complete_hostname(id: &str, spec: &mut Map<String, Value>, removed: &mut Vec<String>) {
    let own_name = spec["linux"]["namespaces"]
        .as_array()
        .is_some_and(|namespaces| namespaces.iter().any(namespaces::is_own_name));
    if !own_name {
        for member in ["hostname", "domainname"] {
            remove(
                spec,
                "",
                member,
                "the container has no UTS namespace of its own",
                removed,
            );
        }
    } else if spec
        .get("hostname")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        let name: String = id.chars().take(HOSTNAME_BYTES).collect();
        spec.insert("hostname".into(), name.into());
    }
}

/// Takes `member` out if it says anything.
fn remove(object: &mut Map<String, Value>, place: &str, member: &str, why: &str, removed: &mut Vec<String>) {
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    if object.remove(member).is_some_and(|value| says_something(&value)) {
        removed.push(format!("{place}{member}: {why}"));
    }
}

/// The object `member`, made if absent.
fn object<'a>(parent: &'a mut Map<String, Value>, member: &str) -> Result<&'a mut Map<String, Value>> {
    let value = parent.entry(member).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .ok_or_else(|| AgentError::Invalid(format!("{member} is not an object")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "root": {"path": "/run/gcs/c/1/rootfs"},
            "process": {"args": ["sh"]},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "uts"}]}
        })
    }

    #[test]
    fn capabilities_that_are_not_named_are_none() {
        for given in [
            json!({}),
            json!({"capabilities": null}),
            json!({"capabilities": {"bounding": null}}),
        ] {
            let mut process = given.as_object().unwrap().clone();
            complete_process(&mut process, &mut Vec::new());
            for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
                assert_eq!(process["capabilities"][set], json!([]), "{set}");
            }
        }
        let mut process = json!({"capabilities": {"bounding": ["CAP_KILL"]}})
            .as_object()
            .unwrap()
            .clone();
        complete_process(&mut process, &mut Vec::new());
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL"]));
    }

    #[test]
    fn a_minimal_document_becomes_complete_and_nothing_is_removed() {
        let done = complete("c1", minimal(), None).unwrap();
        assert!(done.removed.is_empty(), "{:?}", done.removed);
        assert_eq!(done.spec["hostname"], "c1");
        assert_eq!(done.spec["process"]["cwd"], "/");
        assert_eq!(done.spec["process"]["user"], json!({"uid": 0, "gid": 0}));
        assert!(
            done.spec["process"]["env"][0]
                .as_str()
                .unwrap()
                .starts_with("PATH=/")
        );
        assert_eq!(done.spec["linux"]["cgroupsPath"], "/cofferdam/c1");
        assert_eq!(done.spec["ociVersion"], "1.0.2");
    }

    #[test]
    fn mounts_of_type_none_are_bound_whatever_their_options_say() {
        let mut spec = minimal();
        spec["mounts"] = json!([
            {"destination": "/a", "type": "none", "source": "/run/gcs/c/1/mounts/m0", "options": ["ro"]},
            {"destination": "/b", "type": "none", "source": "/run/gcs/c/1/mounts/m1", "options": ["rbind"]},
            {"destination": "/c", "type": "none", "source": "/x"},
            {"destination": "/d", "type": "none", "source": "/y", "options": null},
            {"destination": "/proc", "type": "proc", "source": "proc"},
        ]);
        let mounts = complete("c1", spec, None).unwrap().spec["mounts"].clone();
        assert_eq!(mounts[0]["options"], json!(["bind", "ro"]));
        assert_eq!(mounts[1]["options"], json!(["rbind"]));
        assert_eq!(mounts[2]["options"], json!(["bind"]));
        assert_eq!(mounts[3]["options"], json!(["bind"]));
        assert!((0..4).all(|index| mounts[index]["type"] == "bind"));
        assert_eq!(
            mounts[4],
            json!({"destination": "/proc", "type": "proc", "source": "proc"})
        );
    }

    #[test]
    fn sandbox_mounts_are_named_and_climbing_ones_refused() {
        let mut spec = minimal();
        spec["mounts"] = json!([
            {"destination": "/p", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/s", "type": "bind", "source": "sandbox:///a/b"},
        ]);
        assert_eq!(
            complete("c1", spec.clone(), None).unwrap().sandbox_mounts,
            [(1, "/a/b".to_owned())]
        );
        spec["mounts"][1]["source"] = json!("sandbox://../sandboxMountsX");
        let error = complete("c1", spec, None).unwrap_err().to_string();
        assert!(
            error.starts_with("mount 1, source \"sandbox://../sandboxMountsX\""),
            "{error}"
        );
    }

    #[test]
    fn what_belongs_to_the_host_is_removed_and_named() {
        let mut spec = minimal();
        spec["hooks"] = json!({"prestart": [{"path": "/bin/x"}]});
        spec["windows"] = json!({"layerFolders": ["C:\\l"]});
        spec["process"]["apparmorProfile"] = json!("docker-default");
        spec["process"]["selinuxLabel"] = json!("");
        spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO"});
        spec["linux"]["cgroupsPath"] = json!("/kubepods/x");
        spec["linux"]["namespaces"] =
            json!([{"type": "ipc", "path": "/proc/1/ns/ipc"}, {"type": "pid", "path": ""}]);
        spec["hostname"] = json!("h");
        let done = complete("c1", spec, None).unwrap();
        let starts: Vec<_> = done
            .removed
            .iter()
            .map(|line| line.split([':', ' ']).next().unwrap())
            .collect();
        assert_eq!(
            starts,
            [
                "windows",
                "hooks",
                "process.apparmorProfile",
                "linux.seccomp",
                "linux.cgroupsPath",
                "path",
                "hostname"
            ]
        );
        assert_eq!(
            done.spec["linux"]["namespaces"],
            json!([{"type": "ipc"}, {"type": "pid"}])
        );
        for gone in [
            "/hooks",
            "/windows",
            "/linux/seccomp",
            "/hostname",
            "/process/apparmorProfile",
        ] {
            assert!(done.spec.pointer(gone).is_none(), "{gone}");
        }
    }

    #[test]
    fn limits_are_the_agents_and_devices_the_runtimes() {
        let mut spec = minimal();
        let (devices, memory) = (json!([{"allow": false}]), json!({"limit": 1}));
        spec["linux"]["resources"] = json!({"devices": devices, "memory": memory});
        let done = complete("c1", spec.clone(), None).unwrap();
        assert_eq!(done.limits, json!({ "memory": memory }));
        assert_eq!(done.spec["linux"]["resources"], json!({ "devices": devices }));
        spec["linux"]["resources"] = json!({"devices": null, "pids": {}});
        let done = complete("c1", spec, None).unwrap();
        assert_eq!(done.limits, json!({"pids": {}}));
        assert!(done.spec["linux"].get("resources").is_none());
        assert_eq!(complete("c1", minimal(), None).unwrap().limits, Value::Null);
    }

    #[test]
    fn documents_without_root_or_process_are_refused() {
        for member in ["root", "process"] {
            let mut spec = minimal();
            spec.as_object_mut().unwrap().remove(member);
            assert_eq!(
                complete("c1", spec, None).unwrap_err().code(),
                0x8007_0057,
                "{member}"
            );
        }
        for (pointer, value) in [("mounts", json!({})), ("mounts", json!([1])), ("linux", json!(3))] {
            let mut spec = minimal();
            spec[pointer] = value;
            assert!(complete("c1", spec, None).is_err(), "{pointer}");
        }
        assert!(complete("c1", json!([]), None).is_err());
    }

    #[test]
    fn a_container_of_a_pod_uses_its_sandbox_and_a_sandbox_its_own() {
        let with = |kind| json!({"annotations": {CONTAINER_TYPE: kind, SANDBOX_ID: "pod1"}});
        assert_eq!(sandbox_id(&with("container")), Some("pod1"));
        assert_eq!(sandbox_id(&with("sandbox")), None);
        assert_eq!(sandbox_id(&json!({})), None);
    }
}
