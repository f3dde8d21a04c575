//! What can go wrong with a stack.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{Digest, StackName};

/// The attempted act and its object.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// No such stack on this host.
    #[error(
        "stack {name} is not on this host: build it with `manifold stacks:build {name}`, or import one"
    )]
    Unknown {
        /// The stack.
        name: StackName,
    },
    /// That version of a stack is not on this host.
    #[error("version {} of stack {name} is not on this host any more", version.short())]
    UnknownVersion {
        /// The stack.
        name: StackName,
        /// The version.
        version: Digest,
    },
    /// No recipe of that name.
    #[error("there is no recipe for a stack `{name}`: {known} can be built")]
    NoRecipe {
        /// The stack.
        name: StackName,
        /// What there is.
        known: String,
    },
    /// A recipe cannot be used.
    #[error("{path} is no recipe: {reason}")]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The name is not for an import.
    #[error(
        "a stack that is imported cannot be called `{name}`: {reason}; choose another with --name"
    )]
    Reserved {
        /// The name.
        name: StackName,
        /// Why.
        reason: &'static str,
    },
    /// A program that is needed is missing.
    #[error("{program} is not installed: run `apt-get install {package}`")]
    Missing {
        /// The program.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// No Debian source is known.
    #[error(
        "/etc/apt names no Debian mirror with component main: give one with --mirror URL (and --security URL)"
    )]
    NoMirror,
    /// The mirror does not answer as one.
    #[error("the mirror {mirror} was not reached for {suite}: {reason}")]
    Mirror {
        /// Its address.
        mirror: String,
        /// What was asked for.
        suite: String,
        /// What apt said.
        reason: String,
    },
    /// mmdebstrap failed for another reason.
    #[error("mmdebstrap made no {image} image: {reason}")]
    Bootstrap {
        /// Which.
        image: &'static str,
        /// Its last words.
        reason: String,
    },
    /// The two images are of two states of the mirror.
    #[error("the mirror changed while the stack was built: build it again")]
    Moved,
    /// Not a root file system.
    #[error("{path} holds no stack: {reason}")]
    Import {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody else builds or imports.
    #[error("another build or import of a stack is under way here: wait for its end")]
    Busy,
    /// A file operation failed.
    #[error("cannot {act} {path}")]
    Io {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
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

impl RootfsError {
    pub(super) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { act, path, source }
    }
}
