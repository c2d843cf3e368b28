//! The journal's lines.

use std::path::PathBuf;

use cofferdam_ledger::{Request, device::FileKey};
use serde::{Deserialize, Serialize};

/// Numbers the steps of one journal, from 1.
pub type StepNumber = u64;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// A step is about to be performed.
    Begin {
        /// Its number.
        step: StepNumber,
        /// What is done.
        request: Request,
    },
    /// A step has ended.
    End {
        /// Its number.
        step: StepNumber,
        /// Why it failed; absent where it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A file is about to be taken that is deleted once its disk is out.
    Manages(ManagedFile),
    /// Such a file was given back as it is: its container never was.
    Keeps(ManagedFile),
}

/// A file that is deleted on release. Another file that has come to its path since is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManagedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Which file it is.
    pub key: FileKey,
}
