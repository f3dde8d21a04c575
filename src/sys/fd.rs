//! Descriptors that come in as numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Takes ownership of a descriptor number that was just received (`SCM_RIGHTS`) or inherited by
/// agreement (`--keeper-fd`). Never for a number that something else may own.
///
/// # Panics
/// On a negative number.
pub fn adopt(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "a received descriptor is not negative");
    // SAFETY: callers hand over numbers of which they are the only owner (see above).
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Lets a descriptor live through exec (`true`) or not.
///
/// # Errors
/// The errno of fcntl(2).
pub fn inheritable(fd: BorrowedFd<'_>, inherit: bool) -> io::Result<()> {
    let flags = if inherit { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD takes an int; the descriptor is borrowed.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
