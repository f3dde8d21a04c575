//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;

/// The attempted act, its file, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system is mounted, or none of the controllers we need.
    #[error("no cgroup hierarchy with the memory, cpu and pids controllers is mounted")]
    NotMounted,
    /// A group could not be made.
    #[error("cannot make cgroup {path}")]
    Make {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A limit could not be set.
    #[error("cannot write {value} to {path}")]
    Write {
        /// The control file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A control file could not be opened or read.
    #[error("cannot read {path}")]
    Read {
        /// The control file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A group could not be removed in time.
    #[error("cannot remove cgroup {path}")]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
