//! Volumes at a path: working directories and caches of builds.
//!
//! They are attached in the namespace of keeper and supervisor only, so they end with both; what
//! a supervisor that died alone left is taken down by [`sweep`].

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use super::image::{self, Template};
use super::volume::empty;
use super::{DiskError, Disks, Mechanism, Volume};
use crate::model::DiskLimit;
use crate::settings::Paths;
use crate::sys;

/// A cache of the build before may take so long to be unmounted.
const UNMOUNT_TIME: Duration = Duration::from_secs(3);

/// Between two looks at it.
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// What becomes of the files when the bound is lifted; with it goes which bound of the settings
/// it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing stays: a build's working directory.
    Nothing,
    /// They stay in this image, for the next time: an app's build cache.
    In(PathBuf),
}

/// A volume that is attached somewhere.
#[derive(Debug)]
pub(super) struct Attached {
    is_kept: bool,
    /// Builds of one app share its cache.
    users: usize,
    volume: Volume,
}

impl Disks {
    /// Bounds what is written below an existing directory, until [`Self::unbound`]. Where volumes
    /// cannot be had the directory stays as it is (said at start). Blocks.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn bound(&self, path: &Path, keep: &Keep) -> Result<(), DiskError> {
        if self.inner.mechanism != Mechanism::Images {
            return Ok(());
        }
        let mut attached = self
            .inner
            .attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = attached.get_mut(path) {
            there.users += 1;
            return Ok(());
        }
        self.check_room()?;
        let volume = match keep {
            Keep::Nothing => {
                let limit = self.inner.settings.build;
                let name = self
                    .inner
                    .dir
                    .join(format!(".bound-{}", uuid::Uuid::new_v4()));
                let file = Template::ensure(&self.inner.dir, limit)?.copy(&name)?;
                std::fs::remove_file(&name).map_err(DiskError::file("remove", &name))?;
                Volume::image(limit, file)?
            }
            Keep::In(image) => self.kept(image, self.inner.settings.cache)?,
        };
        let target = directory(path).map_err(DiskError::file("open", path))?;
        sys::attach(volume.root(), target.as_fd()).map_err(DiskError::file("mount at", path))?;
        // Only we put something else than files of a tenant there.
        let _ = std::fs::remove_dir(path.join("lost+found"));
        let is_kept = *keep != Keep::Nothing;
        let attached_now = Attached {
            is_kept,
            users: 1,
            volume,
        };
        attached.insert(path.to_owned(), attached_now);
        Ok(())
    }

    /// The bound that was set at this path, if what is below has reached it. What is not bounded, or
    /// cannot be looked at, has not.
    pub fn filled(&self, path: &Path) -> Option<DiskLimit> {
        let attached = self.inner.attached.lock();
        let attached = attached.unwrap_or_else(PoisonError::into_inner);
        let volume = &attached.get(path)?.volume;
        volume.is_full().unwrap_or(false).then(|| volume.limit())
    }

    /// Takes the bound from a directory, which then is empty; what is to be kept is written out.
    /// Blocks.
    pub fn unbound(&self, path: &Path) {
        let mut attached = self
            .inner
            .attached
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_last = match attached.get_mut(path) {
            None => return,
            Some(there) => {
                there.users -= 1;
                there.users == 0
            }
        };
        let Some(there) = is_last.then(|| attached.remove(path)).flatten() else {
            return;
        };
        if !there.is_kept {
            // Nobody else has this path, and others need not wait for the files to go.
            drop(attached);
            if let Err(error) = empty(path) {
                // Then the kernel writes it out for nothing, no more.
                tracing::debug!(%error, "a build's volume was not emptied");
            }
        }
        if let Err(errno) = umount2(path, MntFlags::MNT_DETACH) {
            tracing::warn!(
                "{} stays mounted until the next start: {errno}",
                path.display()
            );
        }
    }

    /// Mounts a kept image; one of another size, or that a crash left unclean, is made anew.
    fn kept(&self, path: &Path, limit: DiskLimit) -> Result<Volume, DiskError> {
        let old = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path);
        if let Ok(file) = old {
            let is_right = file.metadata().is_ok_and(|m| m.len() == limit.bytes);
            if is_right
                && becomes_clean(&file)
                && let Ok(volume) = Volume::image(limit, file)
            {
                return Ok(volume);
            }
            tracing::info!(image = %path.display(), "a build cache starts anew");
            // Another file: the kernel may still hold the old one.
            std::fs::remove_file(path).map_err(DiskError::file("remove", path))?;
        }
        let file = Template::ensure(&self.inner.dir, limit)?.copy(path)?;
        Volume::image(limit, file)
    }
}

/// The kernel unmounts when the last namespace that saw the mount is gone, a moment after its
/// dyno: nothing announces that.
fn becomes_clean(file: &File) -> bool {
    let deadline = Instant::now() + UNMOUNT_TIME;
    loop {
        if image::is_clean(file) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(UNMOUNT_PAUSE);
    }
}

fn directory(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
}

/// Takes down what a supervisor that was killed left attached in the keeper's namespace, and
/// removes files that a crash left half made.
pub fn sweep(paths: &Paths) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for parent in [paths.builds(), paths.caches()] {
        let below = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(Path::new)
            .filter(|at| at.starts_with(&parent));
        for path in below {
            if let Err(errno) = umount2(path, MntFlags::MNT_DETACH) {
                tracing::warn!("{} stays mounted: {errno}", path.display());
            }
        }
    }
    let entries = std::fs::read_dir(paths.volumes()).into_iter().flatten();
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with('.')
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "{} stays", entry.path().display());
        }
    }
}
