//! The seam between deciding and doing: what the driver asks of the host.
//!
//! `effects::LinuxMachine` is the real one (cgroup, network, rootfs, keeper); tests use a fake.

use std::future::Future;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DiskRoom, Record, Sample};
use crate::cgroup::Glance;
use crate::disk::{Changes, Keep};
use crate::keeper::Mark;
use crate::model::{Digest, DynoId, DynoName, DynoSize, ExitStatus, StackImage, StackRef};

/// Everything needed to launch one dyno.
#[derive(Clone, Debug)]
pub struct LaunchOrder {
    /// Identity of this run.
    pub id: DynoId,
    /// `web.1`.
    pub name: DynoName,
    /// Which system image.
    pub stack: StackRef,
    /// Its run or build image.
    pub image: StackImage,
    /// Slug below `/app`; `None`: an empty `/app`.
    pub slug: Option<Digest>,
    /// Limits.
    pub size: DynoSize,
    /// Shell text, run by `bash -c` in `/app` after the profile scripts.
    pub command: String,
    /// The whole environment, in order (from `dyno::env`).
    pub env: Vec<(String, String)>,
    /// How stdin, stdout and stderr are connected.
    pub stdio: StdioOrder,
    /// Directories of the host made visible inside (builds).
    pub binds: Vec<Bind>,
    /// Time that children left behind by an ended command get between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
}

/// A host directory inside a dyno. Ids are shifted as for the slug (0 on disk is root inside,
/// 1000 on disk is the `dyno` user).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Directory on the host.
    pub source: PathBuf,
    /// Absolute path inside; made if missing.
    pub target: PathBuf,
    /// True: mounted read-only.
    pub read_only: bool,
}

/// How the standard streams are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdioOrder {
    /// stdin from `/dev/null`, stdout and stderr into one pipe.
    Logged,
    /// Three pipes.
    Pipes,
    /// A pty of the dyno's own devpts as controlling terminal.
    Terminal(WindowSize),
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WindowSize {
    /// Columns, 0 if unknown.
    pub columns: u16,
    /// Rows, 0 if unknown.
    pub rows: u16,
}

/// Our ends of the standard streams. All are non-blocking and close-on-exec.
#[derive(Debug)]
pub enum LaunchedStdio {
    /// Read end of the pipe of stdout and stderr.
    Logged(OwnedFd),
    /// Write end of stdin, read ends of stdout and stderr.
    Pipes {
        /// stdin.
        stdin: OwnedFd,
        /// stdout.
        stdout: OwnedFd,
        /// stderr.
        stderr: OwnedFd,
    },
    /// The pty master.
    Terminal(OwnedFd),
}

/// A dyno whose command was exec'd.
#[derive(Debug)]
pub struct Launched {
    /// Host pid of the dyno's PID 1 (0 in tests).
    pub pid: u32,
    /// Where its ports are; used by the boot probe and the router.
    pub backend: Backend,
    /// Our ends of its streams.
    pub stdio: LaunchedStdio,
    /// Launch decision to exec of the app's shell.
    pub took: Duration,
}

/// The network a dyno listens in. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// Its network namespace: enter it for the length of `socket()`, then connect to
    /// `127.0.0.1:PORT` from outside. `None`: the caller's own (host tests).
    pub netns: Option<Arc<OwnedFd>>,
    /// Its address there, for rules that name it.
    pub address: Option<std::net::Ipv4Addr>,
}

impl Backend {
    /// True for another handle of the same network.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.address == other.address
            && match (&self.netns, &other.netns) {
                (Some(one), Some(two)) => Arc::ptr_eq(one, two),
                (one, two) => one.is_none() && two.is_none(),
            }
    }
}

/// A dyno that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exited {
    /// Which.
    pub id: DynoId,
    /// How.
    pub status: ExitStatus,
    /// When.
    pub at: Instant,
}

/// Signals the driver sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StopSignal {
    /// To every process of the dyno.
    Term,
    /// To every process of the dyno.
    Hup,
    /// To every process of the dyno.
    Kill,
}

/// A launch that did not reach exec. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct Failure {
    /// The step that failed, in words (`mount /proc`).
    pub step: String,
    /// Why, with the errno's text.
    pub reason: String,
    /// True if the slug's bytes do not match its checksum (R17).
    pub checksum: Option<(Digest, Digest)>,
}

/// A boxed future, for the object-safe seam.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The host, as the driver sees it. Exits arrive on the channel given at construction.
pub trait Machine: Send + Sync + 'static {
    /// Prepares and launches; resolves when the command was exec'd or the launch failed.
    fn launch(&self, order: LaunchOrder) -> Task<'_, Result<Launched, Failure>>;

    /// What `launch` would apply, without launching.
    fn sketch(&self, _order: LaunchOrder) -> Task<'_, Result<super::Sketch, Failure>> {
        Box::pin(async {
            Err(Failure {
                step: "plan the launch".to_owned(),
                reason: "this machine has no plans".to_owned(),
                checksum: None,
            })
        })
    }

    /// Signals every process of a dyno; no-op for a dyno that is gone.
    fn signal(&self, id: DynoId, signal: StopSignal);

    /// Leaves a launched dyno to the next supervisor, should this one end before it.
    fn keep(&self, _id: DynoId, _record: &Record, _mark: Mark, _output: BorrowedFd<'_>) {}

    /// A dyno that was kept is further now.
    fn mark(&self, _id: DynoId, _mark: Mark) {}

    /// The end of a dyno is told: the next supervisor hears nothing of it.
    fn forget(&self, _id: DynoId) {}

    /// Sets the window size of a terminal dyno and tells its foreground process.
    fn resize(&self, id: DynoId, size: WindowSize);

    /// After its exit: removes cgroup, network, mounts and directory. Never fails the caller;
    /// what could not be removed is logged and swept at the next start.
    fn teardown(&self, id: DynoId) -> Task<'_, ()>;

    /// What is cheap to know of a launched dyno; `None` for one that is gone.
    fn glance(&self, _id: DynoId) -> Option<Glance> {
        None
    }

    /// A full look at a launched dyno; `None` for one that is gone.
    fn sample(&self, _id: DynoId) -> Option<Sample> {
        None
    }

    /// The files that a launched dyno changed; `None` for one that is gone.
    fn changes(&self, _id: DynoId) -> Task<'_, Result<Option<Changes>, Failure>> {
        Box::pin(async { Ok(None) })
    }

    /// The disk below the state directory; `None` where layers are not bounded (tests).
    fn disk_room(&self) -> Option<DiskRoom> {
        None
    }

    /// What this host cannot enforce or what stands in the way, in sentences for its operator.
    fn notices(&self) -> Vec<String> {
        Vec::new()
    }

    /// What there is to say about a dyno in which the kernel killed for memory.
    fn autopsy(&self, _id: DynoId) -> Task<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }

    /// Bounds what is written below an existing, empty directory (a build's), until
    /// [`Self::unbound`].
    fn bound(&self, _path: PathBuf, _keep: Keep) -> Task<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }

    /// That bound in bytes, if it is reached.
    fn filled(&self, _path: &Path) -> Option<u64> {
        None
    }

    /// Takes that bound away, with what is in it unless it is kept. Blocks.
    fn unbound(&self, _path: &Path) {}

    /// Memory that new processes could have now, in bytes. What cannot be told counts as plenty:
    /// the kernel is the last to judge.
    fn memory_available_bytes(&self) -> u64 {
        use procfs::Current as _;
        let memory = procfs::Meminfo::current().ok();
        memory
            .and_then(|memory| memory.mem_available)
            .unwrap_or(u64::MAX)
    }

    /// Unpacks a slug ahead of its first launch, so that a roll starts warm.
    fn prepare(&self, stack: &StackRef, slug: Option<Digest>) -> Task<'_, Result<(), Failure>>;
}
