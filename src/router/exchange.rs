//! One request and its answer between two sockets.
//!
//! Three things run side by side: the request's body up (then an eye on the client, which may
//! leave), the answer down, and the clock. The answer decides the end; a body that is not through
//! by then ends the client's connection.

use std::cell::Cell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::chunks::{Decoder, Step};
use super::deadline::Deadline;
use super::failure::Failure;
use super::hail::{self, Ahead, Question};
use super::head::{Framing, Request};
use super::relay::{Answer, Answered, Tail};
use super::tunnel;
use super::upstream::InUse;
use super::wire::{Source, Wire};
use super::worker;
use crate::settings::Timings;

/// One read of a body.
pub(super) const READ: usize = 64 * 1024;

/// What a client may send behind its request while that is served. Past it nothing is read, and a
/// client that leaves is noticed only by what it does not take.
const AHEAD: usize = 64 * 1024;

/// What an exchange works on.
pub(super) struct Exchange<'a, C, D> {
    pub(super) client: &'a mut C,
    /// What the client sent behind the head.
    pub(super) buffer: &'a mut BytesMut,
    /// Of the client's connection.
    pub(super) deadline: &'a mut Deadline,
    pub(super) upstream: &'a mut D,
    pub(super) request: &'a Request,
    pub(super) ahead: &'a Ahead,
    /// As to be sent to the dyno.
    pub(super) head: BytesMut,
    pub(super) manners: Manners<'a>,
    pub(super) is_reused: bool,
    pub(super) in_use: InUse,
    /// Now.
    pub(super) started: Instant,
    pub(super) timings: Timings,
}

/// How the answer is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners<'a> {
    /// The client would keep its connection.
    pub(super) wants_more: bool,
    /// The answer says that TLS is a must.
    pub(super) is_strict: bool,
    /// Of HTTP, that the dyno's answer comes in, if not what its head says.
    pub(super) version: Option<&'static str>,
    /// The dyno, not the router, says "100 Continue".
    pub(super) is_continue_passed: bool,
    /// A header line that the answer gets, or nothing.
    pub(super) cookie: &'a str,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// The dyno's answer is all here.
    Done {
        status: u16,
        bytes: u64,
        keep_client: bool,
        keep_upstream: bool,
        /// The dyno has too much to do, and says for how long.
        retry_after: Option<Duration>,
        /// What the client has not taken yet: the dyno need not wait for that.
        tail: Tail,
    },
    /// A pipe of bytes that ended.
    Piped { bytes: u64, end: tunnel::End },
    /// It did not go through. `is_started`: the client has the answer's head already.
    Failed {
        failure: Failure,
        bytes: u64,
        is_started: bool,
    },
    /// The pooled connection was dead, and the request may be sent again.
    Stale,
}

/// Who has to move next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Dyno,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The request's body is on its way.
    Uploading,
    /// The answer has not begun.
    Waiting,
    /// The answer has begun.
    Answering,
    /// Both sides speak (101).
    Tunnel,
}

/// What the three parts share.
pub(super) struct Progress {
    last: Cell<Instant>,
    /// Bytes have moved since the clock was looked at.
    has_moved: Cell<bool>,
    pub(super) phase: Cell<Phase>,
    /// Of the answer's body.
    pub(super) bytes: Cell<u64>,
    pub(super) is_uploaded: Cell<bool>,
    /// The client has the answer's head.
    pub(super) is_started: Cell<bool>,
    /// How the answer's body goes to the client, once its head does.
    pub(super) framing: Cell<Framing>,
    /// Something went to the client since it ended, if it did.
    pub(super) has_told: Cell<bool>,
    /// The dyno has said something.
    pub(super) has_answer: Cell<bool>,
    /// Who the upload, and who the answer waits for.
    up: Cell<Side>,
    pub(super) down: Cell<Side>,
    /// Nobody may send the body before the dyno has said so.
    pub(super) awaits_continue: Cell<bool>,
    timings: Timings,
}

impl Progress {
    fn new(timings: Timings, started: Instant, awaits_continue: bool) -> Self {
        Self {
            last: Cell::new(started),
            has_moved: Cell::new(false),
            phase: Cell::new(Phase::Uploading),
            bytes: Cell::new(0),
            is_uploaded: Cell::new(false),
            is_started: Cell::new(false),
            framing: Cell::new(Framing::None),
            has_told: Cell::new(true),
            has_answer: Cell::new(false),
            up: Cell::new(Side::Dyno),
            down: Cell::new(Side::Dyno),
            awaits_continue: Cell::new(awaits_continue),
            timings,
        }
    }

    /// Bytes have moved.
    pub(super) fn touch(&self) {
        self.has_moved.set(true);
    }

    /// Bytes of the answer's body have come.
    pub(super) fn add(&self, count: usize) {
        self.bytes.set(self.bytes.get() + count as u64);
        self.touch();
    }

    /// Bytes have gone to the client.
    pub(super) fn told(&self) {
        self.has_told.set(true);
        self.touch();
    }

    /// What may be said to a client that has ended.
    fn question(&self) -> Question {
        if self.down.get() == Side::Client || self.phase.get() == Phase::Tunnel {
            return Question::Later;
        }
        match self.framing.get() {
            _ if !self.is_started.get() => Question::Word,
            Framing::Chunked => Question::Zero,
            _ if self.has_told.get() => Question::Later,
            _ => Question::Never,
        }
    }

    fn uploaded(&self) {
        self.is_uploaded.set(true);
        if self.phase.get() == Phase::Uploading {
            self.phase.set(Phase::Waiting);
            self.touch();
        }
    }

    /// What silence means now, and how long it may last.
    fn limit(&self) -> (Duration, Failure) {
        let Timings {
            request_timeout,
            idle_timeout,
            ..
        } = self.timings;
        let idle = |side: &Cell<Side>| match side.get() {
            Side::Client => Failure::CLIENT_IDLE,
            Side::Dyno => Failure::IDLE,
        };
        match self.phase.get() {
            Phase::Waiting => (request_timeout, Failure::TIMEOUT),
            Phase::Uploading if self.awaits_continue.get() => (request_timeout, Failure::TIMEOUT),
            Phase::Uploading => (idle_timeout, idle(&self.up)),
            Phase::Answering => (idle_timeout, idle(&self.down)),
            Phase::Tunnel => (idle_timeout, Failure::IDLE),
        }
    }

    /// Ends with the failure that the clock says.
    pub(super) async fn clock(&self, deadline: &mut Deadline) -> Failure {
        poll_fn(|context| {
            // Read once per wake-up, not for every piece: this is asked after all others.
            if self.has_moved.take() {
                self.last.set(Instant::now());
            }
            deadline.poll(self.last.get() + self.limit().0, context)
        })
        .await;
        self.limit().1
    }
}

/// What ended the way up.
enum Broken {
    Client,
    Upstream,
    BadChunk,
}

/// Runs it to its end.
pub(super) async fn run<C: Wire, D: Wire>(exchange: Exchange<'_, C, D>) -> End {
    let Exchange {
        client,
        buffer,
        deadline,
        upstream,
        request,
        ahead,
        head,
        manners,
        is_reused,
        in_use,
        started,
        timings,
    } = exchange;
    let progress = Progress::new(timings, started, manners.is_continue_passed);
    let (mut from_client, mut to_client) = client.split();
    let (mut from_dyno, mut to_dyno) = upstream.split();
    let mut rest = worker::lend();
    let answered = {
        // Pinned where they are made: to move them would need room for both places.
        let mut up = pin!(async {
            let mut sender = Sender {
                client: &mut from_client,
                buffer,
                dyno: &mut to_dyno,
                ahead,
                progress: &progress,
            };
            sender.upload(request, head).await?;
            progress.uploaded();
            sender.watch().await
        });
        let mut answer = Answer {
            request,
            ahead,
            manners,
            progress: &progress,
            in_use,
            rest: &mut rest,
            tail: Tail::default(),
        };
        let mut answer = pin!(answer.run(&mut from_dyno, &mut to_client));
        let mut clock = pin!(progress.clock(deadline));
        let mut is_up = true;
        loop {
            tokio::select! {
                biased;
                broken = &mut up, if is_up => match broken {
                    // A dyno may answer and close without reading the body: its answer counts.
                    Err(Broken::Upstream) => is_up = false,
                    Ok(()) | Err(Broken::Client) => break Err(Failure::CLIENT_GONE),
                    Err(Broken::BadChunk) => break Err(Failure::request(400, "bad chunk")),
                },
                answered = &mut answer => break answered,
                failure = &mut clock => break Err(failure),
            }
        }
    };
    let is_uploaded = progress.is_uploaded.get();
    let end = match answered {
        Ok(Answered::Final {
            status,
            is_closed,
            keeps_upstream,
            retry_after,
            tail,
        }) => End::Done {
            status,
            retry_after,
            bytes: progress.bytes.get(),
            keep_client: is_uploaded && !is_closed,
            keep_upstream: keeps_upstream && is_uploaded && rest.is_empty(),
            tail,
        },
        Ok(Answered::Switched) => {
            let client = (&mut from_client, &mut to_client);
            let dyno = (&mut from_dyno, &mut to_dyno);
            let protocol = request.upgrade.as_deref().unwrap_or_default();
            let is_websocket = protocol.eq_ignore_ascii_case("websocket");
            let (up, down) = (buffer, &mut rest);
            // Boxed: other requests carry no room for it.
            let run = tunnel::run(client, dyno, up, down, &progress, deadline, is_websocket);
            let end = Box::pin(run).await;
            End::Piped {
                bytes: progress.bytes.get(),
                end,
            }
        }
        Err(Failure::CLOSED) if is_reused && may_repeat(request) && !progress.has_answer.get() => {
            End::Stale
        }
        Err(failure) => End::Failed {
            failure,
            bytes: progress.bytes.get(),
            is_started: progress.is_started.get(),
        },
    };
    worker::give_back(rest);
    end
}

/// True if sending it twice is as good as once, and no body byte is spent by it. All others get a
/// connection that was not used before, so that none of them meets one that is being closed.
/// Source: RFC 9110 section 9.2.2, RFC 9112 section 9.3.1.
pub(super) fn may_repeat(request: &Request) -> bool {
    let is_idempotent = matches!(
        request.method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    );
    is_idempotent && request.framing == Framing::None && request.upgrade.is_none()
}

/// The way up.
struct Sender<'a, C, D> {
    client: &'a mut C,
    /// What the client sent that is not on its way yet.
    buffer: &'a mut BytesMut,
    dyno: &'a mut D,
    ahead: &'a Ahead,
    progress: &'a Progress,
}

impl<C: Source, D: AsyncWrite + Unpin> Sender<'_, C, D> {
    /// Ends when the client is gone.
    async fn watch(&mut self) -> Result<(), Broken> {
        while self.buffer.len() < AHEAD {
            if self.buffer.capacity() == self.buffer.len() {
                self.buffer.reserve(4096);
            }
            match self.client.read_buf(self.buffer).await {
                Ok(1..) => {}
                // It sends no more, and still gets its answer. Boxed: others carry no room for it.
                Ok(0) => {
                    self.progress.has_told.set(false);
                    let question = || self.progress.question();
                    let gone = self.ahead.gone(self.client, hail::PATIENCE, question);
                    Box::pin(gone).await;
                    return Err(Broken::Client);
                }
                Err(_) => return Err(Broken::Client),
            }
        }
        std::future::pending().await
    }

    /// Sends the head (`out`) and the body to the dyno. Small bodies that are here already go in one
    /// write.
    async fn upload(&mut self, request: &Request, mut out: BytesMut) -> Result<(), Broken> {
        match request.framing {
            Framing::None | Framing::UntilClose => {
                self.write(&out).await?;
                worker::give_back(out);
                Ok(())
            }
            Framing::Length(mut left) => loop {
                let whole = usize::try_from(left).unwrap_or(usize::MAX);
                let count = self.buffer.len().min(whole);
                let piece = self.buffer.split_to(count);
                left -= count as u64;
                if out.is_empty() {
                    self.write(&piece).await?;
                } else {
                    out.extend_from_slice(&piece);
                    self.write(&out).await?;
                    out.clear();
                }
                drop(piece);
                if left == 0 {
                    return Ok(());
                }
                self.read().await?;
            },
            Framing::Chunked => {
                let mut decoder = Decoder::new();
                loop {
                    match decoder.step(self.buffer).map_err(|_| Broken::BadChunk)? {
                        Step::Data(count) => {
                            chunk_start(&mut out, count);
                            out.put_slice(&self.buffer[..count]);
                            chunk_end(&mut out);
                            self.buffer.advance(count);
                            decoder.taken(count);
                        }
                        Step::End(trailers) => {
                            last_chunk(&mut out, &trailers);
                            return self.write(&out).await;
                        }
                        Step::More => {
                            if !out.is_empty() {
                                self.write(&out).await?;
                                out.clear();
                            }
                            self.read().await?;
                        }
                    }
                }
            }
        }
    }

    /// Every piece that the dyno takes counts as a move: a slow reader is no dead one.
    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        self.progress.up.set(Side::Dyno);
        while !bytes.is_empty() {
            let written = match self.dyno.write(bytes).now_or_never() {
                Some(written) => written,
                // Boxed: most writes do not wait.
                None => Box::pin(self.wait(bytes)).await?,
            };
            match written {
                Ok(count @ 1..) => bytes = &bytes[count..],
                _ => return Err(Broken::Upstream),
            }
            self.progress.touch();
        }
        self.dyno.flush().await.map_err(|_| Broken::Upstream)
    }

    /// The dyno takes nothing now, so nobody reads what the client sends. It may leave all the same.
    async fn wait(&mut self, bytes: &[u8]) -> Result<std::io::Result<usize>, Broken> {
        let question = || self.progress.question();
        tokio::select! {
            biased;
            written = self.dyno.write(bytes) => Ok(written),
            () = self.ahead.left(self.client, question) => Err(Broken::Client),
        }
    }

    async fn read(&mut self) -> Result<(), Broken> {
        self.progress.up.set(Side::Client);
        self.buffer.reserve(READ);
        match self.client.read_buf(self.buffer).await {
            Ok(1..) => {
                self.progress.awaits_continue.set(false);
                self.progress.touch();
                Ok(())
            }
            _ => Err(Broken::Client),
        }
    }
}

/// What stands before the data of a chunk.
pub(super) fn chunk_start(out: &mut BytesMut, count: usize) {
    // A buffer takes all.
    let _ = write!(out, "{count:x}\r\n");
}

/// And behind it.
pub(super) fn chunk_end(out: &mut BytesMut) {
    out.put_slice(b"\r\n");
}

/// The end of a chunked body.
pub(super) fn last_chunk(out: &mut BytesMut, trailers: &[u8]) {
    out.put_slice(b"0\r\n");
    out.put_slice(trailers);
    out.put_slice(b"\r\n");
}
