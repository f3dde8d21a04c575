//! Descriptors as numbers: those that come in, and those another program expects.

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

/// Makes `number` a copy of `fd` that lives through exec, whatever it was before.
///
/// # Errors
/// The errno of dup2(2).
pub fn move_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes numbers only. What `number` was is closed: only single-threaded roles that
    // are about to exec call this, for numbers they own by agreement.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
