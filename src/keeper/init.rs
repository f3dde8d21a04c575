//! PID 1 of a dyno: reaps, passes signals on, ends with the app's status.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// Waits for everything in the dyno; returns the app's status as a shell reports it.
/// All signals are blocked: they are taken one by one with sigtimedwait(2).
pub(super) fn run(app: u32, grace: Duration) -> u8 {
    let app = Pid::from_raw(i32::try_from(app).unwrap_or(i32::MAX));
    let mut ended: Option<(u8, Instant)> = None;
    loop {
        match reap(app) {
            Reaped::App(status) => {
                // Children that outlive the command are stopped like any dyno.
                if sys::kill_everyone(libc::SIGTERM).is_err() {
                    return status;
                }
                ended = Some((status, Instant::now() + grace));
                continue;
            }
            Reaped::NoChildren => return ended.map_or(127, |(status, _)| status),
            Reaped::Nothing => {}
        }
        let timeout = match ended {
            Some((status, deadline)) => match deadline.checked_duration_since(Instant::now()) {
                Some(left) => left,
                // Ending PID 1 makes the kernel SIGKILL whatever is left.
                None => return status,
            },
            None => Duration::from_hours(1),
        };
        match wait_signal(timeout) {
            Some(libc::SIGCHLD) | None => {}
            Some(signal) => {
                let _ = sys::kill_everyone(signal);
            }
        }
    }
}

enum Reaped {
    App(u8),
    NoChildren,
    Nothing,
}

fn reap(app: Pid) -> Reaped {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == app => {
                return Reaped::App(u8::try_from(code & 0xFF).unwrap_or(u8::MAX));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == app => {
                return Reaped::App(signal_status(signal));
            }
            Ok(WaitStatus::StillAlive) => return Reaped::Nothing,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return Reaped::NoChildren,
        }
    }
}

/// 128 + n, as a shell does.
pub(super) fn signal_status(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}

fn wait_signal(timeout: Duration) -> Option<i32> {
    match sys::wait_signal(timeout) {
        Ok(signal) => Some(signal),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(_) => None,
    }
}
