//! Files with a file system in them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Whence, lseek};

use super::DiskError;
use crate::model::DiskLimit;
use crate::sys::{FsContext, LoopDevice, MountAttributes};

/// The one empty image of a size that the others are copied from.
#[derive(Debug)]
pub(super) struct Template(PathBuf);

impl Template {
    /// Makes it, unless an earlier start did.
    pub(super) fn ensure(dir: &Path, limit: DiskLimit) -> Result<Self, DiskError> {
        let name = format!("empty-{}-{}", limit.bytes, limit.inodes);
        let path = dir.join(&name);
        if !path.is_file() {
            // Several may be at it at once.
            let part = dir.join(format!(".{name}-{}", uuid::Uuid::new_v4()));
            format_file(&part, limit)?;
            std::fs::rename(&part, &path).map_err(DiskError::file("make", &path))?;
        }
        Ok(Self(path))
    }

    /// A copy at `path`: only what is written in it takes space.
    pub(super) fn copy(&self, path: &Path) -> Result<File, DiskError> {
        let from = File::open(&self.0).map_err(DiskError::file("open", &self.0))?;
        let to = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(DiskError::file("make", path))?;
        copy_data(&from, &to).map_err(DiskError::file("write", path))?;
        Ok(to)
    }
}

/// An ext4 without journal: what is in a volume is not to outlive a crash. Checksums of metadata
/// would have the kernel write all inode tables in the background.
fn format_file(path: &Path, limit: DiskLimit) -> Result<(), DiskError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(DiskError::file("make", path))?;
    file.set_len(limit.bytes)
        .map_err(DiskError::file("size", path))?;
    let failed = |reason: String| DiskError::Mkfs { reason };
    let output = Command::new("mkfs.ext4")
        // A service's PATH need not have the programs of root.
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0"])
        .args([
            "-O",
            "^has_journal,^resize_inode,^metadata_csum,^orphan_file",
        ])
        .args(["-E", "lazy_itable_init=1,nodiscard"])
        .args(["-N", &limit.inodes.to_string()])
        .arg(path)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said.trim().lines().last().unwrap_or_default().to_owned();
    Err(failed(said))
}

fn copy_data(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        let data = match lseek(from, at, Whence::SeekData) {
            // Nothing but a hole from here on.
            Err(nix::errno::Errno::ENXIO) => return Ok(()),
            other => other?,
        };
        let end = lseek(from, data, Whence::SeekHole)?;
        let mut offset = u64::try_from(data).unwrap_or_default();
        let stop = u64::try_from(end).unwrap_or_default();
        while offset < stop {
            let want = usize::try_from(stop - offset).unwrap_or(usize::MAX);
            let want = want.min(buffer.len());
            let read = from.read_at(&mut buffer[..want], offset)?;
            if read == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..read], offset)?;
            offset += read as u64;
        }
        at = end;
    }
}

/// True if the file system in it was unmounted in order. Source: ext4 superblock, `s_state`.
pub(super) fn is_clean(file: &File) -> bool {
    let mut word = [0; 2];
    let magic = file.read_exact_at(&mut word, 1024 + 0x38).is_ok() && word == [0x53, 0xEF];
    magic
        && file.read_exact_at(&mut word, 1024 + 0x3A).is_ok()
        && word[0] & 1 == 1
        && word[0] & 2 == 0
}

/// Mounts an image, nowhere; the device's path serves for further mounts of the same.
pub(super) fn mount_file(file: &File) -> Result<(OwnedFd, PathBuf), DiskError> {
    let device =
        LoopDevice::over(file.as_fd()).map_err(DiskError::mount("make a loop device for"))?;
    let mount = mount_device(&device.path)?;
    Ok((mount, device.path.clone()))
}

/// A mount of an image's device: the first makes the file system live, others share it.
pub(super) fn mount_device(device: &Path) -> Result<OwnedFd, DiskError> {
    let mount = || -> io::Result<OwnedFd> {
        let fs = FsContext::open(c"ext4")?;
        fs.set(c"source", &device.display().to_string())?;
        // The file below is as good as the disk it lies on; nothing is to be kept over a crash.
        fs.flag(c"nobarrier")?;
        fs.flag(c"noinit_itable")?;
        fs.flag(c"nodiscard")?;
        fs.mount(MountAttributes {
            no_suid: true,
            no_dev: true,
            ..MountAttributes::default()
        })
    };
    mount().map_err(DiskError::mount("mount"))
}

/// The device that a mounted file system lies on. Source: sysfs(5), `/sys/dev/block`.
pub(super) fn device_of(mount: &OwnedFd) -> io::Result<PathBuf> {
    let number = nix::sys::stat::fstat(mount)?.st_dev;
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = link.file_name().ok_or(io::ErrorKind::NotFound)?;
    Ok(Path::new("/dev").join(name))
}

/// A tmpfs of the same bound, where images cannot be had.
pub(super) fn mount_memory(limit: DiskLimit) -> Result<OwnedFd, DiskError> {
    let mount = || -> io::Result<OwnedFd> {
        let fs = FsContext::open(c"tmpfs")?;
        fs.set(c"source", "volume")?;
        fs.set(c"mode", "0755")?;
        fs.set(c"size", &limit.bytes.to_string())?;
        fs.set(c"nr_inodes", &limit.inodes.to_string())?;
        fs.mount(MountAttributes {
            no_suid: true,
            no_dev: true,
            ..MountAttributes::default()
        })
    };
    mount().map_err(DiskError::mount("mount"))
}
