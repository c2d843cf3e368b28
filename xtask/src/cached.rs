//! Results kept in the cache: directories named after what went into them, and a pointer to the one in use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::workspace;

/// One kind of cached result. An entry's name ends with the fingerprint of its recipe, so that a changed recipe is
/// never served from an old entry; the rest of the name says from what (package and version) it was made.
pub(crate) struct Store {
    dir: PathBuf,
}

impl Store {
    /// The store of one kind, in the cache directory.
    pub(crate) fn open(kind: &str) -> Result<Self> {
        Ok(Store::at(workspace::cache_dir()?.join(kind)))
    }

    fn at(dir: PathBuf) -> Self {
        Store { dir }
    }

    /// The entry in use, if it was made by this recipe.
    pub(crate) fn current(&self, recipe: &str) -> Option<PathBuf> {
        let name = fs::read_to_string(self.dir.join("current")).ok()?;
        let entry = self.dir.join(&name);
        (name.ends_with(recipe) && entry.is_dir()).then_some(entry)
    }

    /// The entry of an origin and a recipe, if it has been made; it becomes the one in use.
    pub(crate) fn select(&self, origin: &str, recipe: &str) -> Result<Option<PathBuf>> {
        let name = entry_name(origin, recipe);
        let entry = self.dir.join(&name);
        if !entry.is_dir() {
            return Ok(None);
        }
        fs::write(self.dir.join("current"), &name)?;
        Ok(Some(entry))
    }

    /// A directory to make an entry in, on the store's own file system, removed when dropped.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir> {
        workspace::create_dir(&self.dir)?;
        tempfile::Builder::new()
            .prefix("making-")
            .tempdir_in(&self.dir)
            .with_context(|| format!("could not make a directory in {}", self.dir.display()))
    }

    /// Moves a finished directory into the store in one step; it becomes the one in use.
    pub(crate) fn keep(&self, finished: &Path, origin: &str, recipe: &str) -> Result<PathBuf> {
        let entry = self.dir.join(entry_name(origin, recipe));
        workspace::remove_dir(&entry)?;
        fs::rename(finished, &entry)
            .with_context(|| format!("could not move a result to {}", entry.display()))?;
        self.select(origin, recipe)?
            .context("invariant: the entry was just moved there")
    }
}

fn entry_name(origin: &str, recipe: &str) -> String {
    format!("{}-{recipe}", origin.replace([':', '/', ' '], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store_with(origin: &str, recipe: &str) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path().join("kind"));
        let scratch = store.scratch().unwrap();
        let finished = scratch.path().join("ready");
        fs::create_dir(&finished).unwrap();
        fs::write(finished.join("file"), b"1").unwrap();
        store.keep(&finished, origin, recipe).unwrap();
        (dir, store)
    }

    #[test]
    fn a_kept_entry_is_the_current_one_for_its_recipe_only() {
        let (_dir, store) = store_with("linux 1:6.12", "aaaa");
        assert!(store.current("aaaa").unwrap().join("file").exists());
        assert_eq!(store.current("bbbb"), None);
    }

    #[test]
    fn another_origin_is_another_entry() {
        let (_dir, store) = store_with("linux 1:6.12", "aaaa");
        assert!(store.select("linux 1:6.13", "aaaa").unwrap().is_none());
        assert!(store.select("linux 1:6.12", "aaaa").unwrap().is_some());
    }
}
