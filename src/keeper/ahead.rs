//! What of a launch is made before anybody asks for it: its mount, UTS and IPC namespaces.
//!
//! A child makes them, leaves the host's mounts for the keeper's scratch, mounts there what does
//! not depend on the app, hands over the namespaces, and ends. They live on in our descriptors,
//! each for one launch into one range of ids: its PID 1 enters them instead of making its own,
//! and moves the mounts to their places. A launch that finds none makes all of it itself.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::protocol;
use super::scratch::{self, INERT, Scratch};
use crate::dyno::{SHM_BYTES, UserRange};
use crate::sys::{self, Clone3, Fault, Fork, FsContext, MountAttributes};

/// The group that owns terminals inside. Source: Debian's base-passwd ("tty").
pub(super) const TTY_GID: u32 = 5;

/// Where the mounts wait, in the scratch.
pub(super) const TERMINALS: &str = "terminals";
pub(super) const SHARED_MEMORY: &str = "memory";
pub(super) const QUEUES: &str = "queues";

/// Most launches that are prepared; the supervisor says of eight at a time that they are near. Past
/// it the oldest goes: nobody came for it.
const MADE_MAX: usize = 16;

/// Prepared only when no launch came for so long: in a burst there is no time ahead.
const QUIET: Duration = Duration::from_millis(20);

/// The point at which preparing may be made to fail.
const POINT: &str = "make namespaces ahead";

/// The namespaces of a launch to come.
#[derive(Debug)]
pub(super) struct Namespaces {
    mounts: OwnedFd,
    names: OwnedFd,
    queues: OwnedFd,
}

impl Namespaces {
    /// Kinds that a launch without them makes with its clone.
    pub(super) const KINDS: CloneFlags = CloneFlags::CLONE_NEWNS
        .union(CloneFlags::CLONE_NEWUTS)
        .union(CloneFlags::CLONE_NEWIPC);

    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [&self.mounts, &self.names, &self.queues].map(AsFd::as_fd)
    }

    /// Root and working directory are the scratch from here on.
    pub(super) fn enter(&self) -> io::Result<()> {
        setns(&self.queues, CloneFlags::CLONE_NEWIPC)?;
        setns(&self.names, CloneFlags::CLONE_NEWUTS)?;
        Ok(setns(&self.mounts, CloneFlags::CLONE_NEWNS)?)
    }
}

/// All launches to come.
#[derive(Debug)]
pub(super) struct Ahead {
    made: VecDeque<(UserRange, Namespaces)>,
    making: Option<Making>,
    wanted: VecDeque<UserRange>,
    /// When the last launch came.
    last: Instant,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            made: VecDeque::new(),
            making: None,
            wanted: VecDeque::new(),
            last: Instant::now(),
        }
    }
}

impl Ahead {
    /// A launch into this range is near.
    pub(super) fn want(&mut self, range: UserRange) {
        self.wanted.push_back(range);
    }

    /// How long until the next may be made, if there is one.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.making.is_some() || self.wanted.is_empty() {
            return None;
        }
        Some(QUIET.saturating_sub(self.last.elapsed()))
    }

    /// Starts the next.
    pub(super) fn start(&mut self, scratch: &Scratch) {
        if let Some(range) = self.wanted.pop_front() {
            // A launch that finds none makes its own, and says what failed.
            self.making = Making::start(scratch, range).ok();
        }
    }

    /// Readable when what is being made is finished.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.making.as_ref().map(|making| making.channel.as_fd())
    }

    /// Takes what was being made.
    pub(super) fn finish(&mut self, buffer: &mut Vec<u8>) {
        if let Some(making) = self.making.take()
            && let (range, Some(made)) = (making.range, making.finish(buffer))
            // A launch may have been faster.
            && let Some(range) = range
        {
            self.made.push_back((range, made));
            if self.made.len() > MADE_MAX {
                self.made.pop_front();
            }
        }
    }

    /// A launch into this range is here.
    pub(super) fn take(&mut self, range: UserRange) -> Option<Namespaces> {
        self.last = Instant::now();
        self.wanted.retain(|wanted| *wanted != range);
        if let Some(making) = &mut self.making
            && making.range == Some(range)
        {
            making.range = None;
        }
        let at = self.made.iter().position(|(made, _)| *made == range)?;
        self.made.remove(at).map(|(_, made)| made)
    }

    /// Lets go of all of it.
    pub(super) fn forget(&mut self) {
        self.made.clear();
        self.wanted.clear();
        if let Some(making) = self.making.take() {
            making.give_up();
        }
    }
}

/// A child that is making them.
#[derive(Debug)]
struct Making {
    /// None: nobody wants it any more.
    range: Option<UserRange>,
    channel: OwnedFd,
    pid: u32,
    pidfd: OwnedFd,
}

impl Making {
    /// Starts; what was made, or that it failed, comes over the channel.
    fn start(scratch: &Scratch, range: UserRange) -> io::Result<Self> {
        let (ours, theirs) = protocol::channel()?;
        let clone = Clone3 {
            namespaces: Namespaces::KINDS.bits(),
            cgroup: None,
        };
        match clone.call()? {
            Fork::Parent { pid, pidfd } => Ok(Self {
                range: Some(range),
                channel: ours,
                pid,
                pidfd,
            }),
            Fork::Child => {
                drop(ours);
                // Nobody hears of a failure: a launch without it tries again, and says what failed.
                let is_told = make(scratch, range).is_ok_and(|made| {
                    protocol::send(theirs.as_fd(), &(), &made.descriptors()).is_ok()
                });
                sys::exit_now(u8::from(!is_told));
            }
        }
    }

    /// Takes what was made, once the channel says something; waits for the child's end. Whatever went
    /// wrong with it concerns no dyno.
    fn finish(self, buffer: &mut Vec<u8>) -> Option<Namespaces> {
        let heard = protocol::receive::<()>(self.channel.as_fd(), buffer);
        self.reap();
        let ((), fds) = heard.ok().flatten()?;
        let [mounts, names, queues] = <[OwnedFd; 3]>::try_from(fds).ok()?;
        Some(Namespaces {
            mounts,
            names,
            queues,
        })
    }

    /// Ends it.
    fn give_up(self) {
        // It may have ended by itself.
        let _ = sys::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        self.reap();
    }

    fn reap(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX));
        if let Err(errno) = nix::sys::wait::waitpid(pid, None) {
            tracing::warn!("waiting for a child that made namespaces failed: {errno}");
        }
    }
}

fn make(scratch: &Scratch, range: UserRange) -> io::Result<Namespaces> {
    Fault::read().at(POINT)?;
    // While the host's /proc is in sight.
    let open = |kind| File::open(format!("/proc/self/ns/{kind}")).map(OwnedFd::from);
    let made = Namespaces {
        mounts: open("mnt")?,
        names: open("uts")?,
        queues: open("ipc")?,
    };
    scratch::keep_mounts_private()?;
    std::env::set_current_dir(&scratch.dir)?;
    scratch::pivot_here()?;
    let at = |mounted: OwnedFd, name: &str| {
        let target = scratch::place(&Path::new("/").join(name))?;
        sys::attach(mounted.as_fd(), target.as_fd())
    };
    at(terminals(range)?, TERMINALS)?;
    at(shared_memory(SHM_BYTES)?, SHARED_MEMORY)?;
    at(queues()?, QUEUES)?;
    Ok(made)
}

/// A fresh devpts.
pub(super) fn terminals(range: UserRange) -> io::Result<OwnedFd> {
    let fs = FsContext::open(c"devpts")?;
    fs.set(c"ptmxmode", "0666")?;
    fs.set(c"mode", "0620")?;
    fs.set(c"gid", &(range.base + TTY_GID).to_string())?;
    fs.set(c"max", "64")?;
    fs.mount(MountAttributes {
        no_suid: true,
        no_exec: true,
        ..Default::default()
    })
}

/// A tmpfs for /dev/shm.
pub(super) fn shared_memory(bytes: u64) -> io::Result<OwnedFd> {
    let fs = FsContext::open(c"tmpfs")?;
    fs.set(c"mode", "1777")?;
    fs.set(c"size", &bytes.to_string())?;
    fs.mount(MountAttributes {
        read_only: false,
        ..INERT
    })
}

/// POSIX message queues of this IPC namespace.
pub(super) fn queues() -> io::Result<OwnedFd> {
    FsContext::open(c"mqueue")?.mount(MountAttributes {
        read_only: false,
        ..INERT
    })
}
