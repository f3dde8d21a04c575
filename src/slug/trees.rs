//! Slugs unpacked once, shared by all dynos that run them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::sync::Mutex as AsyncMutex;

use super::SlugError;
use super::worker::{extract_piped, extract_slug};
use crate::model::Digest;
use crate::settings::Paths;
use crate::sys;

type Gates = Arc<Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>>;

/// Room between who packs and who unpacks.
const PIPE_BYTES: i32 = 1 << 20;

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
        let part = Part::make(&self.paths)?;
        let error = match extract_slug(&self.paths.slug(&digest), &part.path).await {
            Ok(actual) if actual == digest => {
                return part.place(tree).map_err(SlugError::file("name", tree));
            }
            Ok(actual) => SlugError::Checksum {
                expected: digest,
                actual,
            },
            // An archive that cannot be parsed is one whose bytes changed: say which.
            Err(error) => match actual_digest(&self.paths.slug(&digest)).await {
                Some(actual) if actual != digest => SlugError::Checksum {
                    expected: digest,
                    actual,
                },
                _ => error,
            },
        };
        part.remove().await;
        Err(error)
    }

    /// Begins to unpack a slug that is being packed: what is written into the file comes out as its
    /// tree, by the same confined process and rules as any other slug.
    ///
    /// # Errors
    /// No directory or pipe can be made.
    pub fn beside(&self) -> Result<(Beside, File), SlugError> {
        let part = Part::make(&self.paths)?;
        let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (slug, end) =
            pipe.map_err(|errno| SlugError::file("make a pipe to", &part.path)(errno.into()))?;
        // A smaller pipe works too, but then either waits for the other more often.
        let _ = fcntl(&end, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let trees = self.clone();
        Ok((Beside { trees, slug, part }, end.into()))
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

/// A slug that is unpacked while it is packed.
#[derive(Debug)]
pub struct Beside {
    trees: Trees,
    slug: OwnedFd,
    part: Part,
}

impl Beside {
    /// Unpacks until the slug is complete.
    pub async fn run(self) -> Unpacked {
        let result = extract_piped(self.slug, &self.part.path).await;
        Unpacked {
            trees: self.trees,
            part: self.part,
            result,
        }
    }
}

/// What came of it. Removed when dropped.
#[derive(Debug)]
#[must_use]
pub struct Unpacked {
    trees: Trees,
    part: Part,
    result: Result<Digest, SlugError>,
}

impl Unpacked {
    /// Makes it the tree of the slug with this digest, if it is just that. Where it is not, the
    /// first dyno's launch finds no tree, unpacks the slug and says what is wrong.
    pub fn keep(self, digest: Digest) {
        match self.result {
            Ok(actual) if actual == digest => {
                let tree = self.trees.paths.tree(&digest);
                if let Err(error) = self.part.place(&tree) {
                    tracing::warn!(tree = %tree.display(), %error, "a tree is not in its place");
                }
            }
            Ok(actual) => tracing::warn!(%digest, %actual, "another slug was unpacked"),
            Err(error) => tracing::debug!(%digest, %error, "a slug was not unpacked"),
        }
    }

    /// There is no such slug.
    pub async fn discard(self) {
        self.part.remove().await;
    }
}

/// A tree that is not complete. Removed when dropped, unless it is settled: put in its place, or
/// removed already.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    is_settled: bool,
}

impl Part {
    fn make(paths: &Paths) -> Result<Self, SlugError> {
        let name = format!(".part-{}", uuid::Uuid::new_v4());
        let path = paths.trees().join(name);
        std::fs::create_dir(&path).map_err(SlugError::file("make", &path))?;
        Ok(Self {
            path,
            is_settled: false,
        })
    }

    /// By one rename. One that is there already has the same bytes.
    fn place(mut self, tree: &Path) -> io::Result<()> {
        match std::fs::rename(&self.path, tree) {
            Ok(()) => {
                self.is_settled = true;
                Ok(())
            }
            Err(_) if tree.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The blocking work of removing it.
    fn removal(&mut self) -> impl FnOnce() + Send + use<> {
        self.is_settled = true;
        let path = std::mem::take(&mut self.path);
        move || {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "a half-made tree stays");
            }
        }
    }

    /// Whoever is told of the failure finds it gone.
    async fn remove(mut self) {
        if let Err(error) = tokio::task::spawn_blocking(self.removal()).await {
            tracing::warn!(%error, "a half-made tree stays");
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_settled {
            sys::in_background(self.removal());
        }
    }
}

async fn actual_digest(archive: &Path) -> Option<Digest> {
    let archive = archive.to_owned();
    let hash = move || super::digest_of(File::open(archive).ok()?).ok();
    tokio::task::spawn_blocking(hash)
        .await
        .ok()
        .flatten()
        .map(|(digest, _)| digest)
}
