//! What the driver remembers of one dyno.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::command::Reply;
use super::heritage::{Record, monotonic};
use super::lifecycle::{Kind, Life};
use super::{
    Attachment, Backend, Bind, DynoView, Failure, LaunchOrder, LaunchedStdio, Part, RunStarted,
    StdioOrder,
};
use crate::dyno::{EnvironmentRequest, environment, shown};
use crate::model::{
    AppId, ConfigVars, Digest, DynoId, DynoName, DynoSize, DynoState, ExitStatus, ReleaseId,
    ReleaseVersion, StackImage, StackRef,
};
use crate::traffic::DynoTraffic;

/// Who hears how a one-off ended.
pub(super) type ExitSender = oneshot::Sender<Result<ExitStatus, Arc<Failure>>>;

/// One run of one dyno.
pub(super) struct Dyno {
    pub(super) id: DynoId,
    pub(super) app: AppId,
    pub(super) name: DynoName,
    pub(super) life: Life,
    pub(super) since: Timestamp,
    pub(super) created: Timestamp,
    /// When the machine was asked, for the crash policy.
    pub(super) launched_at: Instant,
    pub(super) release: (ReleaseId, ReleaseVersion),
    pub(super) shown: String,
    pub(super) port: Option<u16>,
    pub(super) backend: Backend,
    pub(super) traffic: Arc<DynoTraffic>,
    pub(super) part: Part,
    pub(super) is_build: bool,
    /// What was last published of it.
    seen: Option<Arc<DynoView>>,
    /// It goes on without its supervisor: nobody holds its streams or waits for its end.
    pub(super) is_kept: bool,
    /// What the machine is asked.
    pub(super) order: LaunchOrder,
    pub(super) time_to_live: Option<Duration>,
    /// Reads its output into the log.
    pub(super) pump: Option<JoinHandle<()>>,
    /// An end that overtook the answer to the launch.
    pub(super) early_exit: Option<ExitStatus>,
    pub(super) status: Option<ExitStatus>,
    pub(super) failure: Option<Arc<Failure>>,
    pub(super) exits: Vec<ExitSender>,
    /// Memory ran out: it, or a process of it, was killed for that.
    pub(super) is_starved: Arc<AtomicBool>,
    /// The caller of `attach`, until it is launched.
    pub(super) attaching: Option<Reply<Attachment>>,
    /// The caller of `run` for a build, until it is launched.
    pub(super) starting: Option<Reply<RunStarted>>,
}

/// What a dyno is made from, whichever kind it is.
pub(super) struct Recipe<'a> {
    pub(super) app: AppId,
    pub(super) name: DynoName,
    pub(super) kind: Kind,
    pub(super) is_awaiting: bool,
    pub(super) release: (ReleaseId, ReleaseVersion),
    pub(super) stack: &'a StackRef,
    pub(super) image: StackImage,
    pub(super) slug: Option<Digest>,
    pub(super) size: &'a DynoSize,
    pub(super) command: &'a str,
    pub(super) config: Option<&'a ConfigVars>,
    pub(super) extra: &'a BTreeMap<String, String>,
    pub(super) stdio: StdioOrder,
    pub(super) binds: Vec<Bind>,
    pub(super) stop_grace: Duration,
    pub(super) is_build: bool,
    /// See [`Dyno::is_kept`].
    pub(super) is_kept: bool,
    pub(super) time_to_live: Option<Duration>,
}

/// `$PORT` of a web dyno: below the kernel's range for outgoing connections (32768 on), so that
/// none of the app's own connections can sit on it. Source: ip-sysctl, `ip_local_port_range`.
const PORTS: std::ops::Range<u16> = 10_000..32_768;

impl Dyno {
    pub(super) fn new(recipe: Recipe<'_>) -> Self {
        let id = DynoId::new();
        let port = (recipe.kind == Kind::Web).then(|| rand::random_range(PORTS));
        let is_attached = recipe.is_awaiting;
        let env = environment(EnvironmentRequest {
            name: &recipe.name,
            port,
            config: recipe.config,
            extra: recipe.extra,
            is_attached,
        });
        let order = LaunchOrder {
            id,
            name: recipe.name,
            stack: recipe.stack.clone(),
            image: recipe.image,
            slug: recipe.slug,
            size: recipe.size.clone(),
            command: recipe.command.to_owned(),
            env,
            stdio: recipe.stdio,
            binds: recipe.binds,
            stop_grace: recipe.stop_grace,
        };
        let life = Life::new(recipe.kind, recipe.is_awaiting);
        Self {
            shown: shown(recipe.command, port),
            port,
            is_build: recipe.is_build,
            is_kept: recipe.is_kept,
            time_to_live: recipe.time_to_live,
            ..Self::of(order, life, recipe.app, recipe.release)
        }
    }

    /// One that another supervisor launched.
    pub(super) fn adopted(id: DynoId, record: Record, life: Life, stop_grace: Duration) -> Self {
        let launched_at = record.launched_at();
        let order = LaunchOrder {
            id,
            name: record.name,
            // It is not launched again: its successor is made from the app's state.
            stack: StackRef::newest(crate::model::StackName::host()),
            image: StackImage::Run,
            slug: None,
            size: record.size,
            command: record.command,
            env: Vec::new(),
            stdio: StdioOrder::Logged,
            binds: Vec::new(),
            stop_grace,
        };
        Self {
            created: record.created,
            launched_at,
            shown: record.shown,
            port: record.port,
            is_kept: true,
            time_to_live: record.time_to_live,
            ..Self::of(order, life, record.app, record.release)
        }
    }

    /// Made now, with nothing known of it but this.
    fn of(
        order: LaunchOrder,
        life: Life,
        app: AppId,
        release: (ReleaseId, ReleaseVersion),
    ) -> Self {
        let now = Timestamp::now();
        Self {
            id: order.id,
            app,
            name: order.name.clone(),
            life,
            since: now,
            created: now,
            launched_at: Instant::now(),
            release,
            shown: String::new(),
            port: None,
            backend: Backend::default(),
            traffic: Arc::default(),
            part: Part::Server,
            is_build: false,
            is_kept: false,
            seen: None,
            order,
            time_to_live: None,
            pump: None,
            early_exit: None,
            status: None,
            failure: None,
            exits: Vec::new(),
            is_starved: Arc::default(),
            attaching: None,
            starting: None,
        }
    }

    /// What the machine is asked, once: nobody needs the environment here after that.
    pub(super) fn ordered(&mut self) -> LaunchOrder {
        let env = std::mem::take(&mut self.order.env);
        LaunchOrder {
            env,
            ..self.order.clone()
        }
    }

    /// What the next supervisor must know of it.
    pub(super) fn record(&self) -> Record {
        Record {
            app: self.app,
            name: self.name.clone(),
            is_one_off: self.life.kind == Kind::OneOff,
            release: self.release,
            created: self.created,
            launched: monotonic().saturating_sub(self.launched_at.elapsed()),
            time_to_live: self.time_to_live,
            command: self.order.command.clone(),
            shown: self.shown.clone(),
            size: self.order.size.clone(),
            port: self.port,
        }
    }

    /// What its caller hears: how it ends comes later.
    pub(super) fn begun(&mut self, output: Option<LaunchedStdio>) -> RunStarted {
        let (sender, exit) = oneshot::channel();
        self.exits.push(sender);
        RunStarted {
            dyno: self.view(),
            exit,
            output,
            is_starved: Arc::clone(&self.is_starved),
        }
    }

    /// It, or a process of it, was killed because memory ran out.
    pub(super) fn starve(&self) {
        self.is_starved.store(true, Ordering::Relaxed);
    }

    /// As others see it; the one they saw before, if nothing of that changed since.
    pub(super) fn view(&mut self) -> Arc<DynoView> {
        let is_stopping = self.life.is_stopping() && self.life.state != DynoState::Crashed;
        let now = (self.life.state, self.since, is_stopping, self.part);
        if let Some(seen) = &self.seen
            && now == (seen.state, seen.since, seen.is_stopping, seen.part)
            && self.backend.is(&seen.backend)
        {
            return Arc::clone(seen);
        }
        let view = Arc::new(DynoView {
            id: self.id,
            name: self.name.clone(),
            state: self.life.state,
            since: self.since,
            created: self.created,
            command: self.order.command.clone(),
            size: self.order.size.clone(),
            release: self.release,
            is_stopping,
            part: self.part,
            is_build: self.is_build,
            port: self.port,
            backend: self.backend.clone(),
            traffic: Arc::clone(&self.traffic),
        });
        self.seen = Some(Arc::clone(&view));
        view
    }

    /// Tells everyone who waits how it ended.
    pub(super) fn tell_end(&mut self) {
        for sender in self.exits.drain(..) {
            let end = match (&self.status, &self.failure) {
                (Some(status), _) => Ok(*status),
                (None, Some(failure)) => Err(Arc::clone(failure)),
                (None, None) => Err(Arc::new(Failure {
                    step: "wait for the client".to_owned(),
                    reason: "it was stopped before it ran".to_owned(),
                    checksum: None,
                })),
            };
            // Nobody waits any more: fine.
            let _ = sender.send(end);
        }
    }
}
