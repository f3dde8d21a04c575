//! Counts the frames that cost us more than their sender: PING, SETTINGS, `RST_STREAM`, PRIORITY,
//! and those nobody knows. A client that sends too many of them is told to calm down. Frames of a
//! size that their kind cannot have are told apart here too: the h2 crate calls all of it a
//! `PROTOCOL_ERROR`.
//! Source: RFC 9113 section 10.5.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// So many at once are nothing strange: a browser that leaves a page resets all its streams.
const BURST: u32 = 1000;

/// And so many each second after that.
const PER_SECOND: u32 = 100;

/// What a client still sends after our last words is read for so long.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection begins with. Source: RFC 9113 section 3.4.
const PREFACE: usize = 24;

/// Length of a frame's head.
const HEAD: usize = 9;

/// Set when a connection must end, with what it is to be told.
pub(super) type Alarm = Rc<Cell<Option<Reason>>>;

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

/// True if a frame of that kind may be so long. Source: RFC 9113 section 6.
fn is_possible(kind: u8, flags: u8, length: usize) -> bool {
    match kind {
        2 => length == 5,
        3 | 8 => length == 4,
        4 if flags & 1 != 0 => length == 0,
        4 => length.is_multiple_of(6),
        6 => length == 8,
        _ => true,
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

    /// Why the connection must end, if it must.
    fn pass(&mut self, mut bytes: &[u8], now: Instant) -> Option<Reason> {
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
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if !is_possible(kind, flags, self.skip) {
                    return Some(Reason::FRAME_SIZE_ERROR);
                }
                // DATA, HEADERS, GOAWAY, WINDOW_UPDATE and CONTINUATION are bounded elsewhere.
                let is_free = matches!(kind, 0 | 1 | 7 | 8 | 9);
                if !is_free && !self.bucket.take(now) {
                    return Some(Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
        None
    }
}

/// A connection whose frames are counted.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    frames: Frames,
    alarm: Alarm,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// `alarm` is set when the connection must end; nothing is read from then on.
    pub(super) fn new(stream: S, alarm: Alarm) -> Self {
        Self {
            stream,
            frames: Frames::new(Instant::now()),
            alarm,
            linger: None,
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
        if this.alarm.get().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let Some(reason) = this.frames.pass(&buf.filled()[before..], Instant::now()) {
            this.alarm.set(Some(reason));
            // Nobody is to answer it but the one who looks at the alarm.
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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

    /// What still comes is read and dropped for a while: a socket that is closed with bytes in it
    /// resets the connection under our last words.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        let linger = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut sink = [0; 4096];
        while linger.as_mut().poll(cx).is_pending() {
            let mut sink = ReadBuf::new(&mut sink);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut sink))?;
            if sink.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(frames.pass(&[b'x'; PREFACE], start), None);
        for _ in 0..3000 {
            // The payload looks like heads of PINGs, and is none.
            assert_eq!(frames.pass(&frame(0, 50), start), None);
        }
        let ping = frame(6, 8);
        for _ in 0..BURST {
            for byte in &ping {
                assert_eq!(frames.pass(std::slice::from_ref(byte), start), None);
            }
        }
        let calm = Some(Reason::ENHANCE_YOUR_CALM);
        assert_eq!(frames.pass(&ping, start), calm);
        // Nothing was read behind the head that was too many.
        frames.skip = 0;
        let later = start + Duration::from_secs(1);
        for _ in 0..PER_SECOND {
            assert_eq!(frames.pass(&ping, later), None);
        }
        assert_eq!(frames.pass(&frame(200, 0), later), calm);
    }
}
