//! Walking below a directory by descriptors, never through a link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

/// Most directories above an entry.
pub(super) const DEPTH_MAX: usize = 256;

/// The parts of an archive path; `None` for one that is absolute, leaves the root, has an empty
/// name, a NUL, or is too deep.
pub(super) fn parts(path: &[u8]) -> Option<Vec<&OsStr>> {
    if path.starts_with(b"/") || path.contains(&0) || path.len() > 4096 {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            name if name.len() > 255 => return None,
            name => parts.push(OsStr::from_bytes(name)),
        }
    }
    (parts.len() <= DEPTH_MAX).then_some(parts)
}

/// Opens a directory below `dir` without following a link.
pub(super) fn open_dir(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

/// Opens a file below `dir` for reading, without following a link or waiting for a FIFO's writer.
pub(super) fn open_file(dir: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(File::from(openat(dir, name, flags, Mode::empty())?))
}

/// Opens (making what is missing) the directory that `parts` name below `root`.
pub(super) fn make_dirs(root: &OwnedFd, parts: &[&OsStr]) -> io::Result<OwnedFd> {
    let mut dir = root.try_clone()?;
    for name in parts {
        let next = match open_dir(&dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                mkdirat(&dir, *name, Mode::from_bits_truncate(0o755))?;
                open_dir(&dir, name)?
            }
            other => other?,
        };
        dir = next;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_root_have_no_parts() {
        let count = |path: &str| parts(path.as_bytes()).map(|p| p.len());
        assert_eq!(count("./app/a"), Some(2));
        assert_eq!(count("."), Some(0));
        assert_eq!(count("a//b/"), Some(2));
        for bad in ["/a", "../a", "a/../../b", "a/..", "a\0b"] {
            assert_eq!(count(bad), None, "{bad:?}");
        }
        assert_eq!(count(&"a/".repeat(DEPTH_MAX + 1)), None);
        assert_eq!(count(&"n".repeat(256)), None);
    }
}
