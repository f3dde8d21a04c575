//! One bounded file system.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::sys::statvfs::fstatvfs;

use super::{DiskError, image};
use crate::model::DiskLimit;
use crate::sys;

/// What is used of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes used inside.
    pub used_bytes: u64,
    /// Inodes used inside.
    pub used_inodes: u64,
    /// What it takes of the host's disk (deleted files count until they are trimmed).
    pub host_bytes: u64,
}

/// A bounded file system that only descriptors lead to.
#[derive(Debug)]
pub struct Volume {
    pub(super) limit: DiskLimit,
    /// The mount: its own root. Handed to a dyno once, then made anew.
    root: OwnedFd,
    /// The image and its device; `None`: a tmpfs.
    image: Option<(File, PathBuf)>,
}

impl Volume {
    pub(super) fn image(limit: DiskLimit, file: File) -> Result<Self, DiskError> {
        let (root, device) = image::mount_file(&file)?;
        Ok(Self {
            limit,
            root,
            image: Some((file, device)),
        })
    }

    pub(super) fn memory(limit: DiskLimit) -> Result<Self, DiskError> {
        let volume = Self {
            limit,
            root: image::mount_memory(limit)?,
            image: None,
        };
        lay_out(&volume.path()).map_err(DiskError::mount("lay out"))?;
        Ok(volume)
    }

    /// One that somebody else made: a mount, and its image.
    pub(super) fn inherited(
        limit: DiskLimit,
        root: OwnedFd,
        image: Option<File>,
    ) -> io::Result<Self> {
        let image = match image {
            Some(file) => Some((file, image::device_of(&root)?)),
            None => None,
        };
        Ok(Self { limit, root, image })
    }

    /// The image, for the next supervisor; none: a tmpfs.
    pub fn backing(&self) -> Option<BorrowedFd<'_>> {
        self.image.as_ref().map(|(file, _)| file.as_fd())
    }

    /// The mount, for the next supervisor.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Its root for this process, as long as the volume lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }

    /// The mount, to be attached once.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }

    /// Its bound.
    pub fn limit(&self) -> DiskLimit {
        self.limit
    }

    /// What is used of it.
    ///
    /// # Errors
    /// The errno of fstatvfs(3) or fstat(2).
    pub fn usage(&self) -> io::Result<Usage> {
        let stat = fstatvfs(&self.root)?;
        let blocks = stat.blocks().saturating_sub(stat.blocks_free());
        let host_bytes = match &self.image {
            Some((file, _)) => file.metadata()?.blocks() * 512,
            None => 0,
        };
        Ok(Usage {
            used_bytes: blocks * stat.fragment_size(),
            used_inodes: stat.files().saturating_sub(stat.files_free()),
            host_bytes,
        })
    }

    /// True if hardly anything (a thousandth) is left of it, be it for files or for what is in them.
    ///
    /// # Errors
    /// The errno of fstatvfs(3).
    pub fn is_full(&self) -> io::Result<bool> {
        let stat = fstatvfs(&self.root)?;
        Ok(stat.blocks_available() < stat.blocks() / 1000
            || stat.files_available() < stat.files() / 1000)
    }

    /// Removes everything in it, gives the blocks back to the host, and makes a new mount, since
    /// a mount that a dyno had cannot be attached again. `None`: not to be used again (a tmpfs,
    /// or something that cannot be removed).
    pub(super) fn renew(mut self) -> Option<Self> {
        let (_, device) = self.image.as_ref()?;
        let mount = lay_out(&self.path()).and_then(|()| {
            image::mount_device(device).map_err(|error| io::Error::other(error.to_string()))
        });
        match mount {
            Ok(mount) => {
                self.root = mount;
                self.trim();
                Some(self)
            }
            Err(error) => {
                tracing::debug!(%error, "a volume is not used again");
                None
            }
        }
    }

    /// Deleted files leave their blocks in the image until it is trimmed.
    fn trim(&self) {
        let dir = File::open(self.path());
        if let Err(error) = dir.and_then(|dir| sys::trim(dir.as_fd())) {
            tracing::debug!(%error, "a volume was not trimmed");
        }
    }
}

/// Empties a volume and makes what every writable layer begins with, so that a launch finds it:
/// `upper/etc` and `work`, of root until they are given to a dyno.
pub(super) fn lay_out(root: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    empty(root)?;
    for (name, mode) in [("work", 0o700), ("upper", 0o755), ("upper/etc", 0o755)] {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(mode).create(root.join(name))?;
    }
    Ok(())
}

/// Removes all that is in a directory of ours that nobody uses any more.
pub(super) fn empty(root: &std::path::Path) -> io::Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
