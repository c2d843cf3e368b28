//! A plan shown to people and scripts: table, JSON, HCS documents.
//!
//! [`explain`] reserves the plan on an empty ledger and takes its leases through the ledger's steps, each of them
//! succeeding at once: the same code decides as when a container is allocated, so what is shown is what would happen.
//! Nothing is started and nothing is touched.
//!
//! * [`Explanation`] is the JSON document, once serialized ([`Explanation::json`]).
//! * [`Explanation::table`] is for a person.
//! * [`Explanation::hcs`] has the documents of the Windows Host Compute Service.
//! * [`explain_pod`] does the same for several containers of one VM, which share what they have in common.
//! * [`RefusalDocument`] says in JSON why there is no plan.
//!
//! ```
//! use cofferdam_explain::explain;
//! use cofferdam_ledger::address::Limits;
//! use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, PlanRequest, Spec, plan};
//!
//! let spec = Spec::parse(r#"{"root": {"path": "/srv/root", "readonly": true}}"#)?;
//! let mut facts = Facts::default();
//! let root = FileFacts {
//!     kind: FileKind::Directory,
//!     identity: FileId { device: 1, inode: 2 },
//!     image_problem: None,
//! };
//! facts.insert("/srv/root".into(), Ok(root));
//! let request = PlanRequest {
//!     spec: &spec,
//!     bundle: "/bundle".as_ref(),
//!     container_root: "/run/gcs/c/1",
//!     process_isolation: false,
//! };
//! let explanation = explain(&plan(request, &facts)?, Limits::default(), false)?;
//! assert_eq!(explanation.resources.shares[0].guest_path, "/run/gcs/c/1/rootfs");
//! print!("{}", explanation.table());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod columns;
mod document;
mod explanation;
mod hcs;
mod pod;
mod refusal;
mod rows;
mod steps;
mod table;

pub use crate::{
    document::{DeviceDocument, DiskDocument, LayerDocument, LimitsDocument, Resources, ShareDocument},
    explanation::{ExplainError, Explanation, explain},
    hcs::{HcsRequest, HcsSettings},
    pod::{ContainerExplanation, ExplainPodError, PodExplanation, explain_pod},
    refusal::RefusalDocument,
};
