//! Counts the frames that cost us more than their sender: PING, SETTINGS, `RST_STREAM`, PRIORITY,
//! and those nobody knows. A client that sends too many of them is told to calm down.
//! Source: RFC 9113 section 10.5.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many at once are nothing strange: a browser that leaves a page resets all its streams.
const BURST: u32 = 1000;

/// And so many each second after that.
const PER_SECOND: u32 = 100;

/// What a connection begins with. Source: RFC 9113 section 3.4.
const PREFACE: usize = 24;

/// Length of a frame's head.
const HEAD: usize = 9;

/// Tokens that come back with time.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    /// False: there is none left.
    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.duration_since(self.since).as_secs();
        if seconds > 0 {
            let back = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.tokens = BURST.min(self.tokens.saturating_add(back.saturating_mul(PER_SECOND)));
            self.since = now;
        }
        let is_left = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        is_left
    }
}

/// Reads frames' heads as the bytes pass.
#[derive(Debug)]
struct Frames {
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the preface or of a payload that are still to pass.
    skip: usize,
    bucket: Bucket,
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            skip: PREFACE,
            bucket: Bucket {
                tokens: BURST,
                since: now,
            },
        }
    }

    /// False: too many of the kind came.
    fn pass(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                // DATA, HEADERS, GOAWAY, WINDOW_UPDATE and CONTINUATION are bounded elsewhere.
                let is_free = matches!(kind, 0 | 1 | 7 | 8 | 9);
                if !is_free && !self.bucket.take(now) {
                    return false;
                }
            }
        }
        true
    }
}

/// A connection whose frames are counted.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    frames: Frames,
    alarm: Rc<Cell<bool>>,
}

impl<S> Guarded<S> {
    /// `alarm` is set when there were too many; nothing is read from then on.
    pub(super) fn new(stream: S, alarm: Rc<Cell<bool>>) -> Self {
        Self {
            stream,
            frames: Frames::new(Instant::now()),
            alarm,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.alarm.get() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if !this.frames.pass(&buf.filled()[before..], Instant::now()) {
            this.alarm.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).expect("small").to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, 0, 0, 0, 0, 0];
        bytes.resize(HEAD + length, 6);
        bytes
    }

    #[test]
    fn only_the_kinds_that_cost_are_counted_however_the_bytes_are_cut() {
        let start = Instant::now();
        let mut frames = Frames::new(start);
        assert!(frames.pass(&[b'x'; PREFACE], start));
        for _ in 0..3000 {
            // The payload looks like heads of PINGs, and is none.
            assert!(frames.pass(&frame(0, 50), start));
        }
        let ping = frame(6, 8);
        for _ in 0..BURST {
            for byte in &ping {
                assert!(frames.pass(std::slice::from_ref(byte), start));
            }
        }
        assert!(!frames.pass(&ping, start));
        let later = start + Duration::from_secs(1);
        for _ in 0..PER_SECOND {
            assert!(frames.pass(&ping, later));
        }
        assert!(!frames.pass(&frame(200, 0), later));
    }
}
