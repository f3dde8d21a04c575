//! Segments on disk: what lets the history outlive the supervisor.
//!
//! Two files an app, `current` and `previous`. A full `current` takes the place of `previous`.
//! Lines are not synced: a power cut may cost the last seconds, never more.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Line;
use crate::model::AppId;

/// A segment is closed past this many bytes, or past this many lines.
pub(super) const SEGMENT_BYTES: u64 = 4 << 20;
pub(super) const SEGMENT_LINES: u64 = 1500;

/// Lines that may wait for the disk; more are kept in memory only, and counted.
const QUEUE: usize = 16 * 1024;

/// Bytes gathered before they are written out.
const BATCH: usize = 1 << 20;

pub(super) enum Message {
    Line(AppId, std::sync::Arc<Line>),
    Forget(AppId),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

/// Starts the one thread that writes; it ends when every sender is gone.
pub(super) fn start(dir: PathBuf) -> io::Result<SyncSender<Message>> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::Builder::new()
        .name("logs".to_owned())
        .spawn(move || {
            Writer {
                dir,
                segments: HashMap::new(),
                failing: HashSet::new(),
            }
            .run(&receiver);
        })?;
    Ok(sender)
}

struct Writer {
    dir: PathBuf,
    /// Lines and bytes in each `current`.
    segments: HashMap<AppId, (u64, u64)>,
    /// Apps whose last write failed: said once, not for every line.
    failing: HashSet<AppId>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut batch: HashMap<AppId, (u64, Vec<u8>)> = HashMap::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Line(app, line) => {
                        let (lines, out) = batch.entry(app).or_default();
                        *lines += 1;
                        bytes += line.message.len();
                        line.write_to(out);
                    }
                    Message::Forget(app) => {
                        batch.remove(&app);
                        self.forget(app);
                    }
                    Message::Flush(done) => {
                        self.write(std::mem::take(&mut batch));
                        // Nobody waits any more: fine.
                        let _ = done.send(());
                    }
                }
                next = if bytes < BATCH {
                    messages.try_recv().ok()
                } else {
                    None
                };
            }
            self.write(batch);
        }
    }

    fn write(&mut self, batch: HashMap<AppId, (u64, Vec<u8>)>) {
        for (app, (lines, bytes)) in batch {
            match self.append(app, lines, &bytes) {
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
