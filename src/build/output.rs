//! A build's output: a file that readers can follow while it grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

/// Bytes of a build's own output that are kept. Source: Dev Center, "Limits".
const KEPT_MAX: u64 = 300 << 20;

/// Bytes beyond [`KEPT_MAX`] in which the platform still can say how the build ended.
const VERDICT_MAX: u64 = 64 << 10;

/// Most bytes a reader hands out at once.
const CHUNK: u64 = 64 << 10;

/// Append-only text of a build, kept with its record. Cheap to clone.
/// At most 300 MB are kept (Dev Center, "Limits"); the rest is dropped and said so.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    end: Mutex<End>,
    progress: watch::Sender<Progress>,
    kept_max: u64,
}

/// The writing end.
#[derive(Debug)]
struct End {
    length: u64,
    at_line_start: bool,
    /// The cap was passed and that was said.
    is_full: bool,
    /// The disk refused: said once in the journal.
    is_broken: bool,
}

/// What readers wait for.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    length: u64,
    is_finished: bool,
}

impl Output {
    /// Starts a new output at `path` (truncates what is there).
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::with_cap(path, KEPT_MAX)
    }

    fn with_cap(path: &Path, kept_max: u64) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let shared = Shared {
            file: Arc::new(file),
            end: Mutex::new(End {
                length: 0,
                at_line_start: true,
                is_full: false,
                is_broken: false,
            }),
            progress: watch::Sender::default(),
            kept_max,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Appends bytes as they come.
    pub fn write(&self, bytes: &[u8]) {
        let mut end = self.lock();
        let max = self.shared.kept_max;
        let room = usize::try_from(max.saturating_sub(end.length)).unwrap_or(usize::MAX);
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.append(&mut end, kept);
        if kept.len() < bytes.len() && !end.is_full {
            end.is_full = true;
            let text = " !     The output is longer than 300 MB: the rest is not kept.\n";
            self.line(&mut end, text);
        }
    }

    /// Appends `-----> TEXT`.
    pub fn step(&self, text: &str) {
        self.say("-----> ", text);
    }

    /// Appends `       TEXT`.
    pub fn detail(&self, text: &str) {
        self.say("       ", text);
    }

    /// Appends ` !     TEXT`; without a text an empty line.
    pub fn error(&self, text: &str) {
        if text.is_empty() {
            self.say("", "");
        } else {
            self.say(" !     ", text);
        }
    }

    /// Appends a line of the platform as it is.
    pub(super) fn plain(&self, text: &str) {
        self.say("", text);
    }

    fn say(&self, prefix: &str, text: &str) {
        self.line(&mut self.lock(), &format!("{prefix}{text}\n"));
    }

    /// A line of ours never continues one of the buildpack's.
    fn line(&self, end: &mut End, line: &str) {
        let start = if end.at_line_start { "" } else { "\n" };
        if end.length + line.len() as u64 <= self.shared.kept_max + VERDICT_MAX {
            self.append(end, format!("{start}{line}").as_bytes());
        }
    }

    /// Writes at once: to the page cache, in pieces no larger than a pipe's.
    fn append(&self, end: &mut End, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        match self.shared.file.write_all_at(bytes, end.length) {
            Ok(()) => {
                end.length += bytes.len() as u64;
                end.at_line_start = *last == b'\n';
                let length = end.length;
                self.shared.progress.send_modify(|p| p.length = length);
            }
            Err(error) if !end.is_broken => {
                end.is_broken = true;
                tracing::warn!(%error, "a build's output is not kept");
            }
            Err(_) => {}
        }
    }

    /// No more will come: readers see the end.
    pub fn finish(&self) {
        self.shared.progress.send_modify(|p| p.is_finished = true);
    }

    /// A reader from the start; yields `None` at the end of a finished output.
    pub fn reader(&self) -> OutputReader {
        OutputReader {
            file: Arc::clone(&self.shared.file),
            progress: self.shared.progress.subscribe(),
            at: 0,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, End> {
        let end = &self.shared.end;
        end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows an [`Output`].
#[derive(Debug)]
pub struct OutputReader {
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    at: u64,
}

impl OutputReader {
    /// The next bytes, waiting for more while the output is not finished. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut is_orphan = false;
        loop {
            let progress = *self.progress.borrow_and_update();
            if self.at < progress.length {
                // The position moves only with the bytes in hand: that is what a cancel leaves.
                let bytes = self.read(progress.length - self.at).await?;
                self.at += bytes.len() as u64;
                return Some(bytes);
            }
            if progress.is_finished || is_orphan {
                return None;
            }
            // Every writer gone without `finish`: look once more, then that is the end.
            is_orphan = self.progress.changed().await.is_err();
        }
    }

    async fn read(&self, left: u64) -> Option<Bytes> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let length = usize::try_from(left.min(CHUNK)).unwrap_or(0);
        let read = tokio::task::spawn_blocking(move || -> io::Result<Bytes> {
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, at)?;
            Ok(buffer.into())
        });
        match read.await {
            Ok(Ok(bytes)) => Some(bytes),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a build's output cannot be read");
                None
            }
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn output(cap: u64) -> (tempfile::TempDir, Output) {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Output::with_cap(&dir.path().join("log"), cap).expect("made");
        (dir, output)
    }

    async fn all(mut reader: OutputReader) -> String {
        let mut text = Vec::new();
        while let Some(bytes) = reader.next().await {
            text.extend_from_slice(&bytes);
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn lines_have_the_styles_of_a_push() {
        let (_dir, output) = output(KEPT_MAX);
        output.step("a");
        output.detail("b");
        output.write(b"half");
        output.error("c");
        output.error("");
        output.finish();
        let text = all(output.reader()).await;
        assert_eq!(text, "-----> a\n       b\nhalf\n !     c\n\n");
    }

    #[tokio::test]
    async fn readers_follow_from_the_start_to_the_end() {
        let (_dir, output) = output(KEPT_MAX);
        output.write(b"1");
        let early = tokio::spawn(all(output.reader()));
        for n in 2..200 {
            output.write(format!(" {n}").as_bytes());
            tokio::task::yield_now().await;
        }
        let late = tokio::spawn(all(output.reader()));
        output.finish();
        let (early, late) = (early.await.expect("read"), late.await.expect("read"));
        assert_eq!(early, late);
        assert!(late.starts_with("1 2 3") && late.ends_with(" 199"));
    }

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (_dir, output) = output(KEPT_MAX);
        let mut reader = output.reader();
        for n in 0..50_u32 {
            output.write(format!("{n},").as_bytes());
            let _ = tokio::time::timeout(Duration::ZERO, reader.next()).await;
        }
        let mut text = String::new();
        output.write(b"end");
        output.finish();
        while let Some(bytes) = reader.next().await {
            text.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
        assert!(text.ends_with("end"), "{text}");
        assert_eq!(reader.at, output.lock().length);
    }

    #[tokio::test]
    async fn an_output_nobody_can_write_any_more_ends() {
        let (_dir, output) = output(KEPT_MAX);
        output.write(b"x");
        let reader = output.reader();
        drop(output);
        assert_eq!(all(reader).await, "x");
    }

    #[tokio::test]
    async fn beyond_the_cap_only_the_platform_speaks() {
        let (_dir, output) = output(10);
        output.write(b"0123456789abc");
        output.write(b"more");
        output.error("Push failed");
        output.finish();
        let text = all(output.reader()).await;
        let said = " !     The output is longer than 300 MB: the rest is not kept.\n";
        assert_eq!(text, format!("0123456789\n{said} !     Push failed\n"));
    }
}
