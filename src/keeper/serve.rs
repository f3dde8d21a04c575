//! The keeper's one loop.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::child::{DynoChild, Said, points};
use super::protocol::{self, Reply, Request, StepFailure};
use super::steps::{self, Scratch};
use super::{filter, init, ready, users};
use crate::dyno::{LaunchPlan, UserRange};
use crate::model::DynoId;
use crate::sys::{self, Clone3, Fault, Fork};

/// Restart delay of a crashed supervisor: doubles up to the last.
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
pub fn start(scratch: &Path, args: impl IntoIterator<Item = std::ffi::OsString>) -> KeeperError {
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
pub fn main(args: Vec<std::ffi::OsString>) -> ExitCode {
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

/// A launch whose command has not been exec'd yet.
struct Launching {
    request: u64,
    dyno: DynoId,
    pid: u32,
    channel: OwnedFd,
}

struct Dyno {
    pid: u32,
    pidfd: OwnedFd,
    /// Told to the supervisor: its end is news.
    is_launched: bool,
}

struct Keeper {
    scratch: Scratch,
    /// Ranges to make ready when there is nothing else to do.
    warm: VecDeque<UserRange>,
    /// Ranges whose namespace this supervisor has been given: a launch may be faster than `warm`.
    warmed: HashSet<u32>,
    filter: Vec<libc::sock_filter>,
    socket: OwnedFd,
    launching: Vec<Launching>,
    dynos: HashMap<DynoId, Dyno>,
    supervisor: Child,
    buffer: Vec<u8>,
}

impl Keeper {
    fn run(scratch_dir: &Path, args: &[std::ffi::OsString]) -> Result<u8, KeeperError> {
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
        let (socket, supervisor) = supervise(args).map_err(KeeperError::Start)?;
        let mut keeper = Self {
            scratch,
            warm: VecDeque::new(),
            warmed: HashSet::new(),
            filter: filter::compile(),
            socket,
            launching: Vec::new(),
            dynos: HashMap::new(),
            supervisor,
            buffer: Vec::new(),
        };
        let mut delay = RESTART_DELAYS.0;
        loop {
            let started = Instant::now();
            let served = keeper.serve(&signals);
            // Before any error is passed on: nobody else would end them.
            keeper.kill_all();
            keeper.warm.clear();
            keeper.warmed.clear();
            let (status, is_crash) = served.map_err(KeeperError::Loop)?;
            if !is_crash {
                return Ok(status);
            }
            if started.elapsed() > STEADY {
                delay = RESTART_DELAYS.0;
            }
            tracing::error!(
                "the supervisor crashed (status {status}); starting it again in {delay:?}"
            );
            if wait_or_stop(&signals, delay).map_err(KeeperError::Loop)? {
                return Ok(status);
            }
            delay = (delay * 2).min(RESTART_DELAYS.1);
            (keeper.socket, keeper.supervisor) = supervise(args).map_err(KeeperError::Start)?;
        }
    }

    /// Serves one supervisor until it ended: its status, and whether that was a crash.
    fn serve(&mut self, signals: &SignalFd) -> io::Result<(u8, bool)> {
        loop {
            let ready = {
                let mut fds = vec![
                    PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                    PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                ];
                let channels = self.launching.iter();
                fds.extend(channels.map(|l| PollFd::new(l.channel.as_fd(), PollFlags::POLLIN)));
                // A launch under way has the processors for itself.
                let is_idle = self.launching.is_empty() && !self.warm.is_empty();
                let timeout = if is_idle {
                    PollTimeout::ZERO
                } else {
                    PollTimeout::NONE
                };
                match poll(&mut fds, timeout) {
                    Err(Errno::EINTR) => continue,
                    Ok(0) => {
                        self.warm_one()?;
                        continue;
                    }
                    other => other?,
                };
                let set = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
                fds.iter().map(set).collect::<Vec<bool>>()
            };
            // Channels first: a launch is told before the end of the same dyno.
            for at in (2..ready.len()).rev() {
                if ready[at] {
                    self.hear(at - 2)?;
                }
            }
            if ready[1]
                && let Some(end) = self.take_signals(signals)?
            {
                return Ok(end);
            }
            if ready[0] && !self.take_request()? {
                // The supervisor closed its end: it is dying; its exit comes as a signal.
                self.await_supervisor()?;
                let end = self.supervisor_end()?;
                return Ok(end);
            }
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) -> io::Result<Option<(u8, bool)>> {
        while let Some(info) = signals.read_signal()? {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or_default()) {
                Ok(Signal::SIGCHLD) if self.reap()? => {
                    return self.supervisor_end().map(Some);
                }
                Ok(signal @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP)) => {
                    let pid = i32::try_from(self.supervisor.id()).unwrap_or(i32::MAX);
                    let pid = nix::unistd::Pid::from_raw(pid);
                    nix::sys::signal::kill(pid, signal)?;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reaps dynos; true when the supervisor is among the dead (left for `try_wait`).
    fn reap(&mut self) -> io::Result<bool> {
        let mut ended = Vec::new();
        for (id, dyno) in &self.dynos {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(dyno.pid).unwrap_or(i32::MAX));
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, code)) => {
                    ended.push((*id, u8::try_from(code & 0xFF).unwrap_or(u8::MAX)));
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    ended.push((*id, init::signal_status(signal)));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        for (id, status) in ended {
            // What the dead said last is still in its channel.
            if let Some(at) = self.launching.iter().position(|l| l.dyno == id) {
                self.hear_all(at)?;
            }
            let was_launched = self.dynos.remove(&id).is_some_and(|d| d.is_launched);
            if was_launched {
                self.reply(&Reply::Exited { dyno: id, status }, &[])?;
            }
        }
        Ok(self.supervisor.try_wait()?.is_some())
    }

    fn supervisor_end(&mut self) -> io::Result<(u8, bool)> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.supervisor.wait()?;
        let code = status
            .code()
            .or_else(|| status.signal().map(|s| 128 + s))
            .and_then(|c| u8::try_from(c).ok())
            .unwrap_or(u8::MAX);
        // A panic ends with 101 or SIGABRT; every orderly refusal has a status of its own.
        Ok((code, status.signal().is_some() || code == 101))
    }

    fn await_supervisor(&mut self) -> io::Result<()> {
        self.supervisor.wait().map(drop)
    }

    /// One request; false when the supervisor is gone.
    fn take_request(&mut self) -> io::Result<bool> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = protocol::receive::<Request>(self.socket.as_fd(), &mut buffer);
        self.buffer = buffer;
        let (request, fds) = match received {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        };
        match request {
            Request::Launch {
                request,
                plan,
                cgroup_v2,
                has_user,
            } => {
                if let Err(failure) = self.launch(request, &plan, fds, cgroup_v2, has_user) {
                    self.reply(&Reply::Failed { request, failure }, &[])?;
                }
            }
            Request::Signal { dyno, signal } => {
                if let Some(dyno) = self.dynos.get(&dyno) {
                    // It may have ended this very moment.
                    let _ = sys::pidfd_send_signal(dyno.pidfd.as_fd(), signal);
                }
            }
            Request::Warm(user) => self.warm.push_back(user),
        }
        Ok(true)
    }

    fn warm_one(&mut self) -> io::Result<()> {
        // A launch that finds none tries again, and says what failed.
        if let Some(range) = self.warm.pop_front()
            && !self.warmed.contains(&range.base)
            && let Ok(user) = users::make(range)
        {
            return self.hand_over(range, &user);
        }
        Ok(())
    }

    /// Gives the supervisor the namespace of a range, for every launch to come.
    fn hand_over(&mut self, range: UserRange, user: &OwnedFd) -> io::Result<()> {
        self.warmed.insert(range.base);
        self.reply(&Reply::Warmed(range), &[user.as_fd()])
    }

    fn launch(
        &mut self,
        request: u64,
        plan: &LaunchPlan,
        mut fds: Vec<OwnedFd>,
        cgroup_v2: bool,
        has_user: bool,
    ) -> Result<(), StepFailure> {
        let failed = |step: &str| {
            let step = step.to_owned();
            move |error: io::Error| StepFailure {
                step,
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            }
        };
        let fault = Fault::read();
        sys::passed(points(plan));
        let user = fault.at("make a user namespace").and_then(|()| {
            if has_user {
                let missing = || io::Error::from_raw_os_error(libc::EBADMSG);
                return fds.pop().ok_or_else(missing);
            }
            let user = users::make(plan.user)?;
            self.hand_over(plan.user, &user)?;
            Ok(user)
        });
        let user = user.map_err(failed("make a user namespace"))?;
        let [network, writable, stdin, stdout, stderr, cgroup @ ..] = &fds[..] else {
            return Err(StepFailure {
                step: "receive descriptors".into(),
                errno: libc::EBADMSG,
            });
        };
        let shown = self.scratch.prepare(plan);
        shown.map_err(failed("show the size at /sys/fs/cgroup"))?;
        let pair = fault
            .at("make a channel")
            .and_then(|()| protocol::channel());
        let (ours, theirs) = pair.map_err(failed("make a channel"))?;
        let flags = CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        let into = if cgroup_v2 {
            cgroup.first().map(AsFd::as_fd)
        } else {
            None
        };
        let clone = Clone3 {
            namespaces: flags.bits(),
            cgroup: into,
        };
        let cloned = fault.at("clone").and_then(|()| clone.call());
        match cloned.map_err(failed("clone"))? {
            Fork::Parent { pid, pidfd } => {
                drop(theirs);
                self.dynos.insert(
                    plan.dyno,
                    Dyno {
                        pid,
                        pidfd,
                        is_launched: false,
                    },
                );
                self.launching.push(Launching {
                    request,
                    dyno: plan.dyno,
                    pid,
                    channel: ours,
                });
                Ok(())
            }
            Fork::Child => {
                drop(ours);
                let tasks = if cgroup_v2 { &[] } else { cgroup };
                let child = DynoChild {
                    plan,
                    scratch: &self.scratch,
                    user: user.as_fd(),
                    network: network.as_fd(),
                    writable: writable.as_fd(),
                    streams: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
                    tasks,
                    filter: &self.filter,
                    channel: theirs,
                    fault,
                };
                child.run()
            }
        }
    }

    /// Takes everything a launching dyno has said.
    fn hear_all(&mut self, at: usize) -> io::Result<()> {
        while self.launching.get(at).is_some() {
            let before = self.launching.len();
            self.hear(at)?;
            if self.launching.len() < before {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One message of a launching dyno.
    fn hear(&mut self, at: usize) -> io::Result<()> {
        let channel = self.launching[at].channel.as_fd();
        let heard = protocol::receive::<Said>(channel, &mut self.buffer);
        match heard {
            Ok(Some((Said::Failed(failure), _))) => self.give_up(at, failure),
            Ok(Some((Said::Launched, terminal))) => {
                let launch = self.launching.swap_remove(at);
                if let Some(dyno) = self.dynos.get_mut(&launch.dyno) {
                    dyno.is_launched = true;
                }
                let terminal: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
                self.reply(
                    &Reply::Launched {
                        request: launch.request,
                        pid: launch.pid,
                    },
                    &terminal,
                )
            }
            Ok(None) | Err(_) => {
                let step = "set up (it was killed)".to_owned();
                self.give_up(
                    at,
                    StepFailure {
                        step,
                        errno: libc::ESRCH,
                    },
                )
            }
        }
    }

    fn give_up(&mut self, at: usize, failure: StepFailure) -> io::Result<()> {
        let launch = self.launching.swap_remove(at);
        if let Some(dyno) = self.dynos.get(&launch.dyno) {
            let _ = sys::pidfd_send_signal(dyno.pidfd.as_fd(), libc::SIGKILL);
        }
        self.reply(
            &Reply::Failed {
                request: launch.request,
                failure,
            },
            &[],
        )
    }

    fn reply(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match protocol::send(self.socket.as_fd(), reply, fds) {
            // The supervisor is gone; its exit is on its way to us.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => other,
        }
    }

    /// Ends every dyno and waits for each.
    fn kill_all(&mut self) {
        self.launching.clear();
        for dyno in self.dynos.values() {
            let _ = sys::pidfd_send_signal(dyno.pidfd.as_fd(), libc::SIGKILL);
        }
        for (id, dyno) in self.dynos.drain() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(dyno.pid).unwrap_or(i32::MAX));
            if let Err(errno) = waitpid(pid, None) {
                tracing::warn!("dyno {id}: waiting for its PID 1 failed: {errno}");
            }
        }
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
fn supervise(args: &[std::ffi::OsString]) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = protocol::pair()?;
    sys::inheritable(theirs.as_fd(), true)?;
    // The child starts with our signal mask; the supervisor resets it first thing.
    let child = Command::new(sys::own_program())
        .arg0("manifold")
        .arg("supervise")
        .arg("--keeper-fd")
        .arg(theirs.as_raw_fd().to_string())
        .args(args)
        .spawn()?;
    Ok((ours, child))
}
