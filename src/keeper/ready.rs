//! What the keeper arranges for itself before it serves.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// When the host's memory runs out, the kernel takes others first. Source: proc(5).
pub const OOM_SCORE: i32 = -900;

/// Sets [`OOM_SCORE`] for ourselves and, through us, for the supervisor; dynos get the kernel's
/// default. Without the privilege the supervisor tells (it sees what it inherited).
pub(super) fn protect() -> io::Result<()> {
    match std::fs::write("/proc/self/oom_score_adj", OOM_SCORE.to_string()) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// As many descriptors as we may have: one per dyno and one per range of ids would soon be more
/// than a shell's default. The supervisor inherits it; dynos get limits of their own.
pub(super) fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!("the limit of open files stays as it is: {errno}");
    }
}

/// What the keeper hears of its children and of whoever stops it, as a descriptor.
pub(super) fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}
