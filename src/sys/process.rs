//! Processes: clone3(2), pidfds, ids, capabilities, seccomp, signals.
//!
//! Ids are changed by raw system calls: libc's `set*id` wrappers synchronise threads and can
//! deadlock in a fresh child (design: the keeper is single-threaded, its children too).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// `libc` has it in a type that is too narrow. Source: clone(2).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What [`Clone3::call`] returns: once in each process.
#[derive(Debug)]
pub enum Fork {
    /// In the caller.
    Parent {
        /// The child's pid in the caller's namespace.
        pid: u32,
        /// A descriptor of the child.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// Arguments of clone3(2).
#[derive(Debug, Default)]
pub struct Clone3<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: i32,
    /// Start the child in this cgroup (v2 directory, `CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
}

impl Clone3<'_> {
    /// Forks. Only for single-threaded processes: the child may then run ordinary code.
    ///
    /// # Errors
    /// The errno of clone3(2); refused with `EBUSY` in a process of several threads.
    pub fn call(&self) -> io::Result<Fork> {
        if threads()? != 1 {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let mut pidfd: RawFd = -1;
        // SAFETY: all-zero is a valid `clone_args`.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = u64::try_from(self.namespaces | libc::CLONE_PIDFD).unwrap_or_default();
        args.pidfd = (&raw mut pidfd) as u64;
        args.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
        }
        // SAFETY: `args` and the `pidfd` it points to outlive the call; without CLONE_VM the
        // child works on a copy of our memory; the process has one thread (checked above), so no
        // lock can be held by a thread that does not exist in the child.
        let result = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw mut args,
                size_of::<libc::clone_args>(),
            )
        };
        check(result)?;
        if result == 0 {
            IS_CHILD.store(true, Ordering::Relaxed);
            return Ok(Fork::Child);
        }
        let pid =
            u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: on success the kernel stored a new descriptor of ours in `pidfd`.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Fork::Parent { pid, pidfd })
    }
}

/// Stack of the child of [`vfork`]: it does little before its exec.
const CHILD_STACK: usize = 256 << 10;

/// Runs `child` in a new process that borrows our memory, and waits until it has exec'd or ended;
/// its pid. What it wrote to memory is seen here. A copy of the memory (and a page fault for each
/// page that is touched after it) would cost a launch several times as much.
///
/// # Errors
/// As [`Clone3::call`]; `ENOMEM` without room for a stack.
pub fn vfork(mut child: impl FnMut()) -> io::Result<u32> {
    extern "C" fn enter<F: FnMut()>(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `vfork` passed a pointer to its closure, and waits while we use it.
        let child = unsafe { &mut *child.cast::<F>() };
        child();
        // SAFETY: never returns; destructors and buffers are the parent's.
        unsafe { libc::_exit(127) }
    }
    fn entry<F: FnMut()>(_: &F) -> extern "C" fn(*mut libc::c_void) -> libc::c_int {
        enter::<F>
    }
    if threads()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), CHILD_STACK, protection, flags, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let enter = entry(&child);
    // SAFETY: one past the end of the mapping, which is page-aligned: the stack grows down.
    let top = unsafe { stack.byte_add(CHILD_STACK) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack is ours alone and large enough; CLONE_VFORK stops us until the child has
    // let go of our memory, and no other thread runs in it (checked above), so the closure is
    // used by one at a time. The child never returns from `enter`.
    let pid = unsafe { libc::clone(enter, top, flags, (&raw mut child).cast()) };
    let error = io::Error::last_os_error();
    // SAFETY: the child is done with it; nobody else knows the mapping.
    unsafe { libc::munmap(stack, CHILD_STACK) };
    u32::try_from(pid).map_err(|_| error)
}

/// Set in every child that [`Clone3::call`] made: it has one thread.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Set once the process was seen to have one thread: the keeper never makes another.
static IS_SINGLE: AtomicBool = AtomicBool::new(false);

fn threads() -> io::Result<usize> {
    // Debug builds, and with them all tests, look each time.
    let is_known = !cfg!(debug_assertions) && IS_SINGLE.load(Ordering::Relaxed);
    if is_known || IS_CHILD.load(Ordering::Relaxed) {
        return Ok(1);
    }
    let count = count_threads()?;
    IS_SINGLE.store(count == 1, Ordering::Relaxed);
    Ok(count)
}

fn count_threads() -> io::Result<usize> {
    // In a dyno's child /proc may be gone: such a child is single-threaded by construction.
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
    }
}

/// A descriptor of the process that has this number now: who it is must be looked up afterwards.
/// Source: `pidfd_open(2)`.
///
/// # Errors
/// `ESRCH` when no process has it.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: the kernel made a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Signals the process behind a pidfd. Source: `pidfd_send_signal(2)`.
///
/// # Errors
/// `ESRCH` when it is gone.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed; a null siginfo is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
}

/// Signals every process the caller may signal, itself excluded: within a pid namespace, all of
/// a dyno but its PID 1. Source: kill(2).
///
/// # Errors
/// `ESRCH` when there is none.
pub fn kill_everyone(signal: i32) -> io::Result<()> {
    // SAFETY: no pointers. Outside a pid namespace of ours this would reach the whole host, so
    // refuse anywhere but as PID 1.
    if unsafe { libc::getpid() } != 1 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // SAFETY: no pointers; we are PID 1 of a pid namespace (checked above).
    check(libc::c_long::from(unsafe { libc::kill(-1, signal) }))
}

/// Becomes `uid`/`gid` (real, effective, saved) without supplementary groups, in this thread.
///
/// # Errors
/// The first of setgroups(2), setresgid(2), setresuid(2) that fails.
pub fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: zero groups, so the null list is not read.
    check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })
}

fn prctl(option: i32, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take integers only.
    check(libc::c_long::from(unsafe {
        libc::prctl(option, argument, 0, 0, 0)
    }))
}

/// `no_new_privs`: exec can never gain privileges. Source: prctl(2).
///
/// # Errors
/// The errno of prctl(2).
pub fn no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Not dumpable: /proc/PID is root's, no ptrace, no core. Source: `PR_SET_DUMPABLE`.
///
/// # Errors
/// The errno of prctl(2).
pub fn not_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// SIGKILL to this process as soon as its parent is gone. A change of ids takes that back: it is
/// asked for behind the last. Source: `PR_SET_PDEATHSIG`.
///
/// # Errors
/// The errno of prctl(2).
pub fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
}

/// Root gets nothing for being root. Source: capabilities(7), "securebits".
///
/// # Errors
/// The errno of prctl(2).
pub fn set_securebits() -> io::Result<()> {
    // NOROOT, NO_SETUID_FIXUP off, NO_CAP_AMBIENT_RAISE; all locked.
    const BITS: libc::c_ulong = 0b1100_0011;
    prctl(libc::PR_SET_SECUREBITS, BITS)
}

/// A change of user ids takes no capabilities, until the next user namespace.
/// Source: capabilities(7), `SECBIT_NO_SETUID_FIXUP`.
///
/// # Errors
/// The errno of prctl(2).
pub fn keep_capabilities_across_ids() -> io::Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP)
}

/// Drops every capability from the bounding set.
///
/// # Errors
/// The errno of prctl(2), other than for numbers the kernel does not know.
pub fn bounding_drop() -> io::Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            Ok(()) => {}
            // Past the last capability of this kernel.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Empties the ambient set.
///
/// # Errors
/// The errno of prctl(2).
pub fn clear_ambient() -> io::Result<()> {
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
    )
}

/// Empties the effective, permitted and inheritable sets. Source: capset(2).
///
/// # Errors
/// The errno of capset(2).
pub fn set_capabilities_none() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let data = [0_u32; 6];
    // SAFETY: version 3 takes a header of two words and two data records of three words each.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
}

/// Installs a compiled seccomp filter in this thread. Source: seccomp(2).
///
/// # Errors
/// The errno of seccomp(2); `EINVAL` for an unsound program.
pub fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `len` instructions that outlive the call; the kernel copies
    // and does not write them.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
}

/// Closes every descriptor from `first` on. Source: `close_range(2)`.
///
/// # Errors
/// The errno of `close_range(2)`.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: callers use this as the last step before exec or in a process that owns nothing
    // above `first` any more; no pointers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })
}

/// Closes every descriptor from `first` on but these, which are in order.
///
/// # Errors
/// The errno of `close_range(2)`.
pub fn close_all_but(first: RawFd, kept: &[RawFd]) -> io::Result<()> {
    let mut from = first;
    for &fd in kept.iter().filter(|fd| **fd >= first) {
        if fd > from {
            // SAFETY: for a fresh child whose copies of its parent's owners are never dropped; no
            // pointers.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) })?;
        }
        from = fd + 1;
    }
    close_from(from.cast_unsigned())
}

/// Every signal to its default disposition, libc's own (32 and 33) too: signal(2) refuses those,
/// and what a shell or runtime above us ignored would live on through exec.
pub fn reset_signals() {
    // The kernel's `sigaction`: handler, flags, restorer, mask. All zero is SIG_DFL.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is a whole kernel `sigaction` and outlives the call; the null pointer
        // for the old one is allowed; KILL and STOP answer EINVAL, which is as good.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                8,
            )
        };
    }
}

/// Blocks (`true`) or unblocks all signals in this thread.
///
/// # Errors
/// The errno of sigprocmask(2).
pub fn swap_signal_mask(block: bool) -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow};
    let set = if block {
        SigSet::all()
    } else {
        SigSet::empty()
    };
    set.thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map(drop)
        .map_err(io::Error::from)
}

/// Marks every descriptor from `first` on to be closed by exec. Source: `close_range(2)`.
///
/// # Errors
/// The errno of `close_range(2)`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: changes a flag only; no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
}

/// Takes one pending signal of any kind, waiting up to `timeout`. Source: sigtimedwait(2).
///
/// # Errors
/// `EAGAIN` (`WouldBlock`) when the time is up, `EINTR`.
pub fn wait_signal(timeout: std::time::Duration) -> io::Result<i32> {
    // SAFETY: all-zero is a valid signal set to be filled.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours.
    unsafe { libc::sigfillset(&raw mut set) };
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(timeout.subsec_nanos()),
    };
    // SAFETY: `set` and `time` outlive the call; a null siginfo is allowed.
    let signal =
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time) };
    if signal < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(signal)
    }
}

/// Ends the process without running destructors: for a child whose descriptors were closed
/// wholesale. Source: _exit(2).
pub fn exit_now(status: u8) -> ! {
    // SAFETY: never returns; takes an int.
    unsafe { libc::_exit(i32::from(status)) }
}
