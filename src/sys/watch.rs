//! Readiness of a descriptor in the async runtime.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Watches a non-blocking descriptor for reading and writing; closes it when dropped.
///
/// # Errors
/// The descriptor is of a kind epoll does not take (a plain file), or a limit is reached.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is an open descriptor that nobody else closes, names the same
    // description as long as it lives and always returns the same number; the `AsyncFd` owns it
    // until it is dropped.
    let watched = unsafe { AsyncFd::register(fd) };
    watched.map_err(io::Error::from)
}
