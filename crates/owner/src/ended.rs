//! How a container ended whose record was kept.

use serde::{Deserialize, Serialize};

/// `ended.json`: what stays of a container until somebody removes it. Nothing else of it is held any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The exit code, or 128 plus the signal's number.
    pub status: u8,
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// Why, where it was not by itself or by a signal: its VM died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
