//! From a dyno's pipe to its app's log.

use std::os::fd::OwnedFd;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::Interest;

use super::{Hub, Line, Source, Splitter};
use crate::model::AppId;
use crate::sys;

/// An unfinished line is shown after so long. Source: log-shuttle.
const FLUSH: Duration = Duration::from_millis(250);

/// One read.
const CHUNK: usize = 64 * 1024;

/// Reads a dyno's output to its end, line by line. The dyno never waits for long: reading costs
/// no disk and no network, and what readers cannot take is dropped at their side (L11).
pub async fn pump(hub: Hub, app: AppId, process: String, output: OwnedFd) {
    let output = match sys::watch(output) {
        Ok(output) => output,
        Err(error) => {
            tracing::error!(%process, %error, "a dyno's output cannot be read");
            return;
        }
    };
    let mut splitter = Splitter::default();
    let mut append = |message: Vec<u8>| {
        let line = Line {
            time: Timestamp::now(),
            source: Source::App,
            process: process.clone(),
            message,
        };
        hub.append(app, line);
    };
    let mut buffer = Vec::new();
    loop {
        let read = output.async_io(Interest::READABLE, |fd| {
            // Held only while there is something to read: an idle dyno costs no buffer.
            buffer.resize(CHUNK, 0);
            nix::unistd::read(fd, &mut buffer).map_err(std::io::Error::from)
        });
        let read = if splitter.has_rest() {
            if let Ok(read) = tokio::time::timeout(FLUSH, read).await {
                read
            } else {
                splitter.flush(&mut append);
                continue;
            }
        } else {
            read.await
        };
        match read {
            Ok(0) => break,
            Ok(length) => {
                splitter.push(&buffer[..length], &mut append);
                if length < CHUNK {
                    buffer = Vec::new();
                }
            }
            Err(error) => {
                tracing::warn!(%process, %error, "a dyno's output ended");
                break;
            }
        }
    }
    splitter.flush(append);
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
        let task = tokio::spawn(pump(hub.clone(), app, "web.1".to_owned(), read));
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
}
