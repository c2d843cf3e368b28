//! `cofferdam inspect` and `cofferdam state`.

mod document;
mod state;
mod table;

use anyhow::{Result, bail};
use cofferdam_owner::Root;

use self::document::Inspected;
use crate::{
    args::{Format, InspectArgs, StateArgs},
    exit::Exit,
    output::print,
};

/// `cofferdam inspect`.
pub(crate) fn execute(root: &Root, args: &InspectArgs) -> Exit {
    Exit::of(inspect(root, args))
}

/// `cofferdam state`.
pub(crate) fn state(root: &Root, args: &StateArgs) -> Exit {
    let shown = look(root, &args.id).and_then(|inspected| {
        if let Some(note) = &inspected.note {
            tracing::warn!("{}: {note}", inspected.id);
        }
        print(&(serde_json::to_string_pretty(&state::State::from(inspected))? + "\n"));
        Ok(())
    });
    Exit::of(shown)
}

/// Those that are there are shown, whatever the others are.
fn inspect(root: &Root, args: &InspectArgs) -> Result<()> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for id in &args.ids {
        match look(root, id) {
            Ok(inspected) => found.push(inspected),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&found)? + "\n",
        Format::Table => table::render(&found),
    });
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("{}", failures.join("\n")),
    }
}

fn look(root: &Root, id: &str) -> Result<Inspected> {
    Inspected::of(&root.entry(id)?)
}
