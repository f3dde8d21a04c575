//! One supervisor after the other, and the keeper's own start and end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::heirs::{HAND_OVER, RENEW};
use super::scratch::Scratch;
use super::serve::Keeper;
use super::steps;
use super::{filter, protocol, ready};
use crate::sys;

/// Restart delay of a crashed supervisor: doubles up to the last. One that crashes even then may
/// do so over what it inherited: the next one starts with nothing.
const RESTART_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A supervisor that lived this long starts its delays over.
const STEADY: Duration = Duration::from_mins(1);

/// Why the keeper cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Becoming the keeper failed.
    #[error("cannot exec {program}")]
    Exec {
        /// This binary.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keeper's own mount namespace or templates could not be made.
    #[error("cannot prepare {dir} in a mount namespace of our own")]
    Scratch {
        /// Below the state directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor could not be started.
    #[error("cannot start the supervisor")]
    Start(#[source] io::Error),
    /// The loop's own system calls failed.
    #[error("the keeper's loop failed")]
    Loop(#[source] io::Error),
}

/// Becomes the keeper: replaces this process by `manifold __keep SCRATCH ARGS...`.
/// Returns only on failure.
pub fn start(scratch: &Path, args: impl IntoIterator<Item = OsString>) -> KeeperError {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(source) => {
            return KeeperError::Exec {
                program: "/proc/self/exe".into(),
                source,
            };
        }
    };
    // Whoever started us may have left descriptors open: none of them is anybody's below here.
    if let Err(source) = sys::close_on_exec_from(3) {
        return KeeperError::Exec { program, source };
    }
    let source = Command::new(&program)
        .arg("__keep")
        .arg(scratch)
        .args(args)
        .exec();
    KeeperError::Exec { program, source }
}

/// Entry point of the role `__keep`: `SCRATCH` and the arguments of `supervise`.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let scratch = PathBuf::from(args.next().unwrap_or_default());
    match Keeper::run(&scratch, &args.collect::<Vec<_>>()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let chain =
                std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
            let text: Vec<String> = chain.map(ToString::to_string).collect();
            tracing::error!("{}", text.join(": "));
            ExitCode::from(70)
        }
    }
}

/// How a supervisor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As asked, or it refused: with this status, and the keeper with it.
    Orderly(u8),
    /// A signal or a panic.
    Crash(u8),
    /// It made way for the version that is installed now.
    HandOver,
    /// The keeper must make way, too.
    Renew,
}

impl End {
    fn of(status: std::process::ExitStatus) -> Self {
        let code = status
            .code()
            .or_else(|| status.signal().map(|s| 128 + s))
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(u8::MAX);
        match code {
            HAND_OVER => Self::HandOver,
            RENEW => Self::Renew,
            // A panic ends with 101 or SIGABRT; every orderly refusal has a status of its own.
            101 => Self::Crash(code),
            _ if status.signal().is_some() => Self::Crash(code),
            _ => Self::Orderly(code),
        }
    }
}

impl Keeper {
    fn run(scratch_dir: &Path, args: &[OsString]) -> Result<u8, KeeperError> {
        // What it is handed for a launch has config vars: no core file, no debugger but root's.
        sys::not_dumpable().map_err(KeeperError::Loop)?;
        ready::raise_open_files();
        ready::protect().map_err(KeeperError::Loop)?;
        sys::find_arguments();
        let scratch = steps::private_dir(scratch_dir)
            .and_then(|()| Scratch::make(scratch_dir))
            .map_err(|source| KeeperError::Scratch {
                dir: scratch_dir.to_owned(),
                source,
            })?;
        let signals = ready::signals().map_err(KeeperError::Loop)?;
        let own = sys::own_program();
        let (socket, supervisor) = supervise(&own, args).map_err(KeeperError::Start)?;
        let mut keeper = Self::new(scratch, filter::compile(), socket, supervisor);
        let mut program = own.clone();
        let mut delay = RESTART_DELAYS.0;
        loop {
            let started = Instant::now();
            keeper.is_settled = false;
            let served = keeper.serve(&signals);
            if started.elapsed() > STEADY {
                delay = RESTART_DELAYS.0;
            }
            match served {
                Ok(End::HandOver) => {
                    keeper.end_unkept();
                    program = sys::installed_program();
                    tracing::info!("{} takes over", program.display());
                }
                Ok(End::Crash(status)) => {
                    if delay == RESTART_DELAYS.1 {
                        tracing::error!(
                            "supervisors crash again and again; every dyno is ended, in case it is over one of them"
                        );
                        keeper.kill_all();
                        keeper.doors = None;
                    }
                    keeper.end_unkept();
                    tracing::error!(
                        "the supervisor crashed (status {status}); starting it again in {delay:?}"
                    );
                    if wait_or_stop(&signals, delay).map_err(KeeperError::Loop)? {
                        keeper.kill_all();
                        return Ok(status);
                    }
                    delay = (delay * 2).min(RESTART_DELAYS.1);
                }
                Ok(End::Orderly(status)) if program != own && !keeper.is_settled => {
                    keeper.end_unkept();
                    tracing::error!(
                        "{} does not start (status {status}); the version before it goes on",
                        program.display()
                    );
                    program.clone_from(&own);
                }
                Ok(End::Renew) => {
                    keeper.kill_all();
                    let program = sys::installed_program();
                    tracing::warn!("{} starts anew, the keeper included", program.display());
                    let source = Self::become_anew(&program);
                    return Err(KeeperError::Exec { program, source });
                }
                Ok(End::Orderly(status)) => {
                    keeper.kill_all();
                    return Ok(status);
                }
                Err(error) => {
                    // Nobody else would end them.
                    keeper.kill_all();
                    return Err(KeeperError::Loop(error));
                }
            }
            let next = supervise(&program, args).or_else(|error| {
                tracing::error!("cannot start {}: {error}", program.display());
                program.clone_from(&own);
                supervise(&own, args)
            });
            match next {
                Ok(next) => (keeper.socket, keeper.supervisor) = next,
                Err(error) => {
                    keeper.kill_all();
                    return Err(KeeperError::Start(error));
                }
            }
        }
    }

    /// Waits for the supervisor, which is dying.
    pub(super) fn supervisor_end(&mut self) -> io::Result<End> {
        self.supervisor.wait().map(End::of)
    }
}

/// Waits out a delay; true when a stop was asked for meanwhile.
fn wait_or_stop(signals: &SignalFd, delay: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + delay;
    loop {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Ok(false);
        };
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        while let Some(info) = signals.read_signal()? {
            let signal = i32::try_from(info.ssi_signo).unwrap_or_default();
            if [libc::SIGTERM, libc::SIGINT].contains(&signal) {
                return Ok(true);
            }
        }
    }
}

/// Starts `manifold supervise --keeper-fd N ARGS...` with the other end of a new pair.
fn supervise(program: &Path, args: &[OsString]) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = protocol::pair()?;
    sys::inheritable(theirs.as_fd(), true)?;
    // The child starts with our signal mask; the supervisor resets it first thing.
    let child = Command::new(program)
        .arg0("manifold")
        .arg("supervise")
        .arg("--keeper-fd")
        .arg(theirs.as_raw_fd().to_string())
        .args(args)
        .spawn()?;
    Ok((ours, child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart_by_their_status() {
        let end = |raw| End::of(std::process::ExitStatus::from_raw(raw));
        assert_eq!(end(0), End::Orderly(0));
        assert_eq!(end(1 << 8), End::Orderly(1));
        assert_eq!(end(101 << 8), End::Crash(101));
        assert_eq!(end(libc::SIGKILL), End::Crash(137));
        assert_eq!(end(i32::from(HAND_OVER) << 8), End::HandOver);
        assert_eq!(end(i32::from(RENEW) << 8), End::Renew);
    }
}
