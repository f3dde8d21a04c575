//! Which host belongs to which app, and which dynos serve it: rebuilt from every snapshot.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::affinity::Mark;
use super::failure::Failure;
use super::policy::{Health, Load, Rule};
use super::queue::{Queue, State};
use super::upstream::Pool;
use crate::model::{AppId, DynoId, DynoState, Feature, ProcessType};
use crate::supervisor::{AppView, Backend, Part, Snapshot};
use crate::traffic::{AppTraffic, DynoTraffic};

/// A dyno that refused a connection gets none for so long, twice as long if it refuses again, and
/// so on: whoever waits for it tries ever more seldom.
const QUARANTINE: Duration = Duration::from_secs(1);

/// The longest; at once for one that took nothing in time. Source: Dev Center, "HTTP Routing".
const QUARANTINE_MAX: Duration = Duration::from_secs(5);

/// How long a dyno that broke off is the last one asked: the kernel closes what a killed process had one
/// by one, so that for a moment a dead dyno still takes connections.
const DOUBT: Duration = Duration::from_millis(100);

/// Longest time a dyno that said "503, Retry-After" is spared. It may say so again.
const STRAIN_MAX: Duration = Duration::from_secs(10);

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Choose a dyno.
    Ready,
    /// Hold it: dynos are starting.
    Wait,
    /// H80.
    Maintenance,
    /// H81.
    Blank,
    /// H14.
    NoWeb,
    /// H10.
    Crashed,
}

impl Mode {
    /// What a request is told at once.
    pub(super) fn failure(self) -> Option<Failure> {
        match self {
            Self::Ready | Self::Wait => None,
            Self::Maintenance => Some(Failure::MAINTENANCE),
            Self::Blank => Some(Failure::BLANK),
            Self::NoWeb => Some(Failure::NO_WEB),
            Self::Crashed => Some(Failure::CRASHED),
        }
    }
}

/// One app.
#[derive(Debug)]
pub(super) struct AppRoute {
    pub(super) id: AppId,
    /// Its dynos and who waits for them; shared by all generations of the table.
    pub(super) queue: Arc<Queue>,
    pub(super) traffic: Arc<AppTraffic>,
    /// Switches that are on.
    pub(super) features: BTreeSet<Feature>,
    pub(super) error_page: Option<String>,
    pub(super) maintenance_page: Option<String>,
}

/// One web dyno; shared by all generations of the table.
#[derive(Debug)]
pub(super) struct DynoRoute {
    pub(super) id: DynoId,
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    pub(super) backend: Backend,
    /// Connections to it that wait for their next request.
    pub(super) pool: Pool,
    pub(super) traffic: Arc<DynoTraffic>,
    /// In the cookies of the browsers that belong to it.
    pub(super) mark: Mark,
    quarantined_until: AtomicU64,
    /// Quarantines since it last took a connection.
    quarantines: AtomicU32,
    strained_until: AtomicU64,
    strained_limit: AtomicU32,
}

static START: LazyLock<tokio::time::Instant> = LazyLock::new(tokio::time::Instant::now);

/// Milliseconds since this clock was first read.
pub(super) fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl DynoRoute {
    pub(super) fn new(
        id: DynoId,
        name: String,
        port: u16,
        backend: Backend,
        traffic: Arc<DynoTraffic>,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            port,
            backend,
            pool: Pool::default(),
            traffic,
            mark: Mark::of(id),
            quarantined_until: AtomicU64::new(0),
            quarantines: AtomicU32::new(0),
            strained_until: AtomicU64::new(0),
            strained_limit: AtomicU32::new(0),
        }
    }

    /// Counts a request in, unless the dyno is leaving.
    pub(super) fn enter(&self) -> bool {
        self.traffic.gate.enter()
    }

    /// Counts it out.
    pub(super) fn leave(&self) {
        self.traffic.gate.leave();
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.traffic.gate.in_flight()
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.traffic.gate.is_closed()
    }

    /// What the policy looks at.
    pub(super) fn load(&self) -> Load {
        let (quarantine, strain) = (
            self.quarantined_until.load(Ordering::Relaxed),
            self.strained_until.load(Ordering::Relaxed),
        );
        // Nearly always neither was ever set: then the clock is not read.
        let is_past = |until: u64| until == 0 || now_ms() >= until;
        let health = if self.is_leaving() || !is_past(quarantine) {
            Health::Closed
        } else if !is_past(strain) {
            Health::Strained(self.strained_limit.load(Ordering::Relaxed))
        } else {
            Health::Open
        };
        Load {
            in_flight: self.in_flight(),
            health,
        }
    }

    /// It refused a connection, or (`is_deaf`) took it not in time: none for a while.
    pub(super) fn quarantine(&self, is_deaf: bool) {
        let now = now_ms();
        if self.quarantined_until.load(Ordering::Relaxed) > now {
            // Others of the same moment were refused, too.
            return;
        }
        let before = self.quarantines.fetch_add(1, Ordering::Relaxed);
        let pause = if is_deaf {
            QUARANTINE_MAX
        } else {
            (QUARANTINE * (1 << before.min(4))).min(QUARANTINE_MAX)
        };
        let until = now + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.quarantined_until.store(until, Ordering::Relaxed);
    }

    /// It took a connection.
    pub(super) fn accepted(&self) {
        self.quarantines.store(0, Ordering::Relaxed);
    }

    /// It answered 503 with `Retry-After`: for so long it gets fewer requests than it had, and
    /// only those that no other dyno has room for.
    pub(super) fn strain(&self, retry_after: Duration) {
        let least = self.in_flight().saturating_sub(1).max(1);
        self.strained_limit.store(least, Ordering::Relaxed);
        let span = retry_after.min(STRAIN_MAX).as_millis();
        let until = now_ms() + u64::try_from(span).unwrap_or(u64::MAX);
        self.strained_until.store(until, Ordering::Relaxed);
    }

    /// It closed a connection instead of answering: it may be dying, and gets for a moment only what no
    /// other dyno has room for.
    pub(super) fn doubt(&self) {
        let now = now_ms();
        if self.strained_until.load(Ordering::Relaxed) <= now {
            self.strained_limit.store(u32::MAX, Ordering::Relaxed);
            let until = now + u64::try_from(DOUBT.as_millis()).unwrap_or(u64::MAX);
            self.strained_until.store(until, Ordering::Relaxed);
        }
    }

    /// When it takes requests again without anybody saying so.
    pub(super) fn reopens(&self) -> Option<tokio::time::Instant> {
        let untils = [&self.quarantined_until, &self.strained_until];
        let untils = untils.map(|until| until.load(Ordering::Relaxed));
        let next = untils.into_iter().filter(|until| *until > now_ms()).min();
        // A millisecond more: the look must not come before it is true.
        next.map(|until| *START + Duration::from_millis(until + 1))
    }
}

/// True if there are dynos, but none that takes requests.
pub(super) fn are_closed(dynos: &[Arc<DynoRoute>]) -> bool {
    let mut healths = dynos.iter().map(|dyno| dyno.load().health);
    !dynos.is_empty() && healths.all(|health| health == Health::Closed)
}

/// All routes at one instant.
#[derive(Debug, Default)]
pub(super) struct Table {
    hosts: HashMap<String, Arc<AppRoute>, RandomState>,
    /// `example.com` for `*.example.com`.
    wildcards: HashMap<String, Arc<AppRoute>, RandomState>,
    apps: BTreeMap<AppId, Arc<AppRoute>>,
    dynos: HashMap<DynoId, Arc<DynoRoute>>,
}

impl Table {
    /// The table of a snapshot; queues, counters, pools and quarantines go on.
    pub(super) fn build(&self, snapshot: &Snapshot) -> Self {
        let mut table = Self::default();
        for (id, view) in &snapshot.apps {
            let app = Arc::new(self.app(view, &mut table.dynos));
            for host in &view.spec.hostnames {
                match host.wildcard_base() {
                    Some(base) => {
                        table.wildcards.insert(base.to_owned(), Arc::clone(&app));
                    }
                    None => {
                        table
                            .hosts
                            .insert(host.as_str().to_owned(), Arc::clone(&app));
                    }
                }
            }
            table.apps.insert(*id, app);
        }
        for (id, app) in &self.apps {
            if !table.apps.contains_key(id) {
                app.queue.close();
            }
        }
        table
    }

    fn app(&self, view: &AppView, dynos: &mut HashMap<DynoId, Arc<DynoRoute>>) -> AppRoute {
        let id = view.spec.id;
        let web = view
            .dynos
            .iter()
            .filter(|d| d.name.process.is_web() && !d.is_stopping && !d.is_build);
        let mut routes = Vec::new();
        let (mut count, mut crashed) = (0, 0);
        for dyno in web {
            let stands = dyno.part != Part::Predecessor;
            count += usize::from(stands);
            let is_crashed = stands && dyno.state == DynoState::Crashed;
            crashed += usize::from(is_crashed);
            let Some(port) = dyno.port.filter(|_| dyno.is_routable()) else {
                continue;
            };
            let route = match self.dynos.get(&dyno.id) {
                Some(route) => Arc::clone(route),
                None => Arc::new(DynoRoute::new(
                    dyno.id,
                    dyno.name.to_string(),
                    port,
                    dyno.backend.clone(),
                    Arc::clone(&dyno.traffic),
                )),
            };
            dynos.insert(dyno.id, Arc::clone(&route));
            routes.push(route);
        }
        let slug = view.spec.release.as_ref().and_then(|r| r.slug.as_ref());
        let is_declared = slug.is_some_and(|s| s.process_types.contains_key(&ProcessType::web()));
        let quantity = view.spec.formation.get(&ProcessType::web());
        let is_wanted = is_declared && quantity.is_some_and(|entry| entry.quantity > 0);
        let mode = if view.spec.maintenance {
            Mode::Maintenance
        } else if slug.is_none() {
            Mode::Blank
        } else if !is_wanted {
            Mode::NoWeb
        } else if !routes.is_empty() {
            Mode::Ready
        } else if count > 0 && crashed == count {
            Mode::Crashed
        } else {
            Mode::Wait
        };
        let config = view.spec.release.as_ref().map(|r| &r.config);
        let url = |key| config.and_then(|c| c.get(key)).map(str::to_owned);
        let state = State {
            mode,
            rule: Rule {
                policy: view.spec.routing.policy,
                limit: view.spec.routing.limit(config),
            },
            dynos: routes,
            dyno_count: count,
        };
        let queue = match self.apps.get(&id) {
            Some(app) => {
                app.queue.update(state);
                Arc::clone(&app.queue)
            }
            None => Arc::new(Queue::new(state, Arc::clone(&view.traffic))),
        };
        AppRoute {
            id,
            queue,
            traffic: Arc::clone(&view.traffic),
            features: view.spec.features.clone(),
            error_page: url("ERROR_PAGE_URL"),
            maintenance_page: url("MAINTENANCE_PAGE_URL"),
        }
    }

    /// The app of a `Host` value: port and a final dot aside, in any case; exact names before
    /// wildcards, the longest wildcard first.
    pub(super) fn find(&self, host: &str) -> Option<&Arc<AppRoute>> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        if let Some(app) = self.hosts.get(&*name) {
            return Some(app);
        }
        let mut rest = &*name;
        while let Some((_, base)) = rest.split_once('.') {
            if let Some(app) = self.wildcards.get(base) {
                return Some(app);
            }
            rest = base;
        }
        None
    }

    /// Every app.
    pub(super) fn apps(&self) -> impl Iterator<Item = &Arc<AppRoute>> {
        self.apps.values()
    }

    /// Every dyno that may have idle connections.
    pub(super) fn dynos(&self) -> impl Iterator<Item = &Arc<DynoRoute>> {
        self.dynos.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_dyno_that_refuses_on_is_left_alone_for_longer() {
        let (backend, traffic) = (Backend::default(), Arc::default());
        let dyno = DynoRoute::new(DynoId::new(), "web.1".to_owned(), 1, backend, traffic);
        let pause = async |is_deaf| {
            dyno.quarantine(is_deaf);
            // One of the same moment changes nothing.
            dyno.quarantine(is_deaf);
            let start = tokio::time::Instant::now();
            tokio::time::sleep_until(dyno.reopens().expect("closed")).await;
            assert_eq!(dyno.load().health, Health::Open);
            start.elapsed().as_secs()
        };
        for expected in [1, 2, 4, 5, 5] {
            assert_eq!(pause(false).await, expected);
        }
        dyno.accepted();
        assert_eq!(pause(false).await, 1);
        assert_eq!(pause(true).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dyno_that_broke_off_is_the_last_resort_for_a_moment() {
        let (backend, traffic) = (Backend::default(), Arc::default());
        let dyno = DynoRoute::new(DynoId::new(), "web.1".to_owned(), 1, backend, traffic);
        dyno.doubt();
        assert_eq!(dyno.load().health, Health::Strained(u32::MAX));
        tokio::time::advance(DOUBT).await;
        assert_eq!(dyno.load().health, Health::Open);
        // What it asked for itself stays.
        dyno.strain(Duration::from_secs(3));
        dyno.doubt();
        assert_eq!(dyno.load().health, Health::Strained(1));
        tokio::time::advance(DOUBT).await;
        assert_eq!(dyno.load().health, Health::Strained(1));
    }
}
