//! The keeper's one loop.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use zeroize::Zeroize as _;

use super::ahead::{self, Ahead, Near};
use super::child::{DynoChild, Said, points};
use super::protocol::{self, Mark, Reply, Request, StepFailure};
use super::reign::End;
use super::scratch::Scratch;
use super::{init, users};
use crate::dyno::{LaunchPlan, UserRange};
use crate::model::DynoId;
use crate::sys::{self, Clone3, Fault, Fork};

/// A launch whose command has not been exec'd yet.
pub(super) struct Launching {
    request: u64,
    dyno: DynoId,
    pid: u32,
    channel: OwnedFd,
}

pub(super) struct Dyno {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// Told to the supervisor: its end is news.
    pub(super) is_launched: bool,
    /// What its next supervisor needs; without it, it ends with this one.
    pub(super) parcel: Option<OwnedFd>,
    pub(super) mark: Mark,
    /// It ended, and no supervisor has taken that in yet.
    pub(super) ended: Option<u8>,
}

pub(super) struct Keeper {
    pub(super) scratch: Scratch,
    /// Ranges to make a namespace for when there is nothing else to do.
    pub(super) users: VecDeque<UserRange>,
    /// Ranges whose namespace this supervisor has been given: a launch may be faster than `users`.
    pub(super) warmed: HashSet<u32>,
    pub(super) ahead: Ahead,
    pub(super) filter: Vec<libc::sock_filter>,
    pub(super) socket: OwnedFd,
    pub(super) launching: Vec<Launching>,
    pub(super) dynos: HashMap<DynoId, Dyno>,
    /// Parcel of the listening sockets.
    pub(super) doors: Option<OwnedFd>,
    /// This supervisor knows what was there before it.
    pub(super) is_greeted: bool,
    /// It has what it needs, and has taken over.
    pub(super) is_settled: bool,
    pub(super) supervisor: Child,
    pub(super) buffer: Vec<u8>,
}

impl Keeper {
    pub(super) fn new(
        scratch: Scratch,
        filter: Vec<libc::sock_filter>,
        socket: OwnedFd,
        supervisor: Child,
    ) -> Self {
        Self {
            scratch,
            users: VecDeque::new(),
            warmed: HashSet::new(),
            ahead: Ahead::default(),
            filter,
            socket,
            launching: Vec::new(),
            dynos: HashMap::new(),
            doors: None,
            is_greeted: false,
            is_settled: false,
            supervisor,
            buffer: Vec::new(),
        }
    }

    /// Serves one supervisor until it ended.
    pub(super) fn serve(&mut self, signals: &SignalFd) -> io::Result<End> {
        // Whoever ended while there was none to tell.
        self.reap()?;
        loop {
            let ready = {
                let mut fds = vec![
                    PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                    PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                ];
                let channels = self.launching.iter().map(|launch| launch.channel.as_fd());
                let channels = channels.chain(self.ahead.channel());
                fds.extend(channels.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
                // A launch under way has the processors for itself.
                let timeout = match self.ahead.due() {
                    _ if !self.launching.is_empty() => PollTimeout::NONE,
                    _ if !self.users.is_empty() => PollTimeout::ZERO,
                    Some(due) => PollTimeout::try_from(due).unwrap_or(PollTimeout::MAX),
                    None => PollTimeout::NONE,
                };
                match poll(&mut fds, timeout) {
                    Err(Errno::EINTR) => continue,
                    Ok(0) if self.users.is_empty() => {
                        self.ahead.start(&self.scratch, &self.filter);
                        continue;
                    }
                    Ok(0) => {
                        self.make_user()?;
                        continue;
                    }
                    other => other?,
                };
                let set = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
                fds.iter().map(set).collect::<Vec<bool>>()
            };
            let launching = 2..2 + self.launching.len();
            if ready.get(launching.end) == Some(&true) {
                self.ahead.finish(&mut self.buffer);
            }
            // Channels first: a launch is told before the end of the same dyno.
            for at in launching.rev() {
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
                return self.supervisor_end();
            }
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) -> io::Result<Option<End>> {
        while let Some(info) = signals.read_signal()? {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or_default()) {
                Ok(Signal::SIGCHLD) if self.reap()? => {
                    return self.supervisor_end().map(Some);
                }
                Ok(signal @ (Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP)) => {
                    // A child of ours that is not reaped: the number is still its own.
                    let supervisor = sys::pidfd_open(self.supervisor.id())?;
                    sys::pidfd_send_signal(supervisor.as_fd(), signal as i32)?;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Reaps dynos; true when the supervisor is among the dead (left for `try_wait`).
    fn reap(&mut self) -> io::Result<bool> {
        self.ahead.reap();
        let mut ended = Vec::new();
        for (id, dyno) in self.dynos.iter().filter(|(_, dyno)| dyno.ended.is_none()) {
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
            match self.dynos.get_mut(&id) {
                Some(dyno) if dyno.is_launched => {
                    // Until somebody has taken that in.
                    dyno.ended = Some(status);
                    if self.is_greeted {
                        self.reply(&Reply::Exited { dyno: id, status }, &[])?;
                    }
                }
                _ => drop(self.dynos.remove(&id)),
            }
        }
        Ok(self.supervisor.try_wait()?.is_some())
    }

    /// One request; false when the supervisor is gone.
    fn take_request(&mut self) -> io::Result<bool> {
        if !self.is_greeted {
            return self.greet();
        }
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
                mut plan,
                cgroup_v2,
                has_user,
            } => {
                let launched = self.launch(request, &plan, fds, cgroup_v2, has_user);
                // The next dyno's PID 1 begins as a copy of this process.
                plan.exec.wipe();
                self.buffer.zeroize();
                if let Err(failure) = launched {
                    self.reply(&Reply::Failed { request, failure }, &[])?;
                }
            }
            Request::Signal { dyno, signal } => {
                if let Some(dyno) = self.dynos.get(&dyno) {
                    // It may have ended this very moment.
                    let _ = sys::pidfd_send_signal(dyno.pidfd.as_fd(), signal);
                }
            }
            Request::Warm { user, cgroup_v2 } => {
                let mut fds = fds.into_iter();
                if let Some(network) = fds.next() {
                    if !self.warmed.contains(&user.base) {
                        self.users.push_back(user);
                    }
                    self.ahead.want(Near {
                        range: user,
                        network,
                        cgroup: fds.collect(),
                        is_cgroup_v2: cgroup_v2,
                        since: Instant::now(),
                    });
                }
            }
            Request::Keep { dyno, mark } => self.keep(dyno, mark, fds.into_iter().next()),
            Request::Mark { dyno, mark } => self.mark(dyno, mark),
            Request::Forget(dyno) => self.forget(dyno),
            Request::Doors => {
                self.doors = fds.into_iter().next();
                self.is_settled = true;
            }
        }
        Ok(true)
    }

    /// The namespace of the next range that has none.
    fn make_user(&mut self) -> io::Result<()> {
        // A launch that finds none tries again, and says what failed.
        if let Some(range) = self.users.pop_front()
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
        if shown.map_err(failed("show the size at /sys/fs/cgroup"))? {
            // What was made before does not have it.
            self.ahead.let_go();
        }
        fault
            .at("make a channel")
            .map_err(failed("make a channel"))?;
        fault.at("clone").map_err(failed("clone"))?;
        let made = self.ahead.take(plan.user);
        tracing::debug!(dyno = %plan.dyno, is_ahead = made.is_some(), "a launch's PID 1");
        if let Some(made) = made {
            let streams = [stdin, stdout, stderr].map(AsFd::as_fd);
            let [stdin, stdout, stderr] = streams;
            let fds = [user.as_fd(), writable.as_fd(), stdin, stdout, stderr];
            match made.send(&self.buffer, fds) {
                Ok(()) => {
                    self.launches(request, plan.dyno, made.pid, made.pidfd, made.channel);
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(%error, "a process that was made ahead is gone");
                    self.ahead.give_up(made);
                }
            }
        }
        let (ours, theirs) = protocol::channel().map_err(failed("make a channel"))?;
        let flags = CloneFlags::CLONE_NEWPID | ahead::NAMESPACES;
        let into = if cgroup_v2 {
            cgroup.first().map(AsFd::as_fd)
        } else {
            None
        };
        let clone = Clone3 {
            namespaces: flags.bits(),
            cgroup: into,
        };
        match clone.call().map_err(failed("clone"))? {
            Fork::Parent { pid, pidfd } => {
                drop(theirs);
                self.launches(request, plan.dyno, pid, pidfd, ours);
                Ok(())
            }
            Fork::Child => {
                drop(ours);
                let tasks = if cgroup_v2 { &[] } else { cgroup };
                let child = DynoChild {
                    plan,
                    scratch: &self.scratch,
                    ahead: None,
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

    /// From now on it is a dyno's, and says on the channel how far it came.
    fn launches(&mut self, request: u64, dyno: DynoId, pid: u32, pidfd: OwnedFd, channel: OwnedFd) {
        self.dynos.insert(
            dyno,
            Dyno {
                pid,
                pidfd,
                is_launched: false,
                parcel: None,
                mark: Mark::Started,
                ended: None,
            },
        );
        self.launching.push(Launching {
            request,
            dyno,
            pid,
            channel,
        });
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

    pub(super) fn reply(&self, reply: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match protocol::send(self.socket.as_fd(), reply, fds) {
            // The supervisor is gone; its exit is on its way to us.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => other,
        }
    }

    /// Ends every dyno and waits for each.
    pub(super) fn kill_all(&mut self) {
        self.ahead.forget();
        self.launching.clear();
        for dyno in self.dynos.values() {
            let _ = sys::pidfd_send_signal(dyno.pidfd.as_fd(), libc::SIGKILL);
        }
        for (id, dyno) in self.dynos.drain() {
            if dyno.ended.is_some() {
                continue;
            }
            let pid = nix::unistd::Pid::from_raw(i32::try_from(dyno.pid).unwrap_or(i32::MAX));
            if let Err(errno) = waitpid(pid, None) {
                tracing::warn!("dyno {id}: waiting for its PID 1 failed: {errno}");
            }
        }
    }
}
