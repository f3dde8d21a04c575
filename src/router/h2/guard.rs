//! Follows a client's frames as the bytes pass, in front of the h2 crate, and does what that leaves
//! out or calls a `PROTOCOL_ERROR` whatever it is:
//!
//! - It counts the frames that cost us more than their sender: PING, SETTINGS, `RST_STREAM`,
//!   PRIORITY, and those nobody knows. A client that sends too many of them is told to calm down.
//!   Source: RFC 9113 section 10.5.
//! - It names frames of a size that their kind cannot have, frames on streams that the client has
//!   ended, a first frame that is no SETTINGS, and a window past the most.
//! - It reads the blocks of HEADERS and CONTINUATION itself, and passes them on in words of its own
//!   (see `block`); so errors of HPACK, and messages that are malformed, get their own answers.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::block::{self, HEAD_MAX, Kind, Verdict};
use super::hpack::Decoder;

#[cfg(test)]
mod tests;

/// So many at once are nothing strange: a browser that leaves a page resets all its streams.
const BURST: u32 = 1000;

/// And so many each second after that.
const PER_SECOND: u32 = 100;

/// What a client still sends after our last words is read for so long.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection begins with. Source: RFC 9113 section 3.4.
pub(super) const PREFACE: usize = 24;

/// Length of a frame's head.
const HEAD: usize = 9;

/// Largest payload of a frame: we announce no other. Source: RFC 9113 section 6.5.2.
const FRAME_MAX: usize = 16_384;

/// CONTINUATION frames of one block: twice as many as the largest head needs. So a block is at most
/// nine times [`FRAME_MAX`].
const CONTINUATIONS_MAX: u32 = 8;

/// Streams that the client has ended, the last ones: more than may be open at once. What comes on an
/// older one, h2 answers.
const ENDED: usize = 128;

/// Largest window of a stream. Source: RFC 9113 section 6.5.2.
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// The field of the static table that counts most, `access-control-allow-origin` without a value, and
/// what it counts. Source: RFC 7541 appendix A.
const LONG: u8 = 0x80 + 20;
const LONG_SIZE: usize = 27 + 32;

// Frames. Source: RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

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

/// A frame but for its payload.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn read(head: [u8; HEAD]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = head;
        Self {
            length: usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// False: no frame of that kind is so long. Source: RFC 9113 sections 4.2 and 6.
    fn is_possible(self) -> bool {
        let padding = usize::from(self.has(PADDED));
        let priority = if self.has(WITH_PRIORITY) { 5 } else { 0 };
        let is_possible = match self.kind {
            DATA => self.length >= padding,
            HEADERS => self.length >= padding + priority,
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.has(ACK) => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            _ => true,
        };
        is_possible && self.length <= FRAME_MAX
    }

    fn write(self, out: &mut BytesMut, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("no more than FRAME_MAX");
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(payload);
    }
}

/// A block that has begun.
#[derive(Debug)]
struct Open {
    stream: u32,
    is_end_stream: bool,
    /// Said to depend on itself. Source: RFC 7540 section 5.3.1.
    is_own_parent: bool,
    continuations: u32,
}

/// Reads frames as the bytes pass.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the preface or of a payload that are still to pass.
    skip: usize,
    /// Bytes of a payload that are still to be gathered.
    take: usize,
    frame: Frame,
    /// The payload of SETTINGS, or the block as far as it is here.
    gathered: BytesMut,
    open: Option<Open>,
    has_settings: bool,
    /// The largest stream that was opened.
    last: u32,
    ended: [u32; ENDED],
    next_ended: usize,
    decoder: Decoder,
    bucket: Bucket,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            skip: PREFACE,
            take: 0,
            frame: Frame::default(),
            gathered: BytesMut::new(),
            open: None,
            has_settings: false,
            last: 0,
            ended: [0; ENDED],
            next_ended: 0,
            decoder: Decoder::new(),
            bucket: Bucket {
                tokens: BURST,
                since: now,
            },
        }
    }

    /// So many of the first bytes go on as they are; what is to go on behind them stands in `out`
    /// then. The rest waits for more.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(super) fn pass(
        &mut self,
        bytes: &[u8],
        now: Instant,
        out: &mut BytesMut,
    ) -> Result<usize, Reason> {
        let (mut at, mut kept) = (0, 0);
        // Nothing was held back or changed.
        let mut is_same = self.have == 0 && self.take == 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.skip > 0 {
                let count = self.skip.min(rest.len());
                self.skip -= count;
                at += count;
                if is_same {
                    kept = at;
                } else {
                    out.extend_from_slice(&rest[..count]);
                }
                continue;
            }
            if self.take > 0 {
                let count = self.take.min(rest.len());
                self.take -= count;
                at += count;
                self.gathered.extend_from_slice(&rest[..count]);
                if self.take == 0 {
                    self.gathered(out)?;
                }
                continue;
            }
            let count = (HEAD - self.have).min(rest.len());
            self.head[self.have..self.have + count].copy_from_slice(&rest[..count]);
            self.have += count;
            at += count;
            if self.have < HEAD {
                break;
            }
            self.have = 0;
            self.frame = Frame::read(self.head);
            self.check(now)?;
            if matches!(self.frame.kind, HEADERS | CONTINUATION | SETTINGS) {
                is_same = false;
                self.take = self.frame.length;
                self.gathered.reserve(self.take);
                if self.take == 0 {
                    self.gathered(out)?;
                }
            } else {
                self.skip = self.frame.length;
                if is_same {
                    kept = at;
                } else {
                    out.extend_from_slice(&self.head);
                }
            }
        }
        Ok(kept)
    }

    /// What a frame's head tells.
    fn check(&mut self, now: Instant) -> Result<(), Reason> {
        let frame = self.frame;
        if !frame.is_possible() {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        // Source: RFC 9113 section 3.4.
        if !self.has_settings && (frame.kind != SETTINGS || frame.has(ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.has_settings = true;
        // Source: RFC 9113 sections 4.3 and 6.10.
        let open = self.open.as_ref().map(|open| open.stream);
        let is_in_place = match frame.kind {
            CONTINUATION => open == Some(frame.stream),
            HEADERS => open.is_none() && frame.stream != 0,
            PUSH_PROMISE => false,
            _ => open.is_none(),
        };
        if !is_in_place {
            return Err(Reason::PROTOCOL_ERROR);
        }
        // DATA, HEADERS, GOAWAY, WINDOW_UPDATE and CONTINUATION are bounded elsewhere.
        let is_free = matches!(
            frame.kind,
            DATA | HEADERS | GOAWAY | WINDOW_UPDATE | CONTINUATION
        );
        if !is_free && !self.bucket.take(now) {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        // Source: RFC 9113 section 5.1, "half-closed (remote)" and "closed".
        let is_ended = || frame.stream != 0 && self.ended.contains(&frame.stream);
        if matches!(frame.kind, DATA | HEADERS) && is_ended() {
            return Err(Reason::STREAM_CLOSED);
        }
        match frame.kind {
            DATA if frame.has(END_STREAM) => self.end(frame.stream),
            RST_STREAM => self.end(frame.stream),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, stream: u32) {
        self.ended[self.next_ended] = stream;
        self.next_ended = (self.next_ended + 1) % ENDED;
    }

    /// The payload of the frame is here.
    fn gathered(&mut self, out: &mut BytesMut) -> Result<(), Reason> {
        let frame = self.frame;
        match frame.kind {
            SETTINGS => {
                let settings = std::mem::take(&mut self.gathered);
                // SETTINGS_INITIAL_WINDOW_SIZE. Source: RFC 9113 section 6.5.2.
                let is_too_large = |setting: &[u8]| {
                    let [0, 4, value @ ..] = setting else {
                        return false;
                    };
                    value
                        .try_into()
                        .is_ok_and(|value| u32::from_be_bytes(value) > WINDOW_MAX)
                };
                if settings.chunks(6).any(is_too_large) {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                frame.write(out, &settings);
                return Ok(());
            }
            HEADERS => self.begin_block()?,
            _ => {
                let open = self.open.as_mut().expect("checked at its head");
                open.continuations += 1;
                if open.continuations > CONTINUATIONS_MAX {
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
            }
        }
        if frame.has(END_HEADERS) {
            self.end_block(out)?;
        }
        Ok(())
    }

    /// Leaves of a HEADERS frame what is block. Source: RFC 9113 section 6.2.
    fn begin_block(&mut self) -> Result<(), Reason> {
        let frame = self.frame;
        // Its size was looked at.
        let padding = if frame.has(PADDED) {
            usize::from(self.gathered.get_u8())
        } else {
            0
        };
        let is_own_parent =
            frame.has(WITH_PRIORITY) && self.gathered.get_u32() & WINDOW_MAX == frame.stream;
        if frame.has(WITH_PRIORITY) {
            self.gathered.advance(1);
        }
        let length = self.gathered.len().checked_sub(padding);
        self.gathered
            .truncate(length.ok_or(Reason::PROTOCOL_ERROR)?);
        self.open = Some(Open {
            stream: frame.stream,
            is_end_stream: frame.has(END_STREAM),
            is_own_parent,
            continuations: 0,
        });
        Ok(())
    }

    /// Reads the block, and writes what h2 is to get.
    fn end_block(&mut self, out: &mut BytesMut) -> Result<(), Reason> {
        let open = self.open.take().expect("a block that ends has begun");
        let block = std::mem::take(&mut self.gathered);
        let kind = if open.stream > self.last {
            Kind::Head
        } else {
            Kind::Trailers
        };
        self.last = self.last.max(open.stream);
        let verdict = block::read(&mut self.decoder, &block, kind);
        let verdict = verdict.map_err(|_| Reason::COMPRESSION_ERROR)?;
        if open.is_end_stream {
            self.end(open.stream);
        }
        let mut is_end_stream = open.is_end_stream;
        let plain = match (verdict, kind) {
            (Verdict::Abuse, _) => return Err(Reason::ENHANCE_YOUR_CALM),
            (Verdict::Good(plain), _) if !open.is_own_parent => plain,
            // It is told "431 Request Header Fields Too Large", for this.
            (Verdict::Large, Kind::Head) => vec![LONG; HEAD_MAX as usize / LONG_SIZE + 1],
            // Without any pseudo-header a head is malformed, and without an end trailers are.
            (_, kind) => {
                is_end_stream &= kind == Kind::Head;
                Vec::new()
            }
        };
        let mut pieces = plain.chunks(FRAME_MAX);
        let mut frame = Frame {
            length: 0,
            kind: HEADERS,
            flags: if is_end_stream { END_STREAM } else { 0 },
            stream: open.stream,
        };
        let mut piece = pieces.next().unwrap_or_default();
        for next in pieces {
            frame.write(out, piece);
            piece = next;
            (frame.kind, frame.flags) = (CONTINUATION, 0);
        }
        frame.flags |= END_HEADERS;
        frame.write(out, piece);
        Ok(())
    }
}

/// A connection whose frames are followed.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    frames: Frames,
    /// Read, and not passed on yet.
    ready: BytesMut,
    alarm: Alarm,
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// `alarm` is set when the connection must end; nothing is read from then on.
    pub(super) fn new(stream: S, alarm: Alarm) -> Self {
        Self {
            stream,
            frames: Frames::new(Instant::now()),
            ready: BytesMut::new(),
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
        while buf.filled().len() == before && this.ready.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            match this.frames.pass(read, Instant::now(), &mut this.ready) {
                Ok(kept) => buf.set_filled(before + kept),
                Err(reason) => {
                    this.alarm.set(Some(reason));
                    // Nobody is to answer it but the one who looks at the alarm.
                    buf.set_filled(before);
                    return Poll::Pending;
                }
            }
        }
        let count = this.ready.len().min(buf.remaining());
        buf.put_slice(&this.ready[..count]);
        this.ready.advance(count);
        if this.ready.is_empty() {
            // Whoever waits needs no memory for it.
            this.ready = BytesMut::new();
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
