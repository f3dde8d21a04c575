//! What overlayfs says about its upper layer.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// True for a directory of an upper layer that hides what lies below it.
/// Source: the kernel's `filesystems/overlayfs.rst`, "whiteouts and opaque directories".
///
/// # Errors
/// The errno of fgetxattr(2), but for an attribute that is not there.
pub fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0_u8; 1];
    // SAFETY: the name is a C string, the buffer is as long as said, and the descriptor is
    // borrowed for the length of the call.
    let length = unsafe {
        libc::fgetxattr(
            dir.as_raw_fd(),
            c"trusted.overlay.opaque".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    if length >= 0 {
        return Ok(length == 1 && value == *b"y");
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // No such attribute, or a file system without any.
        Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(false),
        _ => Err(error),
    }
}
