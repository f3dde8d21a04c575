//! The hub every line goes through.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use jiff::Timestamp;

use super::budget::Budget;
use super::disk::{self, Outbox};
use super::tail::Queue;
use super::{Line, Source, Tail};
use crate::model::AppId;

/// Lines of history per app. Source: Dev Center, "Logging".
pub(super) const HISTORY: usize = 1500;

/// Bytes of history per app held in memory; past it the oldest lines go first.
pub(super) const HISTORY_BYTES: usize = 4 << 20;

/// Longest wait for the disk when the hub is closed.
const FLUSH: Duration = Duration::from_secs(10);

/// During a flood an app is told at most so often how many of its lines were dropped.
const TELL: Duration = Duration::from_secs(1);

/// And the host's operator at most so often.
const WARN: Duration = Duration::from_mins(1);

/// The hub cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the log directory {dir}")]
pub struct HubError {
    dir: PathBuf,
    source: std::io::Error,
}

/// Takes lines of all apps, keeps their history and feeds tails. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    apps: Mutex<Apps>,
    disk: Outbox,
}

#[derive(Debug, Default)]
struct Apps {
    known: HashMap<AppId, App, RandomState>,
    /// Apps that are gone for good: a late line must not bring them back.
    forgotten: HashSet<AppId>,
}

#[derive(Debug, Default)]
struct App {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
    tails: Vec<Weak<Queue>>,
    flood: Option<Box<Flood>>,
}

/// What is known of an app that prints; kept from its first line on.
#[derive(Debug)]
struct Flood {
    budget: Budget,
    dropped: Option<Dropped>,
    /// When the operator was told, and how many lines were dropped since.
    warned: Option<Instant>,
    untold: u64,
}

/// Lines that were dropped and not told yet.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    count: u64,
    since: Timestamp,
    at: Instant,
}

impl Dropped {
    fn line(self) -> Line {
        let since = self.since.strftime("%Y-%m-%dT%H:%M:%S+00:00");
        Line::platform(
            "logplex",
            format!(
                "Error L10 (output buffer overflow): {} messages dropped since {since}.",
                self.count
            ),
        )
    }
}

impl Flood {
    fn new(now: Instant) -> Self {
        Self {
            budget: Budget::new(now),
            dropped: None,
            warned: None,
            untold: 0,
        }
    }

    fn count(&mut self, app: AppId, lines: u64, now: Instant) {
        let dropped = self.dropped.get_or_insert_with(|| Dropped {
            count: 0,
            since: Timestamp::now(),
            at: now,
        });
        dropped.count += lines;
        self.untold += lines;
        if self.warned.is_none_or(|at| now - at >= WARN) {
            tracing::warn!(
                %app,
                "an app prints faster than its log takes: {} lines dropped (L10)",
                self.untold
            );
            self.warned = Some(now);
            self.untold = 0;
        }
    }

    /// The L10 line, if one is due.
    fn due(&mut self, now: Instant) -> Option<Line> {
        self.dropped
            .take_if(|dropped| now.saturating_duration_since(dropped.at) >= TELL)
            .map(Dropped::line)
    }
}

impl Apps {
    /// `None` for an app that is gone.
    fn known(&mut self, app: AppId) -> Option<&mut App> {
        if self.forgotten.contains(&app) {
            return None;
        }
        Some(self.known.entry(app).or_default())
    }
}

/// Which lines a reader wants. Applied before counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exact `web.1`, or a prefix `web` that matches `web.N`; `router` and `api` too.
    pub dyno: Option<String>,
    /// Only this source.
    pub source: Option<Source>,
}

impl Filter {
    /// True if the reader wants the line.
    pub fn matches(&self, line: &Line) -> bool {
        let dyno = self.dyno.as_deref().is_none_or(|dyno| {
            line.process.strip_prefix(dyno).is_some_and(|rest| {
                rest.is_empty() || (rest.starts_with('.') && !dyno.contains('.'))
            })
        });
        dyno && self.source.is_none_or(|source| source == line.source)
    }
}

impl App {
    /// Into the history, and to everybody who follows.
    fn publish(&mut self, line: &Arc<Line>) {
        self.push(line);
        self.tails.retain(|tail| match tail.upgrade() {
            Some(queue) => {
                queue.push(line);
                true
            }
            None => false,
        });
    }

    fn push(&mut self, line: &Arc<Line>) {
        self.bytes += line.message.len();
        self.lines.push_back(Arc::clone(line));
        while self.lines.len() > HISTORY || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.len();
        }
    }

    fn last(&self, filter: &Filter, count: usize) -> Vec<Arc<Line>> {
        let wanted = self.lines.iter().rev().filter(|line| filter.matches(line));
        let mut lines: Vec<_> = wanted.take(count.min(HISTORY)).cloned().collect();
        lines.reverse();
        lines
    }
}

impl Hub {
    /// Opens the hub on a directory and reads back what an earlier run kept there.
    ///
    /// # Errors
    /// The directory cannot be read, or no thread can be started.
    pub fn open(dir: &Path) -> Result<Self, HubError> {
        let failed = |source| HubError {
            dir: dir.to_owned(),
            source,
        };
        let mut apps = Apps::default();
        for id in disk::apps(dir).map_err(failed)? {
            let app = apps.known.entry(id).or_default();
            for line in disk::load(dir, id, HISTORY) {
                app.push(&Arc::new(line));
            }
        }
        let disk = Outbox::open(dir.to_owned()).map_err(failed)?;
        let inner = Inner {
            apps: Mutex::new(apps),
            disk,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Apps> {
        self.inner
            .apps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a line now, stamped by the caller. Never blocks; a line of a forgotten app is
    /// dropped.
    pub fn append(&self, app: AppId, line: Line) {
        let line = Arc::new(line);
        let mut apps = self.lock();
        if let Some(known) = apps.known(app) {
            known.publish(&line);
            // Under the lock: the disk gets an app's lines in their order.
            self.inner.disk.push(app, line);
        }
    }

    /// Appends lines in their order, all at once: for who has many. Takes them out of `lines`,
    /// which keeps its room. Never blocks.
    pub fn append_all(&self, lines: &mut Vec<(AppId, Line)>) {
        let mut apps = self.lock();
        let kept = lines.drain(..).filter_map(|(app, line)| {
            let line = Arc::new(line);
            apps.known(app)?.publish(&line);
            Some((app, line))
        });
        self.inner.disk.push_all(kept);
    }

    /// Appends a line of a dyno, now; false if its app prints too fast: then the caller drops the
    /// line, and [`Hub::dropped`] counts it.
    pub(super) fn offer(&self, app: AppId, process: &str, message: &[u8], now: Instant) -> bool {
        let mut apps = self.lock();
        let Some(known) = apps.known(app) else {
            return true;
        };
        let flood = known.flood.get_or_insert_with(|| Box::new(Flood::new(now)));
        let due = flood.due(now);
        let is_taken = flood.budget.take(now, message.len());
        let taken = is_taken.then(|| Line {
            time: Timestamp::now(),
            source: Source::App,
            process: process.to_owned(),
            message: message.to_vec(),
        });
        for line in due.into_iter().chain(taken).map(Arc::new) {
            known.publish(&line);
            self.inner.disk.push(app, line);
        }
        is_taken
    }

    /// Counts lines that were not taken: told as L10, once a second.
    pub(super) fn dropped(&self, app: AppId, lines: u64, now: Instant) {
        let mut apps = self.lock();
        if let Some(flood) = apps.known(app).and_then(|known| known.flood.as_mut()) {
            flood.count(app, lines, now);
        }
    }

    /// Tells of dropped lines when nothing more is printed that would; true if it is too early.
    pub(super) fn settle(&self, app: AppId, now: Instant) -> bool {
        self.tell(app, |flood| flood.due(now))
    }

    /// The same at the end of a dyno, early or not.
    pub(super) fn settle_now(&self, app: AppId) {
        self.tell(app, |flood| flood.dropped.take().map(Dropped::line));
    }

    fn tell(&self, app: AppId, take: impl FnOnce(&mut Flood) -> Option<Line>) -> bool {
        let mut apps = self.lock();
        let Some(flood) = apps.known(app).and_then(|known| known.flood.as_mut()) else {
            return false;
        };
        let line = take(flood);
        let is_early = flood.dropped.is_some();
        drop(apps);
        if let Some(line) = line {
            self.append(app, line);
        }
        is_early
    }

    /// Appends a platform line: `heroku[PROCESS]: MESSAGE`.
    pub fn platform(&self, app: AppId, process: &str, message: impl Into<String>) {
        self.append(app, Line::platform(process, message.into()));
    }

    /// Appends an API line: `app[api]: MESSAGE`.
    pub fn api(&self, app: AppId, message: impl Into<String>) {
        let mut line = Line::platform("api", message.into());
        line.source = Source::App;
        self.append(app, line);
    }

    /// The last `lines` (1 to 1500) that match, oldest first.
    pub fn history(&self, app: AppId, filter: &Filter, lines: usize) -> Vec<Line> {
        let found = match self.lock().known.get(&app) {
            Some(known) => known.last(filter, lines),
            None => Vec::new(),
        };
        found.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// History as [`Hub::history`], then live lines.
    pub fn tail(&self, app: AppId, filter: Filter, lines: usize) -> Tail {
        let mut apps = self.lock();
        let Some(known) = apps.known(app) else {
            let queue = Arc::new(Queue::new(filter, Vec::new()));
            queue.close();
            return Tail { queue };
        };
        let history = known.last(&filter, lines);
        let queue = Arc::new(Queue::new(filter, history));
        known.tails.push(Arc::downgrade(&queue));
        Tail { queue }
    }

    /// Forgets an app and removes its segments; its tails end.
    pub fn forget(&self, app: AppId) {
        let gone = {
            let mut apps = self.lock();
            apps.forgotten.insert(app);
            apps.known.remove(&app)
        };
        for tail in gone.iter().flat_map(|app| &app.tails) {
            if let Some(queue) = tail.upgrade() {
                queue.close();
            }
        }
        self.inner.disk.forget(app);
    }

    /// Apps that have lines: the ones without a row are leftovers of a run that died.
    pub fn apps(&self) -> Vec<AppId> {
        self.lock().known.keys().copied().collect()
    }

    /// Waits until everything so far is written, at most ten seconds.
    pub fn flush(&self) {
        if !self.inner.disk.flush(FLUSH) {
            tracing::warn!("log lines were not written within ten seconds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::tail::QUEUE;

    fn hub() -> (tempfile::TempDir, Hub) {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::open(dir.path()).expect("opened");
        (dir, hub)
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines
            .iter()
            .map(|l| String::from_utf8_lossy(&l.message).into_owned())
            .collect()
    }

    #[test]
    fn the_filter_comes_before_the_count() {
        let (_dir, hub) = hub();
        let app = AppId::new();
        for n in 0..10 {
            hub.platform(app, "web.1", format!("one {n}"));
            hub.platform(app, "web.10", format!("ten {n}"));
            hub.platform(app, "webby.1", "other");
        }
        let filter = |dyno: &str| Filter {
            dyno: Some(dyno.to_owned()),
            source: None,
        };
        assert_eq!(
            texts(&hub.history(app, &filter("web.1"), 2)),
            ["one 8", "one 9"]
        );
        assert_eq!(
            texts(&hub.history(app, &filter("web"), 2)),
            ["one 9", "ten 9"]
        );
        let app_only = Filter {
            source: Some(Source::App),
            ..Filter::default()
        };
        assert!(hub.history(app, &app_only, 100).is_empty());
    }

    #[test]
    fn the_last_fifteen_hundred_lines_outlive_the_hub() {
        let (dir, hub) = hub();
        let app = AppId::new();
        for n in 0..4000 {
            hub.platform(app, "web.1", format!("line {n}"));
        }
        hub.flush();
        drop(hub);
        let again = Hub::open(dir.path()).expect("opened");
        let lines = again.history(app, &Filter::default(), 1500);
        assert_eq!(lines.len(), 1500);
        assert_eq!(texts(&lines)[0], "line 2500");
        let kept: u64 = std::fs::read_dir(dir.path().join(app.to_string()))
            .expect("a directory")
            .map(|e| e.expect("an entry").metadata().expect("a size").len())
            .sum();
        assert!(kept < 2 * disk::SEGMENT_BYTES, "{kept}");
    }

    #[tokio::test]
    async fn a_slow_tail_loses_lines_and_is_told_how_many() {
        let (_dir, hub) = hub();
        let app = AppId::new();
        let mut tail = hub.tail(app, Filter::default(), 100);
        for n in 0..QUEUE + 5 {
            hub.platform(app, "web.1", format!("{n}"));
        }
        for n in 0..QUEUE {
            let line = tail.next().await.expect("a line");
            assert_eq!(line.message, n.to_string().as_bytes());
        }
        let told = tail.next().await.expect("a line");
        let told = String::from_utf8_lossy(&told.message).into_owned();
        assert!(
            told.starts_with(
                "Error L11 (Tail buffer overflow) -> This tail session dropped 5 messages"
            ),
            "{told}"
        );
        hub.platform(app, "web.1", "after");
        assert_eq!(tail.next().await.expect("a line").message, b"after");
    }

    #[tokio::test]
    async fn a_forgotten_app_ends_its_tails_and_stays_forgotten() {
        let (dir, hub) = hub();
        let app = AppId::new();
        hub.platform(app, "web.1", "one");
        let mut tail = hub.tail(app, Filter::default(), 100);
        assert_eq!(tail.next().await.expect("a line").message, b"one");
        hub.forget(app);
        hub.platform(app, "web.1", "late");
        assert_eq!(tail.next().await, None);
        hub.flush();
        assert!(!dir.path().join(app.to_string()).exists());
        assert!(hub.history(app, &Filter::default(), 10).is_empty());
    }

    #[test]
    fn of_a_flood_the_disk_gets_what_is_history_and_other_apps_lose_nothing() {
        let (dir, hub) = hub();
        let (loud, quiet) = (AppId::new(), AppId::new());
        for n in 0..60_000 {
            hub.platform(loud, "web.1", format!("{n}"));
            if n % 60 == 0 {
                hub.platform(quiet, "web.1", format!("{n}"));
            }
        }
        hub.flush();
        drop(hub);
        let again = Hub::open(dir.path()).expect("opened");
        let lines = texts(&again.history(loud, &Filter::default(), 1500));
        let expected: Vec<String> = (58_500..60_000).map(|n| n.to_string()).collect();
        assert_eq!(lines, expected);
        let lines = texts(&again.history(quiet, &Filter::default(), 1500));
        let expected: Vec<String> = (0..1000).map(|n| (n * 60).to_string()).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_dropped_is_told_once_a_second_with_its_count() {
        let (_dir, hub) = hub();
        let app = AppId::new();
        let start = Instant::now();
        let mut shown = 0;
        for _ in 0..10_600 {
            shown += u64::from(hub.offer(app, "web.1", b"x", start));
        }
        assert_eq!(shown, 10_000);
        hub.dropped(app, 600, start);
        assert!(hub.settle(app, start), "too early to tell");
        let other = AppId::new();
        assert!(hub.offer(other, "web.1", b"y", start), "another app's line");
        let later = start + Duration::from_secs(1);
        assert!(hub.offer(app, "web.1", b"after", later));
        let lines = texts(&hub.history(app, &Filter::default(), 2));
        assert!(
            lines[0].starts_with("Error L10 (output buffer overflow): 600 messages dropped since "),
            "{lines:?}"
        );
        assert_eq!(lines[1], "after");
        assert!(!hub.settle(app, later), "all is told");
    }

    #[test]
    fn a_torn_last_line_costs_only_itself() {
        let (dir, hub) = hub();
        let app = AppId::new();
        hub.platform(app, "web.1", "whole");
        hub.flush();
        drop(hub);
        let current = dir.path().join(app.to_string()).join("current");
        let mut bytes = std::fs::read(&current).expect("a segment");
        bytes.extend_from_slice(b"17000 h we");
        std::fs::write(&current, bytes).expect("written");
        let again = Hub::open(dir.path()).expect("opened");
        again.platform(app, "web.1", "next");
        again.flush();
        let lines = Hub::open(dir.path())
            .expect("opened")
            .history(app, &Filter::default(), 10);
        assert_eq!(texts(&lines), ["whole", "next"]);
    }
}
