//! Which host belongs to which app, and which dynos serve it: rebuilt from every snapshot.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{AppId, DynoId, DynoState, ProcessType};
use crate::supervisor::{AppView, Backend, Snapshot};

/// A dyno that refused a connect gets none for so long. Source: Dev Center, "HTTP Routing".
pub(super) const QUARANTINE: Duration = Duration::from_secs(5);

/// Requests of one app at once, per web dyno (H11).
const BACKLOG_PER_DYNO: usize = 200;

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

/// One app.
#[derive(Debug)]
pub(super) struct AppRoute {
    pub(super) id: AppId,
    pub(super) mode: Mode,
    pub(super) dynos: Vec<Arc<DynoRoute>>,
    /// Requests under way, waiting ones included; shared by all generations of the table.
    pub(super) active: Arc<AtomicUsize>,
    pub(super) active_max: usize,
    pub(super) error_page: Option<String>,
    pub(super) maintenance_page: Option<String>,
}

/// One web dyno; shared by all generations of the table.
#[derive(Debug)]
pub(super) struct DynoRoute {
    pub(super) id: DynoId,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) backend: Backend,
    pub(super) idle: Mutex<Vec<Idle>>,
    /// Requests on fresh connections that have no answer yet: a server that handles one
    /// connection at a time may be stuck on an idle one of ours.
    pub(super) fresh: AtomicUsize,
    quarantined_until: AtomicU64,
}

/// A connection that waits for its next request.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) stream: TcpStream,
    pub(super) since: Instant,
}

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn now_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl DynoRoute {
    fn new(id: DynoId, name: String, port: u16, backend: Backend) -> Self {
        Self {
            id,
            name,
            port,
            backend,
            idle: Mutex::default(),
            fresh: AtomicUsize::new(0),
            quarantined_until: AtomicU64::new(0),
        }
    }

    pub(super) fn is_quarantined(&self) -> bool {
        now_ms() < self.quarantined_until.load(Ordering::Relaxed)
    }

    pub(super) fn quarantine(&self) {
        let until = now_ms() + u64::try_from(QUARANTINE.as_millis()).unwrap_or(u64::MAX);
        self.quarantined_until.store(until, Ordering::Relaxed);
    }

    pub(super) fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All routes at one instant.
#[derive(Debug, Default)]
pub(super) struct Table {
    hosts: HashMap<String, Arc<AppRoute>>,
    /// `example.com` for `*.example.com`.
    wildcards: HashMap<String, Arc<AppRoute>>,
    apps: BTreeMap<AppId, Arc<AppRoute>>,
    dynos: HashMap<DynoId, Arc<DynoRoute>>,
}

impl Table {
    /// The table of a snapshot; counters, pools and quarantines go on.
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
            count += 1;
            crashed += usize::from(dyno.state == DynoState::Crashed);
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
        AppRoute {
            id,
            mode,
            active: match self.apps.get(&id) {
                Some(app) => Arc::clone(&app.active),
                None => Arc::default(),
            },
            active_max: BACKLOG_PER_DYNO * count.max(1),
            dynos: routes,
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
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(app) = self.hosts.get(&name) {
            return Some(app);
        }
        let mut rest = name.as_str();
        while let Some((_, base)) = rest.split_once('.') {
            if let Some(app) = self.wildcards.get(base) {
                return Some(app);
            }
            rest = base;
        }
        None
    }

    /// The current route of an app.
    pub(super) fn app_by_id(&self, id: AppId) -> Option<&Arc<AppRoute>> {
        self.apps.get(&id)
    }

    /// Every dyno that may have idle connections.
    pub(super) fn dynos(&self) -> impl Iterator<Item = &Arc<DynoRoute>> {
        self.dynos.values()
    }
}
