//! What can go wrong with a stack.

use std::io;
use std::path::PathBuf;

use crate::model::StackName;

/// The attempted act and its object.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// No such stack on this host.
    #[error(
        "stack {name} is not on this host: expected {path} (build it with `cargo xtask stack build {name}`)"
    )]
    Unknown {
        /// The stack.
        name: StackName,
        /// Where it would lie.
        path: PathBuf,
    },
    /// The `host` stack's skeleton could not be made.
    #[error("cannot make {path} for the host stack")]
    Skeleton {
        /// What was being made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
