//! PID 1s made before anybody asks for them.
//!
//! Each is cloned for one launch into one range of ids and does what does not depend on the app: it
//! joins the launch's group, enters its network, makes its other namespaces, and in a root of the
//! keeper's scratch the mounts that are the same for all. Then it goes back to the host's mounts,
//! where the layers of its root are, and waits for its plan. It ends with the keeper, or when it is
//! let go of. A launch that finds none makes all of it itself, by the same steps.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::MsgFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::child::{self, DynoChild};
use super::protocol::{self, Request};
use super::scratch::{self, INERT, Scratch};
use super::steps;
use crate::dyno::{SHM_BYTES, UserRange};
use crate::sys::{self, Clone3, Fault, Fork, FsContext, MountAttributes};

/// The group that owns terminals inside. Source: Debian's base-passwd ("tty").
pub(super) const TTY_GID: u32 = 5;

/// Where the mounts wait, in the scratch.
pub(super) const TERMINALS: &str = "terminals";
pub(super) const SHARED_MEMORY: &str = "memory";
pub(super) const QUEUES: &str = "queues";
pub(super) const PROC: &str = "proc";
pub(super) const SYS: &str = "sys";
pub(super) const UNIFIED: &str = "unified";

/// Most of them; the supervisor says of eight launches at a time that they are near. Past it the
/// oldest goes: nobody came for it.
const MADE_MAX: usize = 16;

/// Made only when no launch came for so long, and none for what was said to be near: in a burst there
/// is no time ahead.
const QUIET: Duration = Duration::from_millis(20);

/// What one says when it is finished. Nothing at all would be the channel's end.
const READY: u8 = 1;

/// The point at which making one may be made to fail.
const POINT: &str = "make a process ahead";

/// Namespaces that a PID 1 has beside those of processes, users, its group and the network.
pub(super) const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC);

/// A launch that is near.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) range: UserRange,
    pub(super) network: OwnedFd,
    /// One v2 directory, or the v1 `tasks` files.
    pub(super) cgroup: Vec<OwnedFd>,
    pub(super) is_cgroup_v2: bool,
    /// When that was said.
    pub(super) since: Instant,
}

/// All launches to come.
#[derive(Debug)]
pub(super) struct Ahead {
    made: VecDeque<Made>,
    making: Option<Made>,
    wanted: VecDeque<Near>,
    /// Killed: their end may take the kernel longer than a launch.
    dying: Vec<Made>,
    /// When the last launch came.
    last: Instant,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            made: VecDeque::new(),
            making: None,
            wanted: VecDeque::new(),
            dying: Vec::new(),
            last: Instant::now(),
        }
    }
}

impl Ahead {
    /// A launch is near. What was made for its range before is of an earlier one.
    pub(super) fn want(&mut self, near: Near) {
        if let Some(made) = self.find(near.range) {
            self.give_up(made);
        }
        self.wanted.push_back(near);
        if self.wanted.len() > MADE_MAX {
            self.wanted.pop_front();
        }
    }

    /// How long until the next may be made, if there is one.
    pub(super) fn due(&self) -> Option<Duration> {
        if self.making.is_some() {
            return None;
        }
        let since = self.wanted.front()?.since.max(self.last);
        Some(QUIET.saturating_sub(since.elapsed()))
    }

    /// Starts the next.
    pub(super) fn start(&mut self, scratch: &Scratch, filter: &[libc::sock_filter]) {
        if let Some(near) = self.wanted.pop_front() {
            // A launch that finds none makes its own, and says what failed.
            self.making = Made::start(&near, scratch, filter).ok();
        }
    }

    /// Readable when the one that is being made is finished.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.making.as_ref().map(|making| making.channel.as_fd())
    }

    /// Takes the one that was being made, unless it failed.
    pub(super) fn finish(&mut self, buffer: &mut Vec<u8>) {
        let Some(made) = self.making.take() else {
            return;
        };
        let heard = protocol::receive::<u8>(made.channel.as_fd(), buffer);
        if !matches!(heard, Ok(Some((READY, _)))) {
            return self.give_up(made);
        }
        self.made.push_back(made);
        if self.made.len() > MADE_MAX
            && let Some(oldest) = self.made.pop_front()
        {
            self.give_up(oldest);
        }
    }

    /// A launch into this range is here.
    pub(super) fn take(&mut self, range: UserRange) -> Option<Made> {
        self.last = Instant::now();
        self.find(range)
    }

    fn find(&mut self, range: UserRange) -> Option<Made> {
        self.wanted.retain(|near| near.range != range);
        // A launch may be faster.
        if let Some(making) = self.making.take_if(|making| making.range == range) {
            self.give_up(making);
        }
        let at = self.made.iter().position(|made| made.range == range)?;
        self.made.remove(at)
    }

    /// Ends one, and does not wait for that.
    pub(super) fn give_up(&mut self, made: Made) {
        // It may have ended by itself.
        let _ = sys::pidfd_send_signal(made.pidfd.as_fd(), libc::SIGKILL);
        self.dying.push(made);
    }

    /// Takes in who has ended, also of those that nobody let go of.
    pub(super) fn reap(&mut self) {
        let lives = |made: &Made| !made.has_ended(WaitPidFlag::WNOHANG);
        self.dying.retain(lives);
        self.made.retain(lives);
    }

    /// Lets go of all of it.
    pub(super) fn let_go(&mut self) {
        self.wanted.clear();
        let all: Vec<_> = self.made.drain(..).chain(self.making.take()).collect();
        for made in all {
            self.give_up(made);
        }
    }

    /// Lets go of all of it, and waits until it is gone.
    pub(super) fn forget(&mut self) {
        self.let_go();
        self.dying.drain(..).for_each(|made| {
            made.has_ended(WaitPidFlag::empty());
        });
    }
}

/// A PID 1 that waits for its plan.
#[derive(Debug)]
pub(super) struct Made {
    range: UserRange,
    pub(super) channel: OwnedFd,
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
}

impl Made {
    /// Starts one; that it is finished comes over the channel, else the channel's end.
    fn start(near: &Near, scratch: &Scratch, filter: &[libc::sock_filter]) -> io::Result<Self> {
        let (ours, theirs) = protocol::pair()?;
        let into = near.is_cgroup_v2.then(|| near.cgroup.first()).flatten();
        let clone = Clone3 {
            namespaces: CloneFlags::CLONE_NEWPID.bits(),
            cgroup: into.map(AsFd::as_fd),
        };
        match clone.call()? {
            Fork::Parent { pid, pidfd } => Ok(Self {
                range: near.range,
                channel: ours,
                pid,
                pidfd,
            }),
            Fork::Child => {
                drop(ours);
                wait(near, theirs, scratch, filter)
            }
        }
    }

    /// Hands over the launch, as it came: the plan and the descriptors of user namespace, writable
    /// layer and streams. An error: it is gone.
    pub(super) fn send(&self, launch: &[u8], fds: [BorrowedFd<'_>; 5]) -> io::Result<()> {
        protocol::send_bytes(self.channel.as_fd(), launch, &fds, MsgFlags::empty())
    }

    fn has_ended(&self, flags: WaitPidFlag) -> bool {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX));
        match waitpid(pid, Some(flags)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => false,
            Ok(_) => true,
            Err(errno) => {
                tracing::warn!("waiting for a process that was made ahead failed: {errno}");
                true
            }
        }
    }
}

/// The life of a PID 1 that was made ahead. Nobody hears of a failure: a launch without it tries
/// again, and says what failed.
fn wait(near: &Near, channel: OwnedFd, scratch: &Scratch, filter: &[libc::sock_filter]) -> ! {
    let mounts = prepare(near, channel.as_fd(), scratch);
    let ready = mounts.and_then(|mounts| {
        protocol::send(channel.as_fd(), &READY, &[])?;
        Ok(mounts)
    });
    let Ok(mounts) = ready else {
        sys::exit_now(1);
    };
    let launch = protocol::receive::<Request>(channel.as_fd(), &mut Vec::new());
    let Ok(Some((Request::Launch { plan, .. }, fds))) = launch else {
        // The keeper is gone, or wants none.
        sys::exit_now(0);
    };
    let Ok([user, writable, stdin, stdout, stderr]) = <[OwnedFd; 5]>::try_from(fds) else {
        sys::exit_now(1);
    };
    let child = DynoChild {
        plan: &plan,
        scratch,
        ahead: Some(mounts.as_fd()),
        user: user.as_fd(),
        network: near.network.as_fd(),
        writable: writable.as_fd(),
        streams: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        tasks: &[],
        filter,
        channel,
        fault: Fault::read(),
    };
    child.run()
}

/// Its mount namespace, which it has left again.
fn prepare(near: &Near, channel: BorrowedFd<'_>, scratch: &Scratch) -> io::Result<OwnedFd> {
    Fault::read().at(POINT)?;
    let tasks = if near.is_cgroup_v2 {
        &[]
    } else {
        &near.cgroup[..]
    };
    let ours = [channel, near.network.as_fd()].into_iter();
    child::begin(
        &ours
            .chain(tasks.iter().map(AsFd::as_fd))
            .collect::<Vec<_>>(),
    )?;
    sys::die_with_parent()?;
    sys::show_as_spare()?;
    steps::neutral()?;
    steps::join_cgroup(tasks)?;
    setns(&near.network, CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    // While the host's /proc is in sight.
    let here = || File::open("/proc/thread-self/ns/mnt").map(OwnedFd::from);
    let home = here()?;
    unshare(NAMESPACES)?;
    let mounts = here()?;
    scratch::keep_mounts_private()?;
    std::env::set_current_dir(&scratch.dir)?;
    scratch::pivot_here()?;
    let at = |mounted: OwnedFd, name: &str| {
        let target = scratch::place(&Path::new("/").join(name))?;
        sys::attach(mounted.as_fd(), target.as_fd())
    };
    at(terminals(near.range)?, TERMINALS)?;
    at(shared_memory(SHM_BYTES)?, SHARED_MEMORY)?;
    at(queues()?, QUEUES)?;
    at(processes()?, PROC)?;
    at(kernel()?, SYS)?;
    if scratch.has_unified {
        at(unified()?, UNIFIED)?;
    }
    setns(&home, CloneFlags::CLONE_NEWNS)?;
    Ok(mounts)
}

/// A /proc of this pid namespace.
pub(super) fn processes() -> io::Result<OwnedFd> {
    FsContext::open(c"proc")?.mount(MountAttributes {
        read_only: false,
        ..INERT
    })
}

/// A read-only /sys of this network namespace.
pub(super) fn kernel() -> io::Result<OwnedFd> {
    FsContext::open(c"sysfs")?.mount(INERT)
}

/// The v2 hierarchy from this cgroup namespace's root on.
pub(super) fn unified() -> io::Result<OwnedFd> {
    FsContext::open(c"cgroup2")?.mount(INERT)
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
