//! `cofferdam run IMAGE`: an image of the store as a bundle of its own, with a scratch disk, for as long as it runs.

mod bundle;
mod find;
mod wishes;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cofferdam_container::facts;
use cofferdam_owner::Owned;
use cofferdam_plan::{Plan, PlanError, PlanRequest, Spec, plan, wanted};

use self::{bundle::ImageBundle, find::Request};
use crate::{
    args::{ImageRunArgs, Pull, RunArgs, Target},
    plan::spec_at,
};

/// What running an image of the store would take. Nothing is pulled and nothing made: what would be made is taken for
/// there.
pub(crate) fn plan_of_image(
    options: &ImageRunArgs,
    name: &str,
    container_root: &str,
    process_isolation: bool,
) -> Result<Result<Plan, PlanError>> {
    let bundle = find::bundle(Request {
        name,
        options,
        pull: Pull::Never,
        command: Vec::new(),
        terminal: false,
        process_isolation,
        id: "planned",
    })?;
    let spec = Spec::parse(&bundle.specified.spec.to_string())?;
    let paths = wanted(&spec, bundle.dir());
    let mut facts = facts::gather(paths.clone(), &cofferdam_image::check);
    for (path, number) in paths.into_iter().zip(1..) {
        if !path.exists()
            && let Some(expected) = bundle.expected(&path, number)
        {
            facts.insert(path, Ok(expected));
        }
    }
    let request = PlanRequest {
        spec: &spec,
        bundle: bundle.dir(),
        container_root,
        process_isolation,
    };
    Ok(plan(request, &facts))
}

/// What is run: the container of a bundle that is there, or of one that is made for an image.
pub(crate) struct Subject {
    /// The container's name.
    pub(crate) id: String,
    /// Whether the container reads this process's standard input.
    pub(crate) interactive: bool,
    terminal: bool,
    kind: Kind,
}

enum Kind {
    Bundle(PathBuf),
    Image(Box<ImageBundle>),
}

impl Subject {
    /// Looks for it. An image is pulled if that is asked for; nothing else is touched.
    pub(crate) fn find(args: &RunArgs, target: Target) -> Result<Self> {
        let made_up = || format!("cofferdam-{}", std::process::id());
        let (id, kind) = match target {
            Target::Bundle { dir, id } => (id.unwrap_or_else(made_up), Kind::Bundle(dir)),
            Target::Image { image, command } => {
                let id = args.name.clone().unwrap_or_else(made_up);
                let bundle = find::bundle(Request {
                    name: &image,
                    options: &args.image,
                    pull: args.image.pull,
                    command,
                    terminal: args.tty,
                    process_isolation: args.no_vm,
                    id: &id,
                })?;
                (id, Kind::Image(Box::new(bundle)))
            }
        };
        Ok(Self {
            id,
            interactive: args.interactive || matches!(kind, Kind::Bundle(_)),
            terminal: args.tty,
            kind,
        })
    }

    /// The bundle's directory: that of an image is there once it was made.
    pub(crate) fn dir(&self) -> &Path {
        match &self.kind {
            Kind::Bundle(dir) => dir,
            Kind::Image(bundle) => bundle.dir(),
        }
    }

    /// Whether the bundle is somebody's, and there already: then it is looked at before anything is taken.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self.kind, Kind::Bundle(_))
    }

    /// Makes what is not there, after its owner has noted where.
    pub(crate) fn make(&self, owned: &mut Owned) -> Result<()> {
        match &self.kind {
            Kind::Bundle(_) => Ok(()),
            Kind::Image(bundle) => bundle.make(owned),
        }
    }

    /// The spec.
    pub(crate) fn spec(&self, bundle: &Path) -> Result<Spec> {
        let spec = spec_at(&bundle.join("config.json"))?;
        Ok(if self.terminal { spec.with_terminal() } else { spec })
    }

    /// Removes what was made, once nothing is mounted from it.
    pub(crate) fn remove(self) -> Result<()> {
        match self.kind {
            Kind::Bundle(_) => Ok(()),
            Kind::Image(bundle) => bundle.remove(),
        }
    }
}
