//! The way down: interim answers, the head, the body. What the client is slow to take is held, so
//! that a dyno is done when it has answered, not when its client has read.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::chunks::{Decoder, Step};
use super::exchange::{Manners, Phase, Progress, READ, Side, chunk_end, chunk_start, last_chunk};
use super::failure::Failure;
use super::hail::Ahead;
use super::head::{self, Expect, Framing, Request, Response};
use super::headers;
use super::https;
use super::upstream::InUse;
use super::wire::Source;
use super::worker;

/// Interim answers a dyno may send.
const INTERIM_MAX: usize = 1000;

/// Bytes of an answer that are held for a client that is slow to read.
/// Source: Dev Center, "HTTP Routing", response buffering.
const HELD_MAX: usize = 1024 * 1024;

/// Up to so many bytes of a body, its sender may have written the head and them apart and wait, by
/// Nagle's algorithm, for the word that the head has come: the kernel would keep that for 40 ms.
const HASTE: u64 = 4 * 1024;

/// The interim answer that says nothing.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the dyno decided.
pub(super) enum Answered {
    Final {
        status: u16,
        /// Our connection to the client ends with it.
        is_closed: bool,
        keeps_upstream: bool,
        retry_after: Option<Duration>,
        tail: Tail,
    },
    Switched,
}

/// A piece of a body that is shorter is copied to what goes out; a longer one goes out from where
/// it was read to.
const COPIED: usize = 8 * 1024;

/// What the client has not taken yet. A piece on its way stays as it is until it is taken: some
/// carriers have a copy of it already, and know it by its place.
#[derive(Debug, Default)]
pub(super) struct Tail {
    piece: Bytes,
    /// A piece that waits behind it.
    next: Bytes,
    /// Gathered behind both.
    out: BytesMut,
}

impl Tail {
    fn new() -> Self {
        Self {
            out: worker::lend(),
            ..Self::default()
        }
    }

    fn len(&self) -> usize {
        self.piece.len() + self.next.len() + self.out.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes for the client.
    fn extend(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// So many bytes from the front of `from`.
    fn take(&mut self, from: &mut BytesMut, count: usize) {
        if self.piece.is_empty() && count >= COPIED {
            self.piece = self.out.split().freeze();
        }
        if count < COPIED || !self.next.is_empty() || !self.out.is_empty() {
            self.extend(&from[..count]);
            from.advance(count);
        } else if self.piece.is_empty() {
            self.piece = from.split_to(count).freeze();
        } else {
            self.next = from.split_to(count).freeze();
        }
    }

    /// Writes a part, or flushes when there is none.
    async fn push(&mut self, client: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.piece.is_empty() {
            // What it lay in may be used again, so it is let go.
            self.piece = std::mem::take(&mut self.next);
        }
        if self.piece.is_empty() {
            self.piece = self.out.split().freeze();
        }
        if self.piece.is_empty() {
            return client.flush().await;
        }
        let count = if self.next.is_empty() {
            client.write(&self.piece).await?
        } else {
            let both = [IoSlice::new(&self.piece), IoSlice::new(&self.next)];
            client.write_vectored(&both).await?
        };
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_piece = count.min(self.piece.len());
        self.piece.advance(of_piece);
        self.next.advance(count - of_piece);
        if self.piece.is_empty() {
            self.piece = std::mem::take(&mut self.next);
        }
        Ok(())
    }
}

/// The way down.
pub(super) struct Answer<'a> {
    pub(super) request: &'a Request,
    pub(super) ahead: &'a Ahead,
    pub(super) manners: Manners<'a>,
    pub(super) progress: &'a Progress,
    pub(super) in_use: InUse,
    /// Bytes of the dyno that were read and belong to nothing yet.
    pub(super) rest: &'a mut BytesMut,
    pub(super) tail: Tail,
}

impl Answer<'_> {
    pub(super) async fn run(
        &mut self,
        dyno: &mut impl Source,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Answered, Failure> {
        // We are connected, so somebody will take the body.
        let mut is_continued = self.request.expect == Expect::Continue
            && self.request.framing != Framing::None
            && !self.manners.is_continue_passed;
        if is_continued {
            self.send(client, CONTINUE).await?;
        }
        for _ in 0..=INTERIM_MAX {
            let response = self.head(dyno).await?;
            self.progress.awaits_continue.set(false);
            match response.status {
                // It must have read the whole request before. Source: RFC 9110 section 7.8.
                101 if self.request.upgrade.is_some() && self.progress.is_uploaded.get() => {
                    self.progress.is_started.set(true);
                    self.progress.phase.set(Phase::Tunnel);
                    let mut out = headers::interim(&response, true);
                    headers::add(&mut out, self.manners.cookie);
                    self.send(client, &out).await?;
                    return Ok(Answered::Switched);
                }
                101 => return Err(Failure::POOR),
                // The one that was asked for, and no second one.
                100 if self.manners.is_continue_passed => {
                    if is_continued {
                        return Err(Failure::POOR);
                    }
                    is_continued = true;
                    self.send(client, CONTINUE).await?;
                }
                // The client has its 100 from us.
                100 if is_continued => {}
                100..=199 if self.request.is_old => {}
                100..=199 => {
                    self.send(client, &headers::interim(&response, false))
                        .await?;
                }
                _ => return self.relay(response, dyno, client).await,
            }
        }
        Err(Failure::POOR)
    }

    /// The next head of the dyno.
    async fn head(&mut self, dyno: &mut impl Source) -> Result<Response, Failure> {
        let is_head = self.request.method == "HEAD";
        let mut looked = 0;
        loop {
            head::status_line(self.rest).map_err(|refused| Failure::restriction(refused.cause))?;
            let end = head::end_of_head(self.rest, looked).map_err(|_| Failure::POOR)?;
            if let Some(end) = end {
                let bytes = self.rest.split_to(end).freeze();
                return head::response(&bytes, is_head)
                    .map_err(|refused| Failure::restriction(refused.cause));
            }
            if !self.rest.is_empty() {
                dyno.acknowledge();
            }
            looked = self.rest.len();
            if looked > head::RESPONSE_HEAD_MAX {
                return Err(Failure::restriction("oversized header"));
            }
            self.progress.down.set(Side::Dyno);
            self.rest.reserve(READ);
            let read = dyno.read_buf(self.rest);
            let is_sent = || self.progress.is_uploaded.get();
            match self.in_use.wait(read, is_sent).await {
                Ok(1..) => {
                    self.in_use.answered();
                    self.progress.has_answer.set(true);
                    self.progress.touch();
                    if self.progress.phase.get() == Phase::Waiting {
                        self.progress.phase.set(Phase::Answering);
                    }
                }
                _ if self.rest.is_empty() => return Err(Failure::CLOSED),
                _ => return Err(Failure::INTERRUPTED),
            }
        }
    }

    async fn relay(
        &mut self,
        mut response: Response,
        dyno: &mut impl Source,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Answered, Failure> {
        let is_old = self.request.is_old;
        if is_old && response.told == Framing::Chunked {
            response.told = Framing::UntilClose;
        }
        let framing = match response.framing {
            Framing::Chunked if is_old => Framing::UntilClose,
            other => other,
        };
        let is_closed = !self.manners.wants_more
            || framing == Framing::UntilClose
            || !self.progress.is_uploaded.get();
        self.tail = Tail::new();
        let out = &mut self.tail.out;
        let told = if response.is_old { "1.0" } else { "1.1" };
        let version = self.manners.version.unwrap_or(told);
        headers::to_client(out, &response, framing, !is_closed, version);
        if self.manners.is_strict {
            headers::add_missing(out, &response, https::HSTS);
        }
        headers::add(out, self.manners.cookie);
        out.advance(self.ahead.take());
        self.progress.framing.set(framing);
        self.progress.phase.set(Phase::Answering);
        let dyno_keeps = response.connection.lasts(response.is_old) && !response.is_doubtful;
        let (status, framing) = (response.status, response.framing);
        let retry_after = headers::retry_after(&response);
        // The body's room is the head's.
        drop(response);
        match framing {
            Framing::None => {}
            Framing::Length(left) => self.by_length(left, dyno, client).await?,
            Framing::UntilClose => self.by_close(dyno, client).await?,
            Framing::Chunked => self.by_chunks(is_old, dyno, client).await?,
        }
        self.push(client)?;
        self.progress.is_started.set(true);
        if self.tail.is_empty() {
            worker::give_back(std::mem::take(&mut self.tail.out));
        }
        Ok(Answered::Final {
            status,
            is_closed,
            retry_after,
            keeps_upstream: dyno_keeps && framing != Framing::UntilClose,
            tail: std::mem::take(&mut self.tail),
        })
    }

    async fn by_length(
        &mut self,
        mut left: u64,
        dyno: &mut impl Source,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        loop {
            let count = self
                .rest
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.tail.take(self.rest, count);
            self.progress.add(count);
            left -= count as u64;
            if left == 0 {
                return Ok(());
            }
            if !self.more(dyno, client).await? {
                return self.torn(client).await;
            }
        }
    }

    async fn by_close(
        &mut self,
        dyno: &mut impl Source,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        loop {
            let count = self.rest.len();
            self.tail.take(self.rest, count);
            self.progress.add(count);
            if !self.more(dyno, client).await? {
                return Ok(());
            }
        }
    }

    /// `is_old`: the client knows no chunks, so it gets the bare data.
    async fn by_chunks(
        &mut self,
        is_old: bool,
        dyno: &mut impl Source,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        let mut decoder = Decoder::new();
        loop {
            let Ok(step) = decoder.step(self.rest) else {
                // Nobody has seen the head yet: there is still an error to tell.
                return if self.progress.is_started.get() {
                    self.torn(client).await
                } else {
                    Err(Failure::POOR)
                };
            };
            match step {
                Step::Data(count) => {
                    if !is_old {
                        chunk_start(&mut self.tail.out, count);
                    }
                    self.tail.take(self.rest, count);
                    if !is_old {
                        chunk_end(&mut self.tail.out);
                    }
                    decoder.taken(count);
                    self.progress.add(count);
                }
                Step::End(trailers) => {
                    if !is_old {
                        last_chunk(&mut self.tail.out, &trailers);
                    }
                    return Ok(());
                }
                Step::More => {
                    if !self.more(dyno, client).await? {
                        return self.torn(client).await;
                    }
                }
            }
        }
    }

    /// The answer breaks off: the client gets what there is, and no more.
    async fn torn(&mut self, client: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
        self.progress.is_started.set(true);
        self.progress.down.set(Side::Client);
        while !self.tail.is_empty() {
            let sent = self.tail.push(client).await;
            sent.map_err(|_| Failure::CLIENT_GONE)?;
            self.progress.touch();
        }
        client.flush().await.map_err(|_| Failure::CLIENT_GONE)?;
        Err(Failure::INTERRUPTED)
    }

    /// Reads on, and writes meanwhile what the client takes. False: the dyno has closed.
    async fn more(
        &mut self,
        dyno: &mut impl Source,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<bool, Failure> {
        if self.progress.bytes.get() < HASTE {
            dyno.acknowledge();
        }
        let mut is_flushed = self.tail.is_empty();
        loop {
            let side = if is_flushed { Side::Dyno } else { Side::Client };
            self.progress.down.set(side);
            let has_room = self.tail.len() < HELD_MAX;
            // Nothing left to write: what follows is the flush behind it.
            let is_last = self.tail.is_empty();
            tokio::select! {
                biased;
                sent = self.tail.push(client), if !is_flushed => {
                    sent.map_err(|_| Failure::CLIENT_GONE)?;
                    self.progress.is_started.set(true);
                    is_flushed = is_last;
                    self.progress.told();
                }
                read = read(dyno, self.rest), if has_room => {
                    self.progress.touch();
                    return match read {
                        Ok(count) => Ok(count > 0),
                        Err(_) => self.torn(client).await.map(|()| false),
                    };
                }
            }
        }
    }

    /// Writes what the client takes at once.
    fn push(&mut self, client: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
        while !self.tail.is_empty() {
            match self.tail.push(client).now_or_never() {
                Some(Ok(())) => {}
                Some(Err(_)) => return Err(Failure::CLIENT_GONE),
                None => break,
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        client: &mut (impl AsyncWrite + Unpin),
        mut bytes: &[u8],
    ) -> Result<(), Failure> {
        self.progress.down.set(Side::Client);
        bytes = &bytes[self.ahead.take()..];
        while !bytes.is_empty() {
            match client.write(bytes).await {
                Ok(count @ 1..) => bytes = &bytes[count..],
                _ => return Err(Failure::CLIENT_GONE),
            }
            self.progress.told();
        }
        let flushed = client.flush().await;
        self.progress.down.set(Side::Dyno);
        flushed.map_err(|_| Failure::CLIENT_GONE)
    }
}

/// Makes room when it is time to read: then what was read before has often gone out, and its room
/// is used again.
async fn read(dyno: &mut impl Source, rest: &mut BytesMut) -> io::Result<usize> {
    rest.reserve(READ);
    dyno.read_buf(rest).await
}

/// Sends the tail of an answer, whose dyno is free again. `idle`: longest pause of the client.
///
/// # Errors
/// The client is gone, or reads nothing.
pub(super) async fn drain(
    client: &mut (impl AsyncWrite + Unpin),
    mut tail: Tail,
    idle: Duration,
) -> Result<(), Failure> {
    loop {
        let is_last = tail.is_empty();
        match timeout(idle, tail.push(client)).await {
            Ok(Ok(())) if is_last => return Ok(()),
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Failure::CLIENT_GONE),
            Err(_) => return Err(Failure::CLIENT_IDLE),
        }
    }
}
