//! Directories that a tenant filled: nothing is opened through a link, nothing outside is touched.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// What is under a name where a small file is expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Missing,
    /// Something that is not read, and what.
    Refused(&'static str),
    /// Its contents.
    Bytes(Vec<u8>),
}

/// Reads a regular file of at most `max` bytes right below `dir`.
///
/// # Errors
/// `dir` cannot be opened, or reading fails.
pub(super) fn read_file(dir: &Path, name: &str, max: u64) -> io::Result<Found> {
    let dir = File::open(dir)?;
    // Non-blocking: a FIFO would wait for its writer.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(&dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(Found::Missing),
        Err(Errno::ELOOP) => return Ok(Found::Refused("is a symbolic link")),
        Err(Errno::ENXIO) => return Ok(Found::Refused("is not a regular file")),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(Found::Refused("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Ok(Found::Refused("is too large"));
    }
    Ok(Found::Bytes(bytes))
}

/// Opens a directory below `dir`, not through a link.
pub(super) fn open_dir(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// The names in a directory, and which of them are directories.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<(OsString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(open_dir(dir, OsStr::new("."))?)?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if name == "." || name == ".." {
            continue;
        }
        let is_directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => open_dir(dir, &name).is_ok(),
        };
        names.push((name, is_directory));
    }
    Ok(names)
}

/// Removes whatever has that name, with all that is in it; nothing there is fine.
///
/// Neither recursive nor holding a descriptor per level: a tenant chooses the depth. On the way
/// up each directory must be the one we came from, since a dyno that still runs can move them.
///
/// # Errors
/// Something cannot be removed; the rest stays.
pub(super) fn remove(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    let dir = dir.as_fd();
    if unlink(dir, name)? {
        return Ok(());
    }
    let mut here = match open_dir(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut above = vec![(name.to_owned(), identity(dir)?)];
    loop {
        if let Some(below) = first_directory(&here)? {
            let next = open_dir(&here, &below)?;
            above.push((below, identity(&here)?));
            here = next;
            continue;
        }
        let (name, expected) = above.pop().expect("the loop ends with the last one");
        let up = if above.is_empty() {
            dir.try_clone_to_owned()?
        } else {
            open_dir(&here, OsStr::new(".."))?
        };
        if identity(&up)? != expected {
            return Err(io::Error::other("a directory was moved while removed"));
        }
        unlinkat(&up, name.as_os_str(), UnlinkatFlags::RemoveDir)?;
        if above.is_empty() {
            return Ok(());
        }
        here = up;
    }
}

/// Removes what is in a directory until one is met that may have something in it.
fn first_directory(dir: &OwnedFd) -> io::Result<Option<OsString>> {
    for entry in Dir::from_fd(open_dir(dir, OsStr::new("."))?)?.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." && !unlink(dir.as_fd(), name)? {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// False for a directory.
fn unlink(dir: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn identity(dir: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn small_files_are_read_and_anything_else_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("good"), "12345").expect("written");
        symlink("good", at("link")).expect("linked");
        symlink("nowhere", at("dangling")).expect("linked");
        fs::create_dir(at("directory")).expect("made");
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRUSR).expect("made");
        let read = |name: &str, max| read_file(dir.path(), name, max).expect("looked at");
        assert_eq!(read("good", 5), Found::Bytes(b"12345".to_vec()));
        assert_eq!(read("good", 4), Found::Refused("is too large"));
        assert_eq!(read("missing", 4), Found::Missing);
        for name in ["link", "dangling", "directory", "fifo"] {
            assert!(matches!(read(name, 9), Found::Refused(_)), "{name}");
        }
    }

    #[test]
    fn removing_stays_inside_and_takes_any_depth() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("keep")).expect("made");
        fs::write(at("keep/file"), "x").expect("written");
        fs::create_dir_all(at("gone/a/b")).expect("made");
        fs::write(at("gone/a/file"), "x").expect("written");
        symlink("../../keep", at("gone/a/link")).expect("linked");
        // Deeper than any path can name.
        let mut here = OwnedFd::from(File::open(at("gone/a/b")).expect("opened"));
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&here, "deeper", Mode::S_IRWXU).expect("made");
            here = open_dir(&here, OsStr::new("deeper")).expect("opened");
        }
        let root = File::open(dir.path()).expect("opened");
        for _ in 0..2 {
            remove(&root, OsStr::new("gone")).expect("removed");
        }
        assert!(!at("gone").exists());
        assert!(at("keep/file").exists());
    }
}
