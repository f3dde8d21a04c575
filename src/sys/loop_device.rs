//! Loop devices: a file as a block device. Source: loop(4), `linux/loop.h`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;

/// The device is freed with its last opener, however that one ends.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// What is in the device's file is not cached twice.
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Tries to get a device that nobody else took between two calls.
const ATTEMPTS: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` (Linux 5.8).
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A block device over a file. It exists as long as this, or a mount of it, does.
#[derive(Debug)]
pub struct LoopDevice {
    /// `/dev/loopN`.
    pub path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Makes one over a file open for reading and writing.
    ///
    /// # Errors
    /// No loop driver or no device nodes, or the errno of the ioctl.
    pub fn over(file: BorrowedFd<'_>) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for _ in 0..ATTEMPTS {
            let path = PathBuf::from(format!("/dev/loop{}", free(control.as_fd())?));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            match configure(device.as_fd(), file) {
                Ok(()) => {
                    return Ok(Self {
                        path,
                        _device: device,
                    });
                }
                // Somebody else took it meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

fn free(control: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: the request takes no argument and returns a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(number)
}

fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).unwrap_or_default(),
        block_size: 4096,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` is a whole `loop_config` that outlives the call; the kernel only reads it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct fstrim_range`.
#[repr(C)]
struct TrimRange {
    start: u64,
    len: u64,
    min_len: u64,
}

const FITRIM: libc::c_ulong = 0xC018_5879;

/// Tells what is below a file system which of its blocks are free. Source: `ioctl_fitrim(2)`.
///
/// # Errors
/// The errno of the ioctl; `EOPNOTSUPP` where nothing below cares.
pub fn trim(root: BorrowedFd<'_>) -> io::Result<()> {
    let mut range = TrimRange {
        start: 0,
        len: u64::MAX,
        min_len: 0,
    };
    // SAFETY: `range` is a whole `fstrim_range` that outlives the call; the kernel writes to it.
    let result = unsafe { libc::ioctl(root.as_raw_fd(), FITRIM, &raw mut range) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
