//! What a dyno changed of its files.

use serde::{Deserialize, Serialize};

use super::Named;

/// The files that a dyno changed since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Whose.
    pub dyno: Named,
    /// Sorted by path.
    pub changes: Vec<Change>,
    /// Further ones that are not listed.
    pub left_out: usize,
    /// False if the dyno has too many files to look at all of them.
    pub is_complete: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `A` added, `M` modified, `D` deleted.
    pub change: String,
    /// `file`, `directory`, `link` or `other`; of a deleted one, what it was.
    pub kind: String,
    /// Absolute; in double quotes with the escapes of C where it has odd characters.
    pub path: String,
    /// Bytes of a file or link that is there.
    pub size: Option<u64>,
}
