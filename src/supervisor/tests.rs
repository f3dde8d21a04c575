//! The driver over a fake machine: real ports on loopback, no root.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::*;
use crate::keeper::Mark;
use crate::logs::{Filter, Hub, Tail};
use crate::model::{
    AppId, ConfigVars, Digest, DynoId, DynoSize, DynoState, ExitStatus, FormationEntry,
    ProcessType, ReleaseId, ReleaseVersion, SlugId, StackName, StackRef,
};
use crate::settings::Timings;

/// Longest wait for anything; on a paused clock it is over in no time.
const PATIENCE: Duration = Duration::from_mins(30);

/// Dynos that are threads of thought: a web one listens, any ends when it is told to.
#[derive(Clone, Default)]
struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    exits: Option<mpsc::UnboundedSender<Exited>>,
    live: HashMap<DynoId, Live>,
    launched: Vec<LaunchOrder>,
    signals: Vec<(String, StopSignal)>,
    /// What the next supervisor would get.
    kept: BTreeMap<DynoId, (Record, Mark, OwnedFd)>,
    torn_down: usize,
    prepared: usize,
    /// The next slug lies ready when this resolves.
    hold_prepare: Option<tokio::sync::oneshot::Receiver<()>>,
    /// Bytes; `None`: plenty.
    memory: Option<u64>,
}

struct Live {
    name: String,
    command: String,
    _port: Option<TcpListener>,
    /// The dyno's end of its output.
    output: OwnedFd,
}

impl Fake {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a dyno by itself.
    fn die(&self, name: &str, status: u8) {
        let mut state = self.lock();
        let found = state.live.iter().find(|(_, live)| live.name == name);
        let id = *found.expect("it lives").0;
        state.live.remove(&id);
        state.exit(id, status);
    }
}

impl State {
    fn exit(&self, id: DynoId, status: u8) {
        let status = ExitStatus(status);
        let at = Instant::now();
        let exits = self.exits.as_ref().expect("connected");
        exits.send(Exited { id, status, at }).expect("a driver");
    }
}

impl Machine for Fake {
    fn launch(&self, order: LaunchOrder) -> Task<'_, Result<Launched, Failure>> {
        Box::pin(async move {
            let mut state = self.lock();
            state.launched.push(order.clone());
            if order.command == "no launch" {
                return Err(Failure {
                    step: "mount /proc".to_owned(),
                    reason: "no".to_owned(),
                    checksum: None,
                });
            }
            let port = order.env.iter().find(|(key, _)| key == "PORT");
            let port = port.map(|(_, port)| port.parse::<u16>().expect("a port"));
            let port = port.filter(|_| order.command == "serve");
            let port = port.map(|port| TcpListener::bind(("127.0.0.1", port)).expect("bound"));
            let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
            let (read, write) = nix::unistd::pipe2(flags).expect("a pipe");
            let live = Live {
                name: order.name.to_string(),
                command: order.command,
                _port: port,
                output: write,
            };
            state.live.insert(order.id, live);
            Ok(Launched {
                pid: 0,
                backend: Backend::default(),
                stdio: LaunchedStdio::Logged(read),
                took: Duration::ZERO,
            })
        })
    }

    fn signal(&self, id: DynoId, signal: StopSignal) {
        let mut state = self.lock();
        let Some(live) = state.live.get(&id) else {
            return;
        };
        let (name, is_stubborn) = (live.name.clone(), live.command == "stubborn");
        state.signals.push((name, signal));
        let status = match signal {
            StopSignal::Kill => 137,
            StopSignal::Term if !is_stubborn => 143,
            _ => return,
        };
        state.live.remove(&id);
        state.exit(id, status);
    }

    fn keep(&self, id: DynoId, record: &Record, mark: Mark, output: BorrowedFd<'_>) {
        let output = output.try_clone_to_owned().expect("a copy");
        let kept = (record.clone(), mark, output);
        self.lock().kept.insert(id, kept);
    }

    fn mark(&self, id: DynoId, mark: Mark) {
        if let Some(kept) = self.lock().kept.get_mut(&id) {
            kept.1 = mark;
        }
    }

    fn forget(&self, id: DynoId) {
        self.lock().kept.remove(&id);
    }

    fn resize(&self, _: DynoId, _: WindowSize) {}

    fn teardown(&self, _: DynoId) -> Task<'_, ()> {
        Box::pin(async { self.lock().torn_down += 1 })
    }

    fn memory_available_bytes(&self) -> u64 {
        self.lock().memory.unwrap_or(u64::MAX)
    }

    fn prepare(&self, _: &StackRef, _: Option<Digest>) -> Task<'_, Result<(), Failure>> {
        Box::pin(async {
            let hold = self.lock().hold_prepare.take();
            if let Some(hold) = hold {
                let _ = hold.await;
            }
            self.lock().prepared += 1;
            Ok(())
        })
    }
}

mod adopt;
mod preboot;
mod trial;

struct Bench {
    fake: Fake,
    supervisor: Supervisor,
    hub: Hub,
    tail: Tail,
    app: AppId,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(Timings::default())
    }

    fn with(timings: Timings) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::open(dir.path()).expect("opened");
        let fake = Fake::default();
        let (sender, exits) = mpsc::unbounded_channel();
        fake.lock().exits = Some(sender);
        let machine = Arc::new(fake.clone());
        let supervisor = Supervisor::start(machine, exits, hub.clone(), timings);
        let app = AppId::new();
        Self {
            tail: hub.tail(app, Filter::default(), 1500),
            fake,
            supervisor,
            hub,
            app,
            _dir: dir,
        }
    }

    /// Release number `version` of processes, with quantities.
    fn spec(&self, version: u32, processes: &[(&str, &str, u32)]) -> AppSpec {
        let process = |name: &str| name.parse::<ProcessType>().expect("a type");
        let slug = SlugSpec {
            id: SlugId::new(),
            digest: Digest([u8::try_from(version).expect("small"); 32]),
            process_types: processes
                .iter()
                .map(|(name, command, _)| (process(name), (*command).to_owned()))
                .collect(),
            commit: None,
        };
        let release = ReleaseSpec {
            id: ReleaseId(uuid::Uuid::from_u128(u128::from(version))),
            version: ReleaseVersion(version),
            created: Timestamp::now(),
            slug: Some(slug),
            stack: StackRef::newest(StackName::host()),
            config: ConfigVars::default(),
            is_trial: false,
        };
        let entry = |quantity: u32| FormationEntry {
            quantity,
            size: DynoSize::default(),
        };
        AppSpec {
            id: self.app,
            name: "shop".parse().expect("a name"),
            maintenance: false,
            hostnames: Vec::new(),
            features: std::collections::BTreeSet::new(),
            release: Some(Arc::new(release)),
            formation: processes
                .iter()
                .map(|(name, _, quantity)| (process(name), entry(*quantity)))
                .collect(),
            routing: crate::model::Routing::default(),
            allowed: Vec::new(),
        }
    }

    async fn apply(&self, version: u32, processes: &[(&str, &str, u32)]) {
        let spec = self.spec(version, processes);
        self.supervisor.apply(spec).await.expect("applied");
    }

    fn states(&self) -> BTreeMap<String, DynoState> {
        let snapshot = self.supervisor.snapshot();
        let app = snapshot.apps.get(&self.app);
        let dynos = app.into_iter().flat_map(|app| &app.dynos);
        dynos
            .filter(|dyno| !dyno.is_stopping)
            .map(|dyno| (dyno.name.to_string(), dyno.state))
            .collect()
    }

    /// Waits until exactly these dynos are in these states.
    async fn until(&self, expected: &[(&str, DynoState)]) {
        let expected: BTreeMap<String, DynoState> = expected
            .iter()
            .map(|(name, state)| ((*name).to_owned(), *state))
            .collect();
        let mut snapshots = self.supervisor.watch();
        let wait = async {
            while self.states() != expected {
                snapshots.changed().await.expect("a driver");
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await.is_ok();
        let states = self.states();
        assert!(in_time, "{states:?} did not become {expected:?}");
    }

    /// Waits for these lines, in this order, skipping others.
    async fn lines(&mut self, expected: &[&str]) {
        for wanted in expected {
            loop {
                let line = tokio::time::timeout(PATIENCE, self.tail.next()).await;
                let line = line.unwrap_or_else(|_| panic!("no line {wanted:?}"));
                let line = line.expect("a line");
                let text = format!(
                    "{}: {}",
                    line.process,
                    String::from_utf8_lossy(&line.message)
                );
                if text == *wanted {
                    break;
                }
            }
        }
    }

    fn signalled(&self) -> Vec<(String, StopSignal)> {
        std::mem::take(&mut self.fake.lock().signals)
    }
}

use DynoState::{Crashed, Starting, Up};

#[tokio::test]
async fn of_a_dyno_that_did_not_change_the_same_is_published() {
    let bench = Bench::new();
    let view = |name: &str| {
        let snapshot = bench.supervisor.snapshot();
        let dynos = &snapshot.apps.get(&bench.app).expect("an app").dynos;
        let mut living = dynos.iter().filter(|dyno| !dyno.is_stopping);
        let found = living.find(|dyno| dyno.name.to_string() == name);
        Arc::clone(found.expect("a dyno"))
    };
    bench.apply(1, &[("worker", "work", 1)]).await;
    bench.until(&[("worker.1", Up)]).await;
    let before = view("worker.1");
    bench.apply(1, &[("worker", "work", 2)]).await;
    bench.until(&[("worker.1", Up), ("worker.2", Up)]).await;
    assert!(Arc::ptr_eq(&before, &view("worker.1")));
    let which = Selector::Dyno("worker.1".parse().expect("a name"));
    let restarted = bench.supervisor.restart(bench.app, which).await;
    restarted.expect("restarted");
    bench.until(&[("worker.1", Up), ("worker.2", Up)]).await;
    assert_ne!(before.id, view("worker.1").id);
}

#[tokio::test]
async fn a_formation_is_started_scaled_and_stopped() {
    let mut bench = Bench::new();
    bench
        .apply(
            1,
            &[
                ("web", "serve", 2),
                ("worker", "work", 1),
                ("clock", "work", 0),
            ],
        )
        .await;
    bench
        .until(&[("web.1", Up), ("web.2", Up), ("worker.1", Up)])
        .await;
    bench
        .apply(
            1,
            &[
                ("web", "serve", 1),
                ("worker", "work", 2),
                ("clock", "work", 0),
            ],
        )
        .await;
    bench
        .until(&[("web.1", Up), ("worker.1", Up), ("worker.2", Up)])
        .await;
    bench
        .lines(&[
            "web.2: State changed from up to down",
            "web.2: Stopping all processes with SIGTERM",
            "web.2: Process exited with status 143",
        ])
        .await;
    assert_eq!(bench.signalled(), [("web.2".to_owned(), StopSignal::Term)]);
    bench.supervisor.shutdown().await;
    assert!(bench.fake.lock().live.is_empty());
    assert_eq!(bench.fake.lock().torn_down, 4);
    let refused = bench.supervisor.restart(bench.app, Selector::All).await;
    assert_eq!(refused, Err(CommandError::Stopping));
}

#[tokio::test]
async fn a_new_release_rolls_every_dyno_and_unpacks_first() {
    let mut bench = Bench::new();
    bench.apply(1, &[("web", "serve", 2)]).await;
    bench.until(&[("web.1", Up), ("web.2", Up)]).await;
    bench.apply(2, &[("web", "serve", 2)]).await;
    bench
        .lines(&[
            "web.1: Restarting",
            "web.1: State changed from up to starting",
            "web.1: Stopping all processes with SIGTERM",
            "web.1: Starting process with command `serve`",
        ])
        .await;
    bench.until(&[("web.1", Up), ("web.2", Up)]).await;
    let snapshot = bench.supervisor.snapshot();
    let dynos = &snapshot.apps[&bench.app].dynos;
    let current = dynos.iter().filter(|d| !d.is_stopping);
    assert!(current.clone().all(|d| d.release.1 == ReleaseVersion(2)));
    assert_eq!(current.count(), 2);
    assert_eq!(bench.fake.lock().prepared, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_a_roll_starts_nothing_more() {
    let mut bench = Bench::new();
    // Stubborn: it is still being stopped when the new slug lies ready.
    bench.apply(1, &[("worker", "stubborn", 1)]).await;
    bench.until(&[("worker.1", Up)]).await;
    let (unpacked, hold) = tokio::sync::oneshot::channel();
    bench.fake.lock().hold_prepare = Some(hold);
    bench.apply(2, &[("worker", "stubborn", 1)]).await;
    let supervisor = bench.supervisor.clone();
    let stopped = tokio::spawn(async move { supervisor.shutdown().await });
    bench
        .lines(&["worker.1: Stopping all processes with SIGTERM"])
        .await;
    unpacked.send(()).expect("the slug is waited for");
    let in_time = tokio::time::timeout(PATIENCE, stopped).await;
    in_time.expect("it stops").expect("no panic");
    let state = bench.fake.lock();
    assert_eq!((state.launched.len(), state.live.len()), (1, 0));
}

#[tokio::test]
async fn a_crash_is_logged_and_restarted_at_once_twice_then_waits() {
    let mut bench = Bench::new();
    bench.apply(1, &[("worker", "work", 1)]).await;
    for _ in 0..2 {
        bench.until(&[("worker.1", Up)]).await;
        bench.fake.die("worker.1", 1);
        bench
            .lines(&[
                "worker.1: Process exited with status 1",
                "worker.1: State changed from up to crashed",
                "worker.1: State changed from crashed to starting",
                "worker.1: Starting process with command `work`",
                "worker.1: State changed from starting to up",
            ])
            .await;
    }
    bench.until(&[("worker.1", Up)]).await;
    bench.fake.die("worker.1", 0);
    bench.until(&[("worker.1", Crashed)]).await;
    // Someone's restart does not wait.
    let which = Selector::Dyno("worker.1".parse().expect("a name"));
    bench
        .supervisor
        .restart(bench.app, which)
        .await
        .expect("restarted");
    bench.until(&[("worker.1", Up)]).await;
    bench
        .lines(&["worker.1: State changed from crashed to starting"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_web_dyno_that_never_binds_gets_r10() {
    let mut bench = Bench::new();
    bench.apply(1, &[("web", "idle", 1)]).await;
    bench
        .lines(&[
            "web.1: Error R10 (Boot timeout) -> Web process failed to bind to $PORT within 60 seconds of launch",
            "web.1: Stopping process with SIGKILL",
            "web.1: Process exited with status 137",
            "web.1: State changed from starting to crashed",
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn who_ignores_sigterm_is_killed_after_the_grace() {
    let mut bench = Bench::new();
    bench.apply(1, &[("worker", "stubborn", 1)]).await;
    bench.until(&[("worker.1", Up)]).await;
    bench.apply(1, &[("worker", "stubborn", 0)]).await;
    bench
        .lines(&[
            "worker.1: Stopping all processes with SIGTERM",
            "worker.1: Error R12 (Exit timeout) -> At least one process failed to exit within 30 seconds of SIGTERM",
            "worker.1: Stopping remaining processes with SIGKILL",
            "worker.1: Process exited with status 137",
        ])
        .await;
    bench.until(&[]).await;
}

#[tokio::test]
async fn a_launch_that_fails_crashes_with_r99_and_leaves_nothing() {
    let mut bench = Bench::new();
    bench.apply(1, &[("worker", "no launch", 1)]).await;
    bench
        .lines(&[
            "worker.1: Error R99 (Platform error) -> Failed to launch the dyno within 10 seconds",
            "worker.1: State changed from starting to crashed",
        ])
        .await;
    bench.until(&[("worker.1", Crashed)]).await;
    bench.apply(1, &[("worker", "no launch", 0)]).await;
    bench.until(&[]).await;
}

fn run_order(app: AppId, kind: RunKind) -> RunOrder {
    RunOrder {
        app,
        kind,
        process: ProcessType::run(),
        command: "work".to_owned(),
        env: BTreeMap::new(),
        size: DynoSize::default(),
        time_to_live: None,
    }
}

#[tokio::test]
async fn a_detached_one_off_runs_once_and_tells_its_end() {
    let mut bench = Bench::new();
    bench.apply(1, &[("web", "serve", 0)]).await;
    let order = run_order(bench.app, RunKind::Detached { release: None });
    let started = bench.supervisor.run(order, "me").await.expect("started");
    let name = started.dyno.name.to_string();
    bench.until(&[(&name, Up)]).await;
    bench.fake.die(&name, 7);
    let end = started.exit.await.expect("told").expect("ran");
    assert_eq!(end, ExitStatus(7));
    bench
        .lines(&[
            "api: Starting process with command `work` by user me",
            &format!("{name}: State changed from starting to up"),
            &format!("{name}: Process exited with status 7"),
            &format!("{name}: State changed from up to complete"),
        ])
        .await;
    bench.until(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_one_off_is_stopped_when_its_time_is_up() {
    let mut bench = Bench::new();
    bench.apply(1, &[("web", "serve", 0)]).await;
    let mut order = run_order(bench.app, RunKind::Detached { release: None });
    // As a build's fifteen minutes.
    order.time_to_live = Some(Duration::from_mins(15));
    let started = bench.supervisor.run(order, "me").await.expect("started");
    let name = started.dyno.name.to_string();
    bench
        .lines(&[
            &format!("{name}: State changed from starting to up"),
            &format!("{name}: Stopping all processes with SIGTERM"),
            &format!("{name}: Process exited with status 143"),
            &format!("{name}: State changed from up to complete"),
        ])
        .await;
    let end = started.exit.await.expect("told").expect("ran");
    assert_eq!(end, ExitStatus(143));
}

#[tokio::test]
async fn an_attached_one_off_waits_for_its_client() {
    let mut bench = Bench::new();
    bench.apply(1, &[("web", "serve", 0)]).await;
    let kind = || RunKind::Attached {
        stdio: StdioOrder::Pipes,
    };
    let order = run_order(bench.app, kind());
    let started = bench.supervisor.run(order, "me").await.expect("started");
    let name = started.dyno.name.to_string();
    bench.lines(&[&format!("{name}: Awaiting client")]).await;
    bench.until(&[(&name, Starting)]).await;
    let attachment = bench
        .supervisor
        .attach(started.dyno.id)
        .await
        .expect("attached");
    bench.until(&[(&name, Up)]).await;
    let again = bench.supervisor.attach(started.dyno.id).await;
    assert!(matches!(again, Err(CommandError::UnknownDyno(_))));
    drop(attachment.connection);
    bench
        .lines(&[&format!(
            "{name}: Client connection closed. Sending SIGHUP to all processes"
        )])
        .await;
    bench.fake.die(&name, 129);
    assert_eq!(
        attachment.exit.await.expect("told").expect("ran"),
        ExitStatus(129)
    );
    // One whose client never comes.
    let order = run_order(bench.app, kind());
    let started = bench.supervisor.run(order, "me").await.expect("started");
    let which = Selector::Dyno(started.dyno.name.clone());
    bench
        .supervisor
        .stop(bench.app, which)
        .await
        .expect("stopped");
    assert!(started.exit.await.expect("told").is_err());
    bench.until(&[]).await;
}

#[tokio::test]
async fn a_forgotten_app_is_gone_when_its_dynos_are() {
    let bench = Bench::new();
    bench.apply(1, &[("web", "serve", 2)]).await;
    bench.until(&[("web.1", Up), ("web.2", Up)]).await;
    bench.supervisor.forget(bench.app).await.expect("forgotten");
    assert!(bench.supervisor.snapshot().apps.is_empty());
    assert!(bench.fake.lock().live.is_empty());
    assert_eq!(bench.fake.lock().torn_down, 2);
    let unknown = bench.supervisor.restart(bench.app, Selector::All).await;
    assert_eq!(unknown, Err(CommandError::UnknownApp));
    assert!(bench.hub.history(bench.app, &Filter::default(), 10).len() == 10);
}

#[tokio::test]
async fn what_does_not_exist_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let mut blank = bench.spec(1, &[]);
    blank.release = None;
    bench.supervisor.apply(blank).await.expect("applied");
    let order = run_order(bench.app, RunKind::Detached { release: None });
    let refused = bench.supervisor.run(order, "me").await;
    assert_eq!(refused.err(), Some(CommandError::NoSlug));
    let which = Selector::Dyno("web.7".parse().expect("a name"));
    let refused = bench.supervisor.stop(bench.app, which).await;
    assert_eq!(refused, Err(CommandError::UnknownDyno("web.7".to_owned())));
}
