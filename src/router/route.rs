//! From a host to a connected dyno: waiting, choosing, connecting, giving up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::listener::Shared;
use super::policy;
use super::table::{AppRoute, DynoRoute, Mode};
use super::upstream::{self, Upstream};
use crate::model::AppId;

/// Connect attempts per request. Source: Dev Center, "HTTP Routing".
const ATTEMPTS: usize = 10;

/// How long the news of a dyno's end may take to get here.
const NEWS: Duration = Duration::from_millis(50);

/// First pause when every dyno is in quarantine; doubles.
const PAUSE: Duration = Duration::from_millis(50);

/// One request's place in its app's backlog.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Counts a request in.
    ///
    /// # Errors
    /// H11: too many are in.
    pub(super) fn take(app: &AppRoute) -> Result<Self, Failure> {
        let before = app.active.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(&app.active));
        if before >= app.active_max {
            return Err(Failure::BACKLOG);
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A dyno and a connection to it.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) dyno: Arc<DynoRoute>,
    pub(super) upstream: Upstream,
    pub(super) took: Duration,
}

/// Why there is none, and the dyno and time of the last try.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) failure: Failure,
    pub(super) dyno: Option<String>,
    pub(super) took: Option<Duration>,
}

impl From<Failure> for NotConnected {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            dyno: None,
            took: None,
        }
    }
}

/// Finds a dyno of the app and connects. `only_fresh`: no connection of the pool.
///
/// # Errors
/// The H code that says why not.
pub(super) async fn connect(
    shared: &Shared,
    app: AppId,
    only_fresh: bool,
) -> Result<Connected, NotConnected> {
    // For a starting dyno (H20), and for one out of quarantine (H99).
    let deadline = tokio::time::Instant::now() + shared.timings.hold_timeout;
    let mut last: Option<NotConnected> = None;
    let mut attempts = 0;
    let mut pause = PAUSE;
    loop {
        let route = ready(shared, app, deadline).await?;
        let attempts_max = ATTEMPTS.min(route.dynos.len());
        let Some(dyno) = policy::pick(&route.dynos) else {
            if attempts >= attempts_max
                && let Some(last) = last
            {
                return Err(last);
            }
            // All in quarantine: nothing announces its end.
            let until = tokio::time::Instant::now() + pause;
            if until >= deadline {
                return Err(Failure::PLATFORM.into());
            }
            tokio::time::sleep_until(until).await;
            pause *= 2;
            continue;
        };
        let dyno = Arc::clone(dyno);
        if !only_fresh && let Some(upstream) = upstream::reuse(&dyno) {
            return Ok(Connected {
                dyno,
                upstream,
                took: Duration::ZERO,
            });
        }
        let started = Instant::now();
        match upstream::connect(&dyno, shared.timings.connect_timeout).await {
            Ok(upstream) => {
                return Ok(Connected {
                    dyno,
                    upstream,
                    took: started.elapsed(),
                });
            }
            Err(error) => {
                attempts += 1;
                last = Some(not_connected(&dyno, &error, started.elapsed()));
                if is_still_current(shared, app, &dyno).await {
                    dyno.quarantine();
                } else {
                    // It was stopped meanwhile: no fault of anybody's.
                    attempts = 0;
                }
            }
        }
        if attempts >= attempts_max
            && let Some(last) = last.take()
        {
            return Err(last);
        }
    }
}

fn not_connected(dyno: &DynoRoute, error: &io::Error, took: Duration) -> NotConnected {
    let failure = if error.kind() == io::ErrorKind::TimedOut {
        Failure::CONNECT_TIMEOUT
    } else {
        Failure::REFUSED
    };
    NotConnected {
        failure,
        dyno: Some(dyno.name.clone()),
        took: Some(took),
    }
}

/// A dyno that refuses may be one that just ended: the news of that is on its way.
async fn is_still_current(shared: &Shared, app: AppId, dyno: &DynoRoute) -> bool {
    let deadline = tokio::time::Instant::now() + NEWS;
    loop {
        let news = shared.news.notified();
        if !is_current(shared, app, dyno) {
            return false;
        }
        if tokio::time::timeout_at(deadline, news).await.is_err() {
            return true;
        }
    }
}

fn is_current(shared: &Shared, app: AppId, dyno: &DynoRoute) -> bool {
    let table = shared.table.load();
    let route = table.app_by_id(app);
    route.is_some_and(|route| route.dynos.iter().any(|d| d.id == dyno.id))
}

/// Waits until the app has dynos that are up.
async fn ready(
    shared: &Shared,
    app: AppId,
    deadline: tokio::time::Instant,
) -> Result<Arc<AppRoute>, Failure> {
    loop {
        // Before the look, so that no news is missed between look and wait.
        let news = shared.news.notified();
        let route = shared.table.load().app_by_id(app).cloned();
        let route = route.ok_or(Failure::NO_WEB)?;
        match route.mode {
            Mode::Ready => return Ok(route),
            Mode::Maintenance => return Err(Failure::MAINTENANCE),
            Mode::Blank => return Err(Failure::BLANK),
            Mode::NoWeb => return Err(Failure::NO_WEB),
            Mode::Crashed => return Err(Failure::CRASHED),
            Mode::Wait => {}
        }
        if tokio::time::timeout_at(deadline, news).await.is_err() {
            return Err(Failure::BOOT_TIMEOUT);
        }
    }
}
