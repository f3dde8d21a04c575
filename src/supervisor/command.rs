//! What others may ask of the driver.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use super::bounds::Handle;
use super::usage::Usages;
use super::{Bind, DynoView, Failure, LaunchedStdio, Snapshot, StdioOrder, WindowSize};
use crate::model::{
    AppId, AppName, ConfigVars, Digest, DynoId, DynoName, DynoSize, ExitStatus, Feature,
    FormationEntry, HostPort, Hostname, ProcessType, ReleaseId, ReleaseVersion, Routing, SlugId,
    StackImage, StackRef,
};

/// The desired state of one app, whole: the driver finds out what changed.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// Identity.
    pub id: AppId,
    /// Name.
    pub name: AppName,
    /// Router answers H80.
    pub maintenance: bool,
    /// Every host name that routes here, `APP.DOMAIN` included.
    pub hostnames: Vec<Hostname>,
    /// Switches that are on.
    pub features: BTreeSet<Feature>,
    /// The current release; `None` right after `create`.
    pub release: Option<Arc<ReleaseSpec>>,
    /// How many of which type are asked for. Types the release does not declare are ignored.
    pub formation: BTreeMap<ProcessType, FormationEntry>,
    /// How its requests are spread.
    pub routing: Routing,
    /// Where its dynos get to beside the outside world; applied to running ones, too.
    pub allowed: Vec<Allowance>,
}

impl AppSpec {
    /// Which release it is of; `None` right after `create`.
    pub fn release_id(&self) -> Option<ReleaseId> {
        self.release.as_ref().map(|release| release.id)
    }
}

/// A hole in the wall around an app's dynos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// To the web dynos of an app, at this address.
    App {
        /// Which.
        app: AppId,
        /// Where it answers.
        at: Ipv4Addr,
    },
    /// To a port.
    Host(HostPort),
}

/// One release, as far as running it goes.
#[derive(Clone, Debug)]
pub struct ReleaseSpec {
    /// Identity.
    pub id: ReleaseId,
    /// Its number.
    pub version: ReleaseVersion,
    /// When it was made.
    pub created: Timestamp,
    /// The slug; `None` for releases before the first deploy (nothing can be launched).
    pub slug: Option<SlugSpec>,
    /// The stack it runs on.
    pub stack: StackRef,
    /// Its config vars.
    pub config: ConfigVars,
    /// It is not current before its dynos were seen to run, one of them first.
    pub is_trial: bool,
}

/// The code of a release.
#[derive(Clone, Debug)]
pub struct SlugSpec {
    /// Identity.
    pub id: SlugId,
    /// Names the bytes.
    pub digest: Digest,
    /// Commands by type, Procfile over defaults.
    pub process_types: BTreeMap<ProcessType, String>,
    /// Commit or version text of its build.
    pub commit: Option<String>,
}

/// Which dynos of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The whole formation.
    All,
    /// One type.
    Process(ProcessType),
    /// One dyno.
    Dyno(DynoName),
}

/// A one-off dyno.
#[derive(Clone, Debug)]
pub struct RunOrder {
    /// Whose.
    pub app: AppId,
    /// What for.
    pub kind: RunKind,
    /// Prefix of its name: `run`, `release`, `build`.
    pub process: ProcessType,
    /// Shell text (`run` substitution already done).
    pub command: String,
    /// Merged over the config vars.
    pub env: BTreeMap<String, String>,
    /// Its size.
    pub size: DynoSize,
    /// Killed after this.
    pub time_to_live: Option<std::time::Duration>,
}

/// Kinds of one-off dynos.
#[derive(Clone, Debug)]
pub enum RunKind {
    /// `run:detached`, release phase: the current (or the given) release, output to the logs.
    Detached {
        /// Run this release instead of the current one (release phase).
        release: Option<Arc<ReleaseSpec>>,
    },
    /// `run`: launched when its client attaches; output only to the client.
    Attached {
        /// Terminal or pipes ([`StdioOrder::Logged`] is refused).
        stdio: StdioOrder,
    },
    /// A build: on the build image, without a slug, output handed to the caller, not logged,
    /// not listed, config vars not in its environment.
    Build {
        /// The stack.
        stack: StackRef,
        /// Directories made visible inside.
        binds: Vec<Bind>,
        /// Which image.
        image: StackImage,
    },
}

/// A one-off that was accepted.
#[derive(Debug)]
pub struct RunStarted {
    /// As published.
    pub dyno: Arc<DynoView>,
    /// Resolves when it ended and its streams were closed on the dyno's side; an error when it
    /// never ran.
    pub exit: oneshot::Receiver<Result<ExitStatus, Arc<Failure>>>,
    /// Builds: the read end of its output.
    pub output: Option<LaunchedStdio>,
    /// Set before `exit` resolves if it, or a process of it, was killed because memory ran out.
    pub is_starved: Arc<AtomicBool>,
}

/// A client's hold on an attached one-off.
#[derive(Debug)]
pub struct Attachment {
    /// Our ends of its streams.
    pub stdio: LaunchedStdio,
    /// How it ended.
    pub exit: oneshot::Receiver<Result<ExitStatus, Arc<Failure>>>,
    /// Dropped when the client is gone: the dyno then gets SIGHUP (dyno-lifecycle §9).
    pub connection: oneshot::Sender<()>,
}

/// A command that was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such app.
    #[error("the supervisor does not know that app")]
    UnknownApp,
    /// No such dyno, or nothing matches.
    #[error("Couldn't find that dyno ({0}).")]
    UnknownDyno(String),
    /// The app has nothing to run yet.
    #[error("the app has no slug yet: deploy it first")]
    NoSlug,
    /// The app's dynos are being moved to another build of its stack.
    #[error("the app's stack is being upgraded: try again when that ended (`manifold releases`)")]
    OnTrial,
    /// The driver is stopping or gone.
    #[error("the supervisor is stopping")]
    Stopping,
    /// The launch failed.
    #[error("the dyno did not start: {0}")]
    Launch(String),
}

/// What the driver is sent.
#[derive(Debug)]
pub(super) enum Command {
    Apply(AppSpec, Reply<()>),
    Restart(AppId, Selector, Reply<()>),
    Stop(AppId, Selector, Reply<()>),
    Run(RunOrder, String, Reply<RunStarted>),
    Attach(DynoId, Reply<Attachment>),
    Resize(DynoId, WindowSize),
    Forget(AppId, Reply<()>),
    /// Past a bound: say why, kill it.
    Exceed(DynoId, Vec<String>),
    Sketch(AppId, ProcessType, Reply<super::Sketch>),
    /// Every stored app was applied.
    Settle,
    Shutdown(oneshot::Sender<()>),
    /// Let go of every dyno.
    Leave(oneshot::Sender<()>),
}

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// The handle to the driver. Cheap to clone. Commands wait when its queue (bounded) is full.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// For looks and bounds that decide nothing about which dynos live.
    pub(super) machine: Handle,
    pub(super) usages: Arc<ArcSwap<Usages>>,
}

impl Supervisor {
    /// The latest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver that sees every later snapshot (intermediate ones may be skipped).
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(make(reply)).await;
        sent.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)?
    }

    /// Makes `spec` the desired state of its app: a new release rolls the dynos, a changed
    /// quantity scales, a changed size restarts that type, a new app appears. Returns when
    /// accepted and published, not when all dynos are up.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing was changed then.
    pub async fn apply(&self, spec: AppSpec) -> Result<(), CommandError> {
        self.ask(|reply| Command::Apply(spec, reply)).await
    }

    /// Restarts formation dynos; resets their crash back-off.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing was changed then.
    pub async fn restart(&self, app: AppId, which: Selector) -> Result<(), CommandError> {
        self.ask(|reply| Command::Restart(app, which, reply)).await
    }

    /// Stops dynos: one-offs end, formation dynos are replaced.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing was changed then.
    pub async fn stop(&self, app: AppId, which: Selector) -> Result<(), CommandError> {
        self.ask(|reply| Command::Stop(app, which, reply)).await
    }

    /// Starts a one-off. `user` goes into the log line. For a build this returns when it was
    /// launched, with the read end of its output.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing was changed then.
    pub async fn run(&self, order: RunOrder, user: &str) -> Result<RunStarted, CommandError> {
        let user = user.to_owned();
        self.ask(|reply| Command::Run(order, user, reply)).await
    }

    /// A client came for an attached one-off: launches it.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing was changed then.
    pub async fn attach(&self, dyno: DynoId) -> Result<Attachment, CommandError> {
        self.ask(|reply| Command::Attach(dyno, reply)).await
    }

    /// Kills a dyno that is past a bound of its size, after these lines.
    pub async fn exceed(&self, dyno: DynoId, lines: Vec<String>) {
        // A driver that is gone has no dynos.
        let _ = self.commands.send(Command::Exceed(dyno, lines)).await;
    }

    /// Sets the window size of an attached one-off.
    pub async fn resize(&self, dyno: DynoId, size: WindowSize) {
        // A driver that is gone has no windows.
        let _ = self.commands.send(Command::Resize(dyno, size)).await;
    }

    /// Forgets an app: all its dynos are stopped; returns when they are gone and torn down.
    ///
    /// # Errors
    /// See [`CommandError`]; nothing was changed then.
    pub async fn forget(&self, app: AppId) -> Result<(), CommandError> {
        self.ask(|reply| Command::Forget(app, reply)).await
    }

    /// Stops every dyno (SIGTERM, grace, SIGKILL) and ends the driver; returns when all are gone.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            // An error means the driver ended already: what was asked for.
            let _ = wait.await;
        }
    }
}
