//! What can go wrong with a volume.

use std::io;
use std::path::PathBuf;

/// The attempted act, its object, and why.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host keeps its reserve.
    #[error(
        "the disk of {path} has {left_mib} MiB left, and {reserve_mib} MiB are kept for the host: remove something, or lower [disk] reserve_mb"
    )]
    Reserve {
        /// The state directory.
        path: PathBuf,
        /// Free.
        left_mib: u64,
        /// Kept.
        reserve_mib: u64,
    },
    /// The program that makes file systems.
    #[error("mkfs.ext4 failed (package e2fsprogs): {reason}")]
    Mkfs {
        /// Its last words, or why it could not be run.
        reason: String,
    },
    /// A file operation failed.
    #[error("cannot {act} {path}")]
    File {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mount operation failed.
    #[error("cannot {act} a volume")]
    Mount {
        /// What was attempted.
        act: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The runtime ends.
    #[error("the supervisor is stopping")]
    Stopping,
}

impl DiskError {
    pub(super) fn file(
        act: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { act, path, source }
    }

    pub(super) fn mount(act: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Mount { act, source }
    }
}
