//! From a dyno's pipe to its app's log.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio_util::sync::CancellationToken;

use super::budget::pause;
use super::{Hub, Splitter};
use crate::model::AppId;
use crate::sys;

/// An unfinished line is shown after so long. Source: log-shuttle.
const FLUSH: Duration = Duration::from_millis(250);

/// One read.
const CHUNK: usize = 64 * 1024;

/// Reads a dyno's output to its end, or until `end` and the next pause between two lines, line by
/// line. The dyno never waits for long: reading costs
/// no disk and no network, what readers cannot take is dropped at their side (L11), and what is
/// more than an app may print is dropped here and counted (L10).
pub async fn pump(hub: Hub, app: AppId, process: String, output: OwnedFd, end: CancellationToken) {
    let output = match sys::watch(output) {
        Ok(output) => output,
        Err(error) => {
            tracing::error!(%process, %error, "a dyno's output cannot be read");
            return;
        }
    };
    let mut splitter = Splitter::default();
    let mut is_untold = false;
    let mut buffer = Vec::new();
    loop {
        if end.is_cancelled() && !splitter.has_rest() {
            hub.settle_now(app);
            return;
        }
        let read = output.async_io(Interest::READABLE, |fd| {
            // Held only while there is something to read: an idle dyno costs no buffer.
            buffer.resize(CHUNK, 0);
            nix::unistd::read(fd, &mut buffer).map_err(|errno| {
                buffer = Vec::new();
                std::io::Error::from(errno)
            })
        });
        let read = if splitter.has_rest() || is_untold {
            if let Ok(read) = tokio::time::timeout(FLUSH, read).await {
                read
            } else {
                let mut offer = Offer::new(&hub, app, &process);
                splitter.flush(|line| offer.line(line));
                offer.finish();
                is_untold = hub.settle(app, Instant::now());
                continue;
            }
        } else {
            tokio::select! {
                biased;
                // What is in the pipe is for the next reader.
                () = end.cancelled() => continue,
                read = read => read,
            }
        };
        match read {
            Ok(0) => break,
            Ok(length) => {
                let mut offer = Offer::new(&hub, app, &process);
                splitter.push(&buffer[..length], |line| offer.line(line));
                let dropped = offer.finish();
                if dropped > 0 {
                    is_untold = true;
                    tokio::time::sleep(pause(dropped)).await;
                } else if length < CHUNK {
                    buffer = Vec::new();
                }
            }
            Err(error) => {
                tracing::warn!(%process, %error, "a dyno's output ended");
                break;
            }
        }
    }
    let mut offer = Offer::new(&hub, app, &process);
    splitter.flush(|line| offer.line(line));
    offer.finish();
    hub.settle_now(app);
}

/// The lines of one read: after the first that is dropped the others are only counted.
struct Offer<'a> {
    hub: &'a Hub,
    app: AppId,
    process: &'a str,
    now: Instant,
    dropped: u64,
}

impl<'a> Offer<'a> {
    fn new(hub: &'a Hub, app: AppId, process: &'a str) -> Self {
        Self {
            hub,
            app,
            process,
            now: Instant::now(),
            dropped: 0,
        }
    }

    fn line(&mut self, line: &[u8]) {
        if self.dropped > 0 || !self.hub.offer(self.app, self.process, line, self.now) {
            self.dropped += 1;
        }
    }

    /// How many were dropped.
    fn finish(self) -> u64 {
        if self.dropped > 0 {
            self.hub.dropped(self.app, self.dropped, self.now);
        }
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::logs::Filter;

    #[tokio::test]
    async fn a_prompt_without_newline_is_shown_and_the_end_is_not_lost() {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::open(dir.path()).expect("opened");
        let app = AppId::new();
        let (read, write) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)
                .expect("a pipe");
        let end = CancellationToken::new();
        let task = tokio::spawn(pump(hub.clone(), app, "web.1".to_owned(), read, end));
        let mut tail = hub.tail(app, Filter::default(), 10);
        let mut write = std::fs::File::from(write);
        write.write_all(b"one\nname? ").expect("written");
        assert_eq!(tail.next().await.expect("a line").message, b"one");
        assert_eq!(tail.next().await.expect("a line").message, b"name? ");
        write.write_all(b"last").expect("written");
        drop(write);
        task.await.expect("ended");
        assert_eq!(tail.next().await.expect("a line").message, b"last");
    }

    #[tokio::test]
    async fn the_next_reader_goes_on_where_a_line_began() {
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::open(dir.path()).expect("opened");
        let app = AppId::new();
        let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
        let (read, write) = nix::unistd::pipe2(flags).expect("a pipe");
        let mut tail = hub.tail(app, Filter::default(), 10);
        let mut write = std::fs::File::from(write);
        let name = || "web.1".to_owned();
        let end = CancellationToken::new();
        let kept = read.try_clone().expect("a copy");
        let first = tokio::spawn(pump(hub.clone(), app, name(), kept, end.clone()));
        write.write_all(b"one\nhalf").expect("written");
        assert_eq!(tail.next().await.expect("a line").message, b"one");
        end.cancel();
        // Nothing cuts the line that is being read.
        write.write_all(b" of two\n").expect("written");
        first.await.expect("it returns although the pipe is open");
        write.write_all(b"three\n").expect("written");
        drop(write);
        let second = pump(hub.clone(), app, name(), read, CancellationToken::new());
        tokio::spawn(second).await.expect("ended");
        assert_eq!(tail.next().await.expect("a line").message, b"half of two");
        assert_eq!(tail.next().await.expect("a line").message, b"three");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_a_flood_every_line_is_shown_or_counted() {
        const LINES: usize = 60_000;
        let dir = tempfile::tempdir().expect("a directory");
        let hub = Hub::open(dir.path()).expect("opened");
        let app = AppId::new();
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        nix::fcntl::fcntl(
            &read,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .expect("set");
        let mut tail = hub.tail(app, Filter::default(), 10);
        let end = CancellationToken::new();
        let task = tokio::spawn(pump(hub.clone(), app, "web.1".to_owned(), read, end));
        let writer = std::thread::spawn(move || {
            let mut write = std::io::BufWriter::new(std::fs::File::from(write));
            for n in 0..LINES {
                writeln!(write, "line {n}").expect("written");
            }
        });
        let counter = tokio::spawn(async move {
            let (mut shown, mut dropped) = (0, 0);
            while let Some(line) = tail.next().await {
                let text = String::from_utf8_lossy(&line.message).into_owned();
                // L10 and L11: `... N messages dropped ...`, `... dropped N messages ...`.
                if let Some((told, _)) = text.split_once(" messages ") {
                    let count = told.rsplit(' ').next().map(str::parse::<usize>);
                    dropped += count.expect("a word").expect("a count");
                } else {
                    shown += 1;
                }
            }
            (shown, dropped)
        });
        writer.join().expect("ended");
        task.await.expect("ended");
        hub.forget(app);
        let (shown, dropped) = counter.await.expect("counted");
        assert_eq!(shown + dropped, LINES, "{shown} shown, {dropped} dropped");
        assert!(dropped > LINES / 2, "{dropped}");
    }
}
