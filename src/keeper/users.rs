//! User namespaces: one per range of host ids, made once and kept by the supervisor, so that a
//! launch does not copy and close a descriptor of each.
//!
//! The same namespace maps the ids of a dyno's processes and of the layers below it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;

use super::ahead;
use crate::dyno::{IDS_PER_DYNO, UserRange};
use crate::sys::{self, Clone3, Fork};

/// A child makes the namespace, waits until its maps are written, forbids further namespaces
/// below it, and ends; the namespace lives on in our descriptor.
pub(super) fn make(range: UserRange) -> io::Result<OwnedFd> {
    let (ready, go) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (hear, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let clone = Clone3 {
        namespaces: 0,
        cgroup: None,
    };
    match clone.call()? {
        Fork::Child => {
            drop((go, hear));
            let made = ahead::processes().and_then(|proc| {
                unshare_as_owner(range)?;
                Ok(proc)
            });
            let errno = made.as_ref().err().and_then(io::Error::raw_os_error);
            let told = File::from(tell).write_all(&errno.unwrap_or(0).to_ne_bytes());
            let mut byte = [0];
            if let Ok(proc) = made
                && told.is_ok()
                && File::from(ready).read(&mut byte).is_ok_and(|n| n == 1)
            {
                forbid_namespaces(proc.as_fd());
            }
            std::process::exit(0)
        }
        Fork::Parent { pid, .. } => {
            drop((ready, tell));
            let mut errno = [0; 4];
            let heard = File::from(hear).read_exact(&mut errno);
            let result = heard.and_then(|()| match i32::from_ne_bytes(errno) {
                0 => map(pid, range),
                errno => Err(io::Error::from_raw_os_error(errno)),
            });
            if result.is_ok() {
                // A child that died meanwhile shows in waitpid, not here.
                let _ = File::from(go).write(b"g");
            } else {
                drop(go);
            }
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
            nix::sys::wait::waitpid(pid, None)?;
            result
        }
    }
}

/// Whoever makes a user namespace is charged, against the host's limits, for what is used in it:
/// inotify instances and watches, pending signals, message queues. As root, one dyno could use up
/// what root has; as the range's own first id, each has its own. Source: `kernel/ucount.c`.
fn unshare_as_owner(range: UserRange) -> io::Result<()> {
    // With its capabilities kept: a host may let only those make user namespaces.
    sys::keep_capabilities_across_ids()?;
    sys::set_ids(range.base, range.base)?;
    Ok(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?)
}

/// No namespace of any kind may be made from inside. The filter refuses them too: this is the line
/// behind it, and a kernel without one of the kinds lacks its file. In a `/proc` of its own: one
/// that many share has an entry of the same name for every user namespace, and looks through them
/// all (milliseconds with a thousand).
fn forbid_namespaces(proc: BorrowedFd<'_>) {
    for kind in ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup", "time"] {
        let file = format!("sys/user/max_{kind}_namespaces");
        let opened = sys::open_in_root(proc, Path::new(&file), libc::O_WRONLY);
        let _ = opened.and_then(|file| File::from(file).write_all(b"0"));
    }
}

fn map(pid: u32, range: UserRange) -> io::Result<OwnedFd> {
    let proc = format!("/proc/{pid}");
    let line = format!("0 {} {IDS_PER_DYNO}", range.base);
    std::fs::write(format!("{proc}/uid_map"), &line)?;
    std::fs::write(format!("{proc}/gid_map"), &line)?;
    let namespace = File::open(format!("{proc}/ns/user"))?;
    sys::inheritable(namespace.as_fd(), false)?;
    Ok(namespace.into())
}
