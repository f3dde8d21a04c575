//! What can go wrong with a slug.

use std::io;
use std::path::PathBuf;

use crate::model::Digest;

/// The attempted act and its object.
#[derive(Debug, thiserror::Error)]
pub enum SlugError {
    /// An archive or directory of ours.
    #[error("cannot {act} {path}")]
    File {
        /// In words.
        act: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive itself is not acceptable.
    #[error("the archive is refused: {0}")]
    Refused(String),
    /// The bytes are not those that were recorded (R17).
    #[error("checksum mismatch: expected SHA256:{expected}, got SHA256:{actual}")]
    Checksum {
        /// As recorded.
        expected: Digest,
        /// Of the bytes that were unpacked.
        actual: Digest,
    },
    /// The unpacking process.
    #[error("the unpacking process failed: {0}")]
    Worker(String),
}

impl SlugError {
    /// For `map_err`.
    pub(super) fn file(
        act: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { act, path, source }
    }
}
