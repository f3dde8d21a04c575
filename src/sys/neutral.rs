//! What a process inherits without being asked: priority, timer slack, keyrings, its arguments.

use std::io;
use std::sync::OnceLock;

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Nice value 0 for the calling process; where it may not be lowered it stays as it is.
///
/// # Errors
/// The errno of setpriority(2) other than `EACCES`.
pub fn normal_priority() -> io::Result<()> {
    // SAFETY: no pointers.
    match check(libc::c_long::from(unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 0)
    })) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(()),
        other => other,
    }
}

/// The kernel's default timer slack of 50 microseconds. A process takes its parent's current value
/// for its own default, so 0 (the default) is not enough. Source: `PR_SET_TIMERSLACK`.
///
/// # Errors
/// The errno of prctl(2).
pub fn default_timer_slack() -> io::Result<()> {
    const NANOSECONDS: libc::c_ulong = 50_000;
    // SAFETY: the option takes an integer.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, NANOSECONDS, 0, 0, 0)
    }))
}

/// Joins a new, empty session keyring. Where a sandbox around us refuses, it refuses dynos too.
/// Source: keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`.
///
/// # Errors
/// The errno of keyctl(2), other than `EPERM` and `ENOSYS`.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    match check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    }) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => Ok(()),
        other => other,
    }
}

/// Sets the NIS domain name of the UTS namespace.
///
/// # Errors
/// The errno of setdomainname(2).
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `len` bytes of the string, which outlives the call.
    check(libc::c_long::from(unsafe {
        libc::setdomainname(name.as_ptr().cast(), name.len())
    }))
}

/// Where this process's argument strings lie; the same in every fork of it.
static ARGUMENTS: OnceLock<Option<(usize, usize)>> = OnceLock::new();

/// Finds the argument strings: once, in the keeper, so that no launch has to.
/// Source: proc(5), stat fields 48 and 49.
pub fn find_arguments() {
    ARGUMENTS.get_or_init(|| {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in field 2 may hold spaces and brackets; field 3 is the first after it.
        let (_, rest) = stat.rsplit_once(") ")?;
        let field = |n: usize| rest.split(' ').nth(n - 3)?.trim().parse::<usize>().ok();
        Some((field(48)?, field(49)?)).filter(|(start, end)| *start != 0 && start < end)
    });
}

/// Overwrites what /proc/PID/cmdline shows of this process: PID 1 of a dyno is a fork of the
/// keeper, whose arguments name paths of the host.
///
/// # Errors
/// `ENODATA` when [`find_arguments`] was not called or found nothing.
pub fn erase_arguments() -> io::Result<()> {
    let Some((start, end)) = ARGUMENTS.get().copied().flatten() else {
        return Err(io::Error::from_raw_os_error(libc::ENODATA));
    };
    let arguments = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel says that the argument strings of this process lie from `start` to `end`,
    // on its own writable stack; the caller is single-threaded and reads no argument afterwards.
    unsafe { std::ptr::write_bytes(arguments, 0, end - start) };
    Ok(())
}
