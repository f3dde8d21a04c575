//! What files have beside their mode: `ioctl_iflags(2)`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// The directories in this one have little to do with each other. Source: `FS_TOPDIR_FL`.
const TOPDIR: libc::c_int = 0x0002_0000;

fn flags(file: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is open; file systems write an `int` here, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(flags)
}

/// Has the file system put each new directory in this one elsewhere, with all that comes into it.
///
/// # Errors
/// The errno of the ioctl; `EOPNOTSUPP` or `ENOTTY` where it does not tell directories apart so.
pub fn spread_out(dir: BorrowedFd<'_>) -> io::Result<()> {
    let flags = flags(dir)? | TOPDIR;
    // SAFETY: the descriptor is open; file systems read an `int` here, which outlives the call.
    let result = unsafe { libc::ioctl(dir.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_directory_is_marked_where_its_file_system_can() {
        let made = tempfile::tempdir().expect("a directory");
        let dir = File::open(made.path()).expect("opened");
        match spread_out(dir.as_fd()) {
            Ok(()) => assert_ne!(flags(dir.as_fd()).expect("read") & TOPDIR, 0),
            Err(error) => assert!(
                matches!(
                    error.raw_os_error(),
                    Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL)
                ),
                "{error}"
            ),
        }
    }
}
