//! Bounds on directories of builds, past the driver: nothing there decides which dynos live.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Failure, Machine, Supervisor};
use crate::disk::Keep;

/// The machine, as a handle may have it.
#[derive(Clone)]
pub(super) struct Handle(pub(super) Arc<dyn Machine>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl Supervisor {
    /// Bounds what is written below an existing, empty directory, until [`Self::unbound`].
    ///
    /// # Errors
    /// The host keeps its reserve, or a volume cannot be made.
    pub async fn bound(&self, path: PathBuf, keep: Keep) -> Result<(), Failure> {
        self.machine.0.bound(path, keep).await
    }

    /// That bound in bytes, if it is reached: nothing more can be written there.
    pub fn filled(&self, path: &Path) -> Option<u64> {
        self.machine.0.filled(path)
    }

    /// Takes that bound away, with what is in it unless it is kept. Blocks.
    pub fn unbound(&self, path: &Path) {
        self.machine.0.unbound(path);
    }
}
