//! Slugs unpacked once, shared by all dynos that run them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use super::SlugError;
use super::worker::extract_slug;
use crate::model::Digest;
use crate::settings::Paths;

type Gates = Arc<Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>>;

/// The unpacked slugs of a state directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trees {
    paths: Paths,
    gates: Gates,
}

impl Trees {
    /// The trees below a state directory.
    pub fn new(paths: &Paths) -> Self {
        Self {
            paths: paths.clone(),
            gates: Gates::default(),
        }
    }

    /// The directory of an unpacked slug (with `app/` in it), unpacking it the first time.
    /// Parallel callers wait for one unpack.
    ///
    /// # Errors
    /// [`SlugError::Checksum`] when the bytes are not those of the name; nothing is left then.
    pub async fn ensure(&self, digest: Digest) -> Result<PathBuf, SlugError> {
        let tree = self.paths.tree(&digest);
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(digest).or_default())
        };
        let _one_at_a_time = gate.lock().await;
        if !tree.is_dir() {
            self.unpack(digest, &tree).await?;
        }
        Ok(tree)
    }

    async fn unpack(&self, digest: Digest, tree: &Path) -> Result<(), SlugError> {
        let part = self
            .paths
            .trees()
            .join(format!(".part-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&part).map_err(SlugError::file("make", &part))?;
        let result = match extract_slug(&self.paths.slug(&digest), &part).await {
            Ok(actual) if actual != digest => Err(SlugError::Checksum {
                expected: digest,
                actual,
            }),
            Ok(_) => std::fs::rename(&part, tree).map_err(SlugError::file("name", tree)),
            // An archive that cannot be parsed is one whose bytes changed: say which.
            Err(error) => match actual_digest(&self.paths.slug(&digest)).await {
                Some(actual) if actual != digest => Err(SlugError::Checksum {
                    expected: digest,
                    actual,
                }),
                _ => Err(error),
            },
        };
        if result.is_err() {
            let _ = tokio::fs::remove_dir_all(&part).await;
        }
        result
    }

    /// Removes what an interrupted unpack left.
    pub fn sweep(&self) {
        for entry in std::fs::read_dir(self.paths.trees())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(".part-")
                && let Err(error) = std::fs::remove_dir_all(entry.path())
            {
                tracing::warn!("cannot remove {}: {error}", entry.path().display());
            }
        }
    }
}

async fn actual_digest(archive: &Path) -> Option<Digest> {
    let archive = archive.to_owned();
    let hash = move || super::digest_of(std::fs::File::open(archive).ok()?).ok();
    tokio::task::spawn_blocking(hash)
        .await
        .ok()
        .flatten()
        .map(|(digest, _)| digest)
}
