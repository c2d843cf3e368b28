//! Looking at the host's files, once, so that planning need not.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cofferdam_plan::{Facts, FileFacts, FileId, FileKind, Plan, PlanError, PlanRequest, plan, wanted};

/// What speaks against a regular file as a disk image, in words; the backend knows which formats it can attach.
pub type ImageCheck<'a> = &'a (dyn Fn(&Path) -> Result<(), String> + Sync);

/// The facts about these paths.
#[must_use]
pub fn gather(paths: Vec<PathBuf>, check_image: ImageCheck<'_>) -> Facts {
    let mut facts = Facts::default();
    for path in paths {
        let found = look_at(&path, check_image);
        facts.insert(path, found);
    }
    facts
}

/// Looks at the host's files that a request speaks of, and plans.
///
/// # Errors
/// Those of [`plan`].
pub fn planned(request: PlanRequest<'_>, check_image: ImageCheck<'_>) -> Result<Plan, PlanError> {
    let facts = gather(wanted(request.spec, request.bundle), check_image);
    plan(request, &facts)
}

fn look_at(path: &Path, check_image: ImageCheck<'_>) -> io::Result<FileFacts> {
    let metadata = fs::metadata(path)?;
    let kind = if metadata.is_dir() {
        FileKind::Directory
    } else if metadata.is_file() {
        FileKind::File {
            bytes: metadata.len(),
        }
    } else if metadata.file_type().is_block_device() {
        FileKind::BlockDevice
    } else {
        FileKind::Other
    };
    let identity = match kind {
        FileKind::BlockDevice => FileId {
            device: metadata.rdev(),
            inode: 0,
        },
        _ => FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        },
    };
    let image_problem = match kind {
        FileKind::File { .. } => check_image(path).err(),
        _ => None,
    };
    Ok(FileFacts {
        kind,
        identity,
        image_problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_to_one_file_have_one_identity() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "x").unwrap();
        std::os::unix::fs::symlink(&one, &two).unwrap();
        let identity = |path| look_at(path, &|_| Ok(())).unwrap().identity;
        assert_eq!(identity(&one), identity(&two));
        assert_ne!(identity(&one), identity(dir.path()));
    }

    #[test]
    fn only_files_are_checked_as_images() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let refused = |path| {
            look_at(path, &|_| Err("damaged".to_owned()))
                .unwrap()
                .image_problem
        };
        assert_eq!(refused(&file), Some("damaged".to_owned()));
        assert_eq!(refused(dir.path()), None);
    }
}
