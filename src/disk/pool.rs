//! Volumes that lie ready.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::bounded::Attached;
use super::image::Template;
use super::{DiskError, Usage, Volume};
use crate::model::{DiskLimit, DynoId, DynoSize};
use crate::settings::{DiskSettings, Paths};

/// Of each size in use so many are made ahead,
const AHEAD: usize = 4;

/// when fewer than so many are left: a dyno now and then only takes one and gives it back.
const LOW: usize = 2;

/// So many of one size are kept for later; more are freed.
const KEPT: usize = 16;

/// How the bound is enforced here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// ext4 images over loop devices.
    Images,
    /// tmpfs, charged to the dyno's memory.
    Memory {
        /// Why images are not to be had.
        reason: String,
    },
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Images => f.write_str("bounded by ext4 images over loop devices"),
            Self::Memory { reason } => {
                write!(
                    f,
                    "bounded by tmpfs in the dyno's memory, builds not at all: {reason}"
                )
            }
        }
    }
}

/// All volumes of one state directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Disks {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) state: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) settings: DiskSettings,
    pub(super) mechanism: Mechanism,
    ready: Mutex<HashMap<DiskLimit, Ready>>,
    live: Mutex<HashMap<DynoId, Arc<Volume>>>,
    pub(super) attached: Mutex<HashMap<PathBuf, Attached>>,
}

#[derive(Debug, Default)]
struct Ready {
    volumes: Vec<Volume>,
    /// Being made.
    coming: usize,
}

impl Disks {
    /// Looks for what this host offers, by making a first volume, and sweeps what an earlier
    /// supervisor of the same keeper left attached.
    pub fn open(paths: &Paths, settings: DiskSettings) -> Self {
        super::bounded::sweep(paths);
        let limit = DynoSize::default().disk;
        let dir = paths.volumes();
        let first = make_image(&dir, limit);
        let mechanism = match &first {
            Ok(_) => Mechanism::Images,
            Err(error) => {
                let source = std::error::Error::source(error);
                let reason = match source {
                    Some(source) => format!("{error}: {source}"),
                    None => error.to_string(),
                };
                Mechanism::Memory { reason }
            }
        };
        let mut ready = HashMap::new();
        if let Ok(volume) = first {
            let volumes = vec![volume];
            ready.insert(limit, Ready { volumes, coming: 0 });
        }
        let disks = Self {
            inner: Arc::new(Inner {
                state: paths.state().to_owned(),
                dir,
                settings,
                mechanism,
                ready: Mutex::new(ready),
                live: Mutex::default(),
                attached: Mutex::default(),
            }),
        };
        disks.refill(limit);
        disks
    }

    /// How the bound is enforced.
    pub fn mechanism(&self) -> &Mechanism {
        &self.inner.mechanism
    }

    /// Free bytes below the state directory, and how many of them are kept for the host.
    ///
    /// # Errors
    /// The errno of statvfs(3).
    pub fn room(&self) -> std::io::Result<(u64, u64)> {
        let stat = nix::sys::statvfs::statvfs(&self.inner.state)?;
        let unit = stat.fragment_size();
        let reserve = self
            .inner
            .settings
            .reserve(stat.blocks().saturating_mul(unit));
        Ok((stat.blocks_available() * unit, reserve))
    }

    /// An empty volume for a dyno; it is known by the dyno's id until [`Self::put_back`].
    ///
    /// # Errors
    /// See [`DiskError`].
    pub async fn take(&self, dyno: DynoId, limit: DiskLimit) -> Result<Arc<Volume>, DiskError> {
        self.check_room()?;
        let found = self.inner.pop(limit);
        self.refill(limit);
        let volume = if let Some(volume) = found {
            volume
        } else {
            let inner = Arc::clone(&self.inner);
            tokio::task::spawn_blocking(move || inner.make(limit))
                .await
                .map_err(|_| DiskError::Stopping)??
        };
        let volume = Arc::new(volume);
        self.inner.live().insert(dyno, Arc::clone(&volume));
        Ok(volume)
    }

    /// The volume of a dyno that an earlier supervisor launched, by its root (a mount) and its image
    /// (none: a tmpfs).
    ///
    /// # Errors
    /// The errno of fstat(2); the device has no name any more.
    pub fn inherit(
        &self,
        dyno: DynoId,
        limit: DiskLimit,
        root: OwnedFd,
        image: Option<std::fs::File>,
    ) -> std::io::Result<Arc<Volume>> {
        let volume = Arc::new(Volume::inherited(limit, root, image)?);
        self.inner.live().insert(dyno, Arc::clone(&volume));
        Ok(volume)
    }

    /// After a dyno's end: the volume is emptied for the next one. Blocks.
    pub fn put_back(&self, dyno: DynoId, volume: Arc<Volume>) {
        self.inner.live().remove(&dyno);
        // Somebody looks at its usage this very moment: freed when that is over.
        let Some(volume) = Arc::into_inner(volume) else {
            return;
        };
        let limit = volume.limit();
        if self
            .inner
            .ready()
            .get(&limit)
            .map_or(0, |r| r.volumes.len())
            >= KEPT
        {
            // Emptied first: unmounting would write what is dirty.
            drop(volume.renew());
        } else if let Some(volume) = volume.renew() {
            self.inner.push(volume);
        }
    }

    /// After the end of a dyno that something of stays: its volume ends with that.
    pub fn give_up(&self, dyno: DynoId) {
        self.inner.live().remove(&dyno);
    }

    /// What the volumes of living dynos use.
    pub fn usages(&self) -> Vec<(DynoId, DiskLimit, Usage)> {
        let live: Vec<(DynoId, Arc<Volume>)> = {
            let live = self.inner.live();
            live.iter().map(|(id, v)| (*id, Arc::clone(v))).collect()
        };
        live.into_iter()
            .filter_map(|(id, volume)| Some((id, volume.limit(), volume.usage().ok()?)))
            .collect()
    }

    /// What idle volumes take of the host's disk.
    pub fn idle_bytes(&self) -> u64 {
        let ready = self.inner.ready();
        let volumes = ready.values().flat_map(|r| &r.volumes);
        volumes
            .filter_map(|v| Some(v.usage().ok()?.host_bytes))
            .sum()
    }

    /// Refuses new volumes when the host's reserve is reached.
    pub(super) fn check_room(&self) -> Result<(), DiskError> {
        let (left, reserve) = self
            .room()
            .map_err(DiskError::file("look at", &self.inner.state))?;
        if left < reserve {
            return Err(DiskError::Reserve {
                path: self.inner.state.clone(),
                left_mib: left >> 20,
                reserve_mib: reserve >> 20,
            });
        }
        Ok(())
    }

    fn refill(&self, limit: DiskLimit) {
        if self.inner.mechanism != Mechanism::Images {
            return;
        }
        let missing = {
            let mut ready = self.inner.ready();
            let entry = ready.entry(limit).or_default();
            let there = entry.volumes.len() + entry.coming;
            let missing = if there < LOW { AHEAD - there } else { 0 };
            entry.coming += missing;
            missing
        };
        if missing == 0 {
            return;
        }
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            for _ in 0..missing {
                let made = inner.make(limit);
                let mut ready = inner.ready();
                let entry = ready.entry(limit).or_default();
                entry.coming -= 1;
                match made {
                    Ok(volume) => entry.volumes.push(volume),
                    // The launch tries again, and says what failed.
                    Err(error) => tracing::debug!(%error, "no volume made ahead"),
                }
            }
        });
    }
}

impl Inner {
    fn ready(&self) -> std::sync::MutexGuard<'_, HashMap<DiskLimit, Ready>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<DynoId, Arc<Volume>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self, limit: DiskLimit) -> Option<Volume> {
        self.ready().get_mut(&limit)?.volumes.pop()
    }

    fn push(&self, volume: Volume) {
        let mut ready = self.ready();
        ready
            .entry(volume.limit())
            .or_default()
            .volumes
            .push(volume);
    }

    fn make(&self, limit: DiskLimit) -> Result<Volume, DiskError> {
        match self.mechanism {
            Mechanism::Images => make_image(&self.dir, limit),
            Mechanism::Memory { .. } => Volume::memory(limit),
        }
    }
}

/// A volume whose file has no name: it ends with its last descriptor.
fn make_image(dir: &Path, limit: DiskLimit) -> Result<Volume, DiskError> {
    let path = dir.join(format!(".volume-{}", uuid::Uuid::new_v4()));
    let file = Template::ensure(dir, limit)?.copy(&path)?;
    std::fs::remove_file(&path).map_err(DiskError::file("remove", &path))?;
    let volume = Volume::image(limit, file)?;
    super::volume::lay_out(&volume.path()).map_err(DiskError::mount("lay out"))?;
    Ok(volume)
}
