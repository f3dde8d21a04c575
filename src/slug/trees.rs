//! Slugs unpacked once, shared by all dynos that run them.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::SlugError;
use super::blocks::Lately;
use super::mark;
use super::pack::{Packed, names, pack_beside};
use super::twin::Twin;
use super::walk::open_dir;
use super::worker::extract_slug;
use crate::model::Digest;
use crate::settings::Paths;
use crate::sys;

/// Until a new tree is brought to disk: its release is to be recorded and its dynos are to be up by
/// then, which would wait for that.
const SETTLE: Duration = Duration::from_secs(5);

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

    /// Packs the tree of `app_dir` as [`super::pack`] does, and makes the slug's own tree at the same
    /// time, of the same bytes. What did not change since the slug `before` is taken from there and
    /// from its tree: neither the new slug nor the new tree depends on that.
    ///
    /// # Errors
    /// As for [`super::pack`]; no tree is left then.
    pub fn pack(
        &self,
        app_dir: &Path,
        before: Option<Digest>,
        lately: &Lately,
    ) -> Result<(Packed, Made), SlugError> {
        let mut part = Part::make(&self.paths)?;
        match self.pack_into(&part.path, app_dir, before, lately) {
            Ok((packed, result)) => {
                let tree = self.paths.tree(&packed.digest);
                Ok((packed, Made { tree, part, result }))
            }
            Err(error) => {
                part.removal()();
                Err(error)
            }
        }
    }

    fn pack_into(
        &self,
        part: &Path,
        app_dir: &Path,
        before: Option<Digest>,
        lately: &Lately,
    ) -> Result<(Packed, io::Result<()>), SlugError> {
        sys::give_to_app(part).map_err(SlugError::file("give away", part))?;
        let tree = before.map(|digest| self.paths.tree(&digest));
        let twin = Twin::new(part, tree.as_deref());
        let twin = twin.map_err(SlugError::file("make a tree in", part))?;
        let like = before.or_else(|| self.alike(app_dir, lately));
        let known = like.and_then(|digest| {
            let slug = File::open(self.paths.slug(&digest)).ok()?;
            lately.source(&digest, slug)
        });
        let slugs = self.paths.slugs();
        let (packed, blocks, result) = pack_beside(app_dir, &slugs, known, Some(twin))?;
        lately.keep(packed.digest, blocks, before.as_ref());
        Ok((packed, result))
    }

    /// The latest slug, of whichever app, that the same buildpacks made: an app's first slug has much of
    /// what that one has. Only its blocks are taken: of a file in both trees, apps could tell that it
    /// has a second name.
    pub(super) fn alike(&self, app_dir: &Path, lately: &Lately) -> Option<Digest> {
        let ours = start_up_files(app_dir)?;
        let mut known = lately.digests().into_iter();
        known.find(|digest| {
            start_up_files(&self.paths.tree(digest).join("app")).as_ref() == Some(&ours)
        })
    }

    /// Removes what an interrupted unpack left, and what the machine's last end may have spoilt. To
    /// be called before any tree is used.
    pub fn sweep(&self) {
        let open = mark::review(&self.paths);
        sys::later(SETTLE, move || {
            for tree in &open {
                mark::settle(tree);
            }
        });
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

/// Names of start-up files, which tell buildpacks apart. None where there are none.
fn start_up_files(app: &Path) -> Option<BTreeSet<OsString>> {
    let app = File::open(app).ok()?;
    let dir = open_dir(&app, OsStr::new(".profile.d")).ok()?;
    names(&dir).ok().filter(|names| !names.is_empty())
}

/// The tree of a slug that was just packed. Removed when dropped.
#[derive(Debug)]
#[must_use]
pub struct Made {
    tree: PathBuf,
    part: Part,
    result: io::Result<()>,
}

impl Made {
    /// Puts it in its place. Where that cannot be, the first dyno's launch finds no tree and unpacks
    /// the slug.
    pub fn keep(self) {
        let tree = self.tree;
        if let Err(error) = self.result.and_then(|()| self.part.place(&tree)) {
            tracing::warn!(tree = %tree.display(), %error, "a tree is not in its place");
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

    /// By one rename; its bytes follow to the disk. One that is there already has the same bytes.
    fn place(mut self, tree: &Path) -> io::Result<()> {
        match std::fs::rename(&self.path, tree) {
            Ok(()) => {
                self.is_settled = true;
                let tree = tree.to_owned();
                sys::later(SETTLE, move || mark::settle(&tree));
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
