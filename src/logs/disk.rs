//! Segments on disk: what lets the history outlive the supervisor.
//!
//! Two files an app, `current` and `previous`. A full `current` takes the place of `previous`.
//! Lines are not synced: a power cut may cost the last seconds, never more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::Line;
use super::hub::{HISTORY, HISTORY_BYTES};
use crate::model::AppId;

/// A segment is closed past this many bytes, or past this many lines.
pub(super) const SEGMENT_BYTES: u64 = 4 << 20;
pub(super) const SEGMENT_LINES: u64 = 1500;

/// After the first line the writer waits so long for more: a wake-up and a write for each would cost
/// more than the request it tells of.
const GATHER: Duration = Duration::from_millis(20);

/// Lines on their way to the disk, and the one thread that writes them, which ends with this.
///
/// An app has room for its history and no more: of a flood only what will be history is written,
/// and no app waits behind another's.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    apps: HashMap<AppId, Lines, RandomState>,
    forgotten: Vec<AppId>,
    /// Answered when all before is written.
    flushes: Vec<SyncSender<()>>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<Arc<Line>>,
    bytes: usize,
}

impl Lines {
    fn push(&mut self, line: Arc<Line>) {
        self.bytes += line.message.len();
        self.lines.push_back(line);
        while self.lines.len() > HISTORY || self.bytes > HISTORY_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.len();
        }
    }
}

impl Waiting {
    /// More than lines, which can wait a little.
    fn is_urgent(&self) -> bool {
        self.is_closed || !(self.forgotten.is_empty() && self.flushes.is_empty())
    }

    fn has_work(&self) -> bool {
        self.is_urgent() || !self.apps.is_empty()
    }
}

impl Outbox {
    /// Starts the writer of this directory.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let writer = Writer {
            dir,
            segments: HashMap::new(),
            failing: HashSet::new(),
        };
        std::thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || writer.run(&theirs))?;
        Ok(Self { shared })
    }

    fn with(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.shared.lock();
        let (had_work, was_urgent) = (waiting.has_work(), waiting.is_urgent());
        change(&mut waiting);
        let is_urgent = waiting.is_urgent();
        drop(waiting);
        if !had_work || (is_urgent && !was_urgent) {
            self.shared.news.notify_one();
        }
    }

    /// Hands over a line. Never blocks on the disk.
    pub(super) fn push(&self, app: AppId, line: Arc<Line>) {
        self.push_all([(app, line)]);
    }

    /// Hands over many. Never blocks on the disk.
    pub(super) fn push_all(&self, lines: impl IntoIterator<Item = (AppId, Arc<Line>)>) {
        self.with(|waiting| {
            for (app, line) in lines {
                waiting.apps.entry(app).or_default().push(line);
            }
        });
    }

    /// Removes an app's segments; it must get no line any more.
    pub(super) fn forget(&self, app: AppId) {
        self.with(|waiting| {
            waiting.apps.remove(&app);
            waiting.forgotten.push(app);
        });
    }

    /// Waits until everything so far is written; false if that takes longer than `most`.
    pub(super) fn flush(&self, most: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.with(|waiting| waiting.flushes.push(done));
        wait.recv_timeout(most).is_ok()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.with(|waiting| waiting.is_closed = true);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that waits, when there is something.
    fn take(&self) -> Waiting {
        let waiting = self.lock();
        let waiting = self.news.wait_while(waiting, |w| !w.has_work());
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let more = self
            .news
            .wait_timeout_while(waiting, GATHER, |w| !w.is_urgent());
        let (mut waiting, _) = more.unwrap_or_else(PoisonError::into_inner);
        let is_closed = waiting.is_closed;
        Waiting {
            is_closed,
            ..std::mem::take(&mut *waiting)
        }
    }
}

struct Writer {
    dir: PathBuf,
    /// Lines and bytes in each `current`.
    segments: HashMap<AppId, (u64, u64)>,
    /// Apps whose last write failed: said once, not for every line.
    failing: HashSet<AppId>,
}

impl Writer {
    fn run(mut self, shared: &Shared) {
        loop {
            let work = shared.take();
            for app in work.forgotten {
                self.forget(app);
            }
            self.write(work.apps);
            for done in work.flushes {
                // Nobody waits any more: fine.
                let _ = done.send(());
            }
            if work.is_closed {
                return;
            }
        }
    }

    fn write(&mut self, batch: HashMap<AppId, Lines, RandomState>) {
        let mut bytes = Vec::new();
        for (app, lines) in batch {
            bytes.clear();
            for line in &lines.lines {
                line.write_to(&mut bytes);
            }
            let count = u64::try_from(lines.lines.len()).unwrap_or(u64::MAX);
            match self.append(app, count, &bytes) {
                Ok(()) => {
                    self.failing.remove(&app);
                }
                Err(error) => {
                    if self.failing.insert(app) {
                        tracing::warn!(%app, %error, "log lines are kept in memory only");
                    }
                }
            }
        }
    }

    fn append(&mut self, app: AppId, lines: u64, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.join(app.to_string());
        let current = dir.join("current");
        let (had_lines, had_bytes) = if let Some(sizes) = self.segments.get(&app) {
            *sizes
        } else {
            make_dir(&dir)?;
            measure(&current)?
        };
        let mut sizes = (had_lines, had_bytes);
        if had_lines >= SEGMENT_LINES || had_bytes >= SEGMENT_BYTES {
            fs::rename(&current, dir.join("previous"))?;
            sizes = (0, 0);
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&current)?;
        file.write_all(bytes)?;
        let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.segments
            .insert(app, (sizes.0 + lines, sizes.1 + written));
        Ok(())
    }

    fn forget(&mut self, app: AppId) {
        self.segments.remove(&app);
        self.failing.remove(&app);
        let dir = self.dir.join(app.to_string());
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot remove {}", dir.display());
            }
            _ => {}
        }
    }
}

/// Not its parents: a log directory that was removed is not to come back.
fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Lines and bytes of a segment an earlier run left; a torn last line is ended.
fn measure(current: &Path) -> io::Result<(u64, u64)> {
    let bytes = match fs::read(current) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        other => other?,
    };
    let lines = bytes.split(|b| *b == b'\n').count() - 1;
    let torn = bytes.last().is_some_and(|b| *b != b'\n');
    if torn {
        OpenOptions::new()
            .append(true)
            .open(current)?
            .write_all(b"\n")?;
    }
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Ok((
        count(lines) + u64::from(torn),
        count(bytes.len()) + u64::from(torn),
    ))
}

/// The lines of an app's segments, oldest first, at most `max` of them.
pub(super) fn load(dir: &Path, app: AppId, max: usize) -> Vec<Line> {
    let dir = dir.join(app.to_string());
    let mut lines = Vec::new();
    for name in ["previous", "current"] {
        let Ok(bytes) = fs::read(dir.join(name)) else {
            continue;
        };
        lines.extend(bytes.split(|b| *b == b'\n').filter_map(Line::read_from));
    }
    let skip = lines.len().saturating_sub(max);
    lines.drain(..skip);
    lines
}

/// Apps that have segments.
pub(super) fn apps(dir: &Path) -> io::Result<Vec<AppId>> {
    let entries = fs::read_dir(dir)?;
    Ok(entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}
