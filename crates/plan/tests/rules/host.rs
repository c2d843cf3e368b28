//! A host with a few files, and plans made there.

use std::path::Path;

use cofferdam_plan::{
    Facts, FileFacts, FileId, FileKind, Plan, PlanError, PlanRequest, ShareNeed, Spec, plan,
};
use serde_json::{Value, json};

pub(crate) const ROOT: &str = "/run/gcs/c/1";
pub(crate) const FILE: FileKind = FileKind::File { bytes: 4096 };

/// What there is on the host: paths with their kinds, images without fault.
pub(crate) struct Host(pub(crate) Vec<(&'static str, FileKind)>);

impl Host {
    pub(crate) fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for (inode, (path, kind)) in self.0.iter().enumerate() {
            let identity = FileId {
                device: 1,
                inode: inode as u64,
            };
            let found = FileFacts {
                kind: *kind,
                identity,
                image_problem: None,
            };
            facts.insert(path.into(), Ok(found));
        }
        facts
    }
}

pub(crate) fn host() -> Host {
    Host(vec![
        ("/l/2/layer.vhd", FILE),
        ("/l/1/layer.vhd", FILE),
        ("/l/s/sandbox.vhdx", FILE),
        ("/bundle/l1/layer.vhd", FILE),
        ("/bundle/ls/sandbox.vhdx", FILE),
        ("/bundle/rootfs", FileKind::Directory),
        ("/srv/data", FileKind::Directory),
        ("/bundle/data", FileKind::Directory),
        ("/etc/hosts", FILE),
        ("/etc/passwd", FILE),
        ("/d.vhdx", FILE),
        ("/dev/sdb", FileKind::BlockDevice),
        ("/run/socket", FileKind::Other),
    ])
}

pub(crate) fn planned_with(spec: &Value, process_isolation: bool, facts: &Facts) -> Result<Plan, PlanError> {
    let spec = Spec::parse(&spec.to_string()).unwrap();
    let before = spec.clone();
    let request = PlanRequest {
        spec: &spec,
        bundle: Path::new("/bundle"),
        container_root: ROOT,
        process_isolation,
    };
    let result = plan(request, facts);
    assert_eq!(spec, before, "the caller's spec is never changed");
    result
}

pub(crate) fn planned(spec: &Value) -> Result<Plan, PlanError> {
    planned_with(spec, false, &host().facts())
}

pub(crate) fn without_vm(spec: &Value) -> Result<Plan, PlanError> {
    planned_with(spec, true, &host().facts())
}

/// A spec with a good root and these mounts.
pub(crate) fn mounts(mounts: Value) -> Value {
    json!({"root": {"path": "rootfs"}, "mounts": mounts})
}

pub(crate) fn mount(kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": "/m", "type": kind, "source": source, "options": options})
}

/// The plan of one mount at index 1, after one that is left as it is.
pub(crate) fn one(kind: &str, source: &str, options: &[&str]) -> Result<Plan, PlanError> {
    let first = json!({"destination": "/proc", "type": "proc"});
    planned(&mounts(json!([first, mount(kind, source, options)])))
}

/// A refusal's text, which must begin as the contract says.
pub(crate) fn refused(
    result: Result<Plan, PlanError>,
    mount_index: Option<usize>,
    beginning: &str,
) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.mount_index, mount_index);
    let text = error.refusal.to_string();
    assert!(
        text.starts_with(beginning),
        "{text:?} does not begin with {beginning:?}"
    );
    text
}

pub(crate) fn shares_of_mounts(plan: &Plan) -> Vec<&ShareNeed> {
    let shares = plan.needs.shares.iter();
    shares.filter(|share| share.mount_index.is_some()).collect()
}
