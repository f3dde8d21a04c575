//! The mount API of file descriptors (Linux 5.2 and later): `open_tree(2)`, fsopen(2), fsconfig(2),
//! fsmount(2), `move_mount(2)`, `mount_setattr(2)`, and openat2(2) confined to a root.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// What [`open_tree`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeFlags {
    /// A detached clone of one mount.
    Clone,
    /// A detached clone of a mount and all below it.
    CloneRecursive,
}

/// Attributes for [`mount_setattr`]. Source: `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent mount flags of the kernel"
)]
pub struct MountAttributes {
    /// Nothing can be written through this mount.
    pub read_only: bool,
    /// Set-user-id bits are ignored.
    pub no_suid: bool,
    /// Device nodes do not work.
    pub no_dev: bool,
    /// Programs cannot be run.
    pub no_exec: bool,
}

impl MountAttributes {
    fn bits(self) -> u64 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.read_only, libc::MOUNT_ATTR_RDONLY)
            | bit(self.no_suid, libc::MOUNT_ATTR_NOSUID)
            | bit(self.no_dev, libc::MOUNT_ATTR_NODEV)
            | bit(self.no_exec, libc::MOUNT_ATTR_NOEXEC)
    }
}

fn path_text(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

fn check(result: libc::c_long) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Clones the mount at an absolute or working-directory relative path. Source: `open_tree(2)`.
///
/// # Errors
/// The errno of `open_tree(2)`.
pub fn open_tree(path: &Path, flags: TreeFlags) -> io::Result<OwnedFd> {
    clone_tree(libc::AT_FDCWD, &path_text(path)?, flags, 0)
}

/// Clones the mount that an open descriptor stands on.
///
/// # Errors
/// The errno of `open_tree(2)`.
pub fn open_tree_at(fd: BorrowedFd<'_>, flags: TreeFlags) -> io::Result<OwnedFd> {
    clone_tree(fd.as_raw_fd(), c"", flags, libc::AT_EMPTY_PATH)
}

fn clone_tree(dir: i32, path: &CStr, flags: TreeFlags, extra: i32) -> io::Result<OwnedFd> {
    let recursive = if flags == TreeFlags::CloneRecursive {
        libc::AT_RECURSIVE
    } else {
        0
    };
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | (recursive | extra).cast_unsigned();
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })
}

/// Attaches a detached mount onto what `target` stands on. Source: `move_mount(2)`.
///
/// # Errors
/// The errno of `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are static NUL-terminated strings; both descriptors are borrowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })
    .map(drop)
}

/// Changes a (detached) mount: attributes, and with `idmap` its id mapping. It is private from then
/// on: nothing that is mounted below what it is a clone of comes along.
/// Source: `mount_setattr(2)`.
///
/// # Errors
/// The errno of `mount_setattr(2)`; `EINVAL` when the file system cannot be id-mapped.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
    idmap: Option<BorrowedFd<'_>>,
    recursive: bool,
) -> io::Result<()> {
    let mut attr = libc::mount_attr {
        attr_set: attributes.bits(),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    if let Some(userns) = idmap {
        attr.attr_set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or_default();
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a valid structure of the size given and lives through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Opens `path` below `root`, never leaving it and never following magic links; with
/// `flags` such as `O_PATH | O_DIRECTORY`. Source: openat2(2).
///
/// # Errors
/// The errno of openat2(2).
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    open_resolved(root, path, flags, resolve)
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: i32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    let text = path_text(path)?;
    // SAFETY: all-zero is a valid `open_how`.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::try_from(flags | libc::O_CLOEXEC).unwrap_or_default();
    how.resolve = resolve;
    // SAFETY: `text` and `how` are valid for the call and `how` has the size given.
    owned(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            text.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    })
}

/// Opens `path` below `root` as a place (`O_PATH`), following no link of any kind.
///
/// # Errors
/// `ELOOP` for a link, else the errno of openat2(2).
pub fn open_in_root_without_links(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    open_resolved(root, path, libc::O_PATH, resolve)
}

/// A file system being configured. Source: fsopen(2), fsconfig(2), fsmount(2).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Starts a file system of a type (`overlay`, `proc`).
    ///
    /// # Errors
    /// The errno of fsopen(2).
    pub fn open(kind: &CStr) -> io::Result<Self> {
        // SAFETY: `kind` is NUL-terminated and outlives the call.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })
            .map(Self)
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// The errno of fsconfig(2).
    pub fn set(&self, key: &CStr, value: &str) -> io::Result<()> {
        let value = CString::new(value)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a value with a NUL byte"))?;
        self.configure(libc::FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())
    }

    /// Sets a key without value.
    ///
    /// # Errors
    /// The errno of fsconfig(2).
    pub fn flag(&self, key: &CStr) -> io::Result<()> {
        self.configure(libc::FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null())
    }

    /// Makes the file system and a detached mount of it.
    ///
    /// # Errors
    /// The errno of fsconfig(2) or fsmount(2).
    pub fn mount(self, attributes: MountAttributes) -> io::Result<OwnedFd> {
        self.configure(
            libc::FSCONFIG_CMD_CREATE,
            std::ptr::null(),
            std::ptr::null(),
        )?;
        // SAFETY: the descriptor is ours; the call takes no pointers.
        owned(unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.0.as_fd().as_raw_fd(),
                libc::FSMOUNT_CLOEXEC,
                attributes.bits(),
            )
        })
    }

    fn configure(
        &self,
        command: libc::fsconfig_command,
        key: *const libc::c_char,
        value: *const libc::c_char,
    ) -> io::Result<()> {
        // SAFETY: key and value are null or NUL-terminated strings of our callers' frames.
        check(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.0.as_raw_fd(),
                command,
                key,
                value,
                0,
            )
        })
        .map(drop)
    }
}
