//! One request and its answer between two sockets.
//!
//! Three things run side by side: the request's body up, the answer down, and the clock. The
//! answer decides the end; a body that is not through by then ends the client's connection.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use super::chunks::{Decoder, Step};
use super::failure::Failure;
use super::head::{self, Expect, Framing, Request, Response};
use super::headers;
use super::https;
use super::proxy::Fresh;
use super::wire::Wire;
use crate::settings::Timings;

/// One read of a body.
const READ: usize = 64 * 1024;

/// Interim answers a dyno may send.
const INTERIM_MAX: usize = 100;

/// What an exchange works on.
pub(super) struct Exchange<'a, C, D> {
    pub(super) client: &'a mut C,
    /// What the client sent behind the head.
    pub(super) buffer: &'a mut BytesMut,
    pub(super) upstream: &'a mut D,
    pub(super) request: &'a Request,
    /// As to be sent to the dyno.
    pub(super) head: Vec<u8>,
    /// The client would keep its connection.
    pub(super) wants_more: bool,
    pub(super) is_reused: bool,
    /// The answer says that TLS is a must.
    pub(super) is_strict: bool,
    pub(super) fresh: Option<Fresh>,
    pub(super) timings: Timings,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum End {
    /// The answer went through.
    Done {
        status: u16,
        bytes: u64,
        keep_client: bool,
        keep_upstream: bool,
        /// The dyno has too much to do, and says for how long.
        retry_after: Option<Duration>,
    },
    /// It did not. `is_started`: the client has the answer's head already.
    Failed {
        failure: Failure,
        bytes: u64,
        is_started: bool,
    },
    /// The pooled connection was dead, and the request may be sent again.
    Stale,
}

/// What the three parts share.
struct Progress {
    last: Cell<Instant>,
    phase: Cell<Phase>,
    bytes: Cell<u64>,
    is_started: Cell<bool>,
    has_answer: Cell<bool>,
    timings: Timings,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request's body is on its way.
    Uploading,
    /// The answer has not begun.
    Waiting,
    /// The answer has begun.
    Answering,
    /// Both sides speak (101).
    Tunnel,
}

impl Progress {
    fn touch(&self) {
        self.last.set(Instant::now());
    }

    fn add(&self, count: usize) {
        self.bytes.set(self.bytes.get() + count as u64);
        self.touch();
    }
}

/// Which socket failed.
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
        upstream,
        request,
        head,
        wants_more,
        is_reused,
        is_strict,
        fresh,
        timings,
    } = exchange;
    let progress = Progress {
        last: Cell::new(Instant::now()),
        phase: Cell::new(Phase::Uploading),
        bytes: Cell::new(0),
        is_started: Cell::new(false),
        has_answer: Cell::new(false),
        timings,
    };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_dyno, mut to_dyno) = upstream.split();
    let mut is_uploaded = false;
    let mut rest = BytesMut::new();
    let answered = {
        let upload = upload(
            request,
            head,
            buffer,
            &mut from_client,
            &mut to_dyno,
            &progress,
        );
        let answer = Answer {
            request,
            wants_more,
            is_strict,
            progress: &progress,
            fresh,
            rest: &mut rest,
        }
        .run(&mut from_dyno, &mut to_client);
        let clock = clock(&progress);
        tokio::pin!(upload, answer, clock);
        loop {
            tokio::select! {
                biased;
                done = &mut upload, if !is_uploaded => match done {
                    Ok(()) => {
                        is_uploaded = true;
                        if progress.phase.get() == Phase::Uploading {
                            progress.phase.set(Phase::Waiting);
                            progress.touch();
                        }
                    }
                    // A dyno may answer and close without reading the body: its answer counts.
                    Err(Broken::Upstream) => break (&mut answer).await,
                    Err(Broken::Client) => break Err(Failure::CLIENT_GONE),
                    Err(Broken::BadChunk) => break Err(Failure::request(400, "bad chunk")),
                },
                answered = &mut answer => break answered,
                failure = &mut clock => break Err(failure),
            }
        }
    };
    match answered {
        Ok(Answered::Final {
            status,
            is_closed,
            keeps_upstream,
            retry_after,
        }) => End::Done {
            status,
            retry_after,
            bytes: progress.bytes.get(),
            keep_client: is_uploaded && !is_closed,
            keep_upstream: keeps_upstream && is_uploaded && rest.is_empty(),
        },
        Ok(Answered::Switched) => {
            tunnel(
                (&mut from_client, &mut to_client),
                (&mut from_dyno, &mut to_dyno),
                buffer,
                &mut rest,
                &progress,
            )
            .await;
            End::Done {
                status: 101,
                bytes: progress.bytes.get(),
                keep_client: false,
                keep_upstream: false,
                retry_after: None,
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
    }
}

/// True if sending it twice is as good as once, and no body byte was spent.
/// Source: RFC 9110 section 9.2.2, RFC 9112 section 9.3.1.
fn may_repeat(request: &Request) -> bool {
    let is_idempotent = matches!(
        request.method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
    );
    is_idempotent && request.framing == Framing::None && request.upgrade.is_none()
}

/// Ends with the failure that the clock says.
async fn clock(progress: &Progress) -> Failure {
    loop {
        let phase = progress.phase.get();
        let limit = if phase == Phase::Waiting {
            progress.timings.request_timeout
        } else {
            progress.timings.idle_timeout
        };
        let deadline = progress.last.get() + limit;
        if Instant::now() >= deadline {
            return match phase {
                Phase::Waiting => Failure::TIMEOUT,
                Phase::Uploading => Failure::CLIENT_IDLE,
                Phase::Answering | Phase::Tunnel => Failure::IDLE,
            };
        }
        sleep_until(deadline).await;
    }
}

/// Sends the head (`out`) and the body to the dyno. Small bodies that are here already go in one write.
async fn upload(
    request: &Request,
    mut out: Vec<u8>,
    buffer: &mut BytesMut,
    client: &mut (impl AsyncRead + Unpin),
    dyno: &mut (impl AsyncWrite + Unpin),
    progress: &Progress,
) -> Result<(), Broken> {
    match request.framing {
        Framing::None | Framing::UntilClose => write(dyno, &out).await,
        Framing::Length(mut left) => loop {
            let count = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            out.extend_from_slice(&buffer[..count]);
            buffer.advance(count);
            left -= count as u64;
            if !out.is_empty() {
                write(dyno, &out).await?;
                progress.touch();
                out.clear();
            }
            if left == 0 {
                return Ok(());
            }
            read_client(client, buffer).await?;
        },
        Framing::Chunked => {
            let mut decoder = Decoder::new();
            loop {
                match decoder.step(buffer).map_err(|_| Broken::BadChunk)? {
                    Step::Data(count) => {
                        chunk(&mut out, &buffer[..count]);
                        buffer.advance(count);
                        decoder.taken(count);
                    }
                    Step::End(trailers) => {
                        last_chunk(&mut out, &trailers);
                        return write(dyno, &out).await;
                    }
                    Step::More => {
                        if !out.is_empty() {
                            write(dyno, &out).await?;
                            progress.touch();
                            out.clear();
                        }
                        read_client(client, buffer).await?;
                    }
                }
            }
        }
    }
}

async fn write(dyno: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Broken> {
    dyno.write_all(bytes).await.map_err(|_| Broken::Upstream)
}

async fn read_client(
    client: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<(), Broken> {
    buffer.reserve(READ);
    match client.read_buf(buffer).await {
        Ok(1..) => Ok(()),
        _ => Err(Broken::Client),
    }
}

/// One chunk as we write it.
fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
fn last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

enum Answered {
    Final {
        status: u16,
        /// Our connection to the client ends with it.
        is_closed: bool,
        keeps_upstream: bool,
        retry_after: Option<Duration>,
    },
    Switched,
}

/// The way down.
struct Answer<'a> {
    request: &'a Request,
    wants_more: bool,
    is_strict: bool,
    progress: &'a Progress,
    fresh: Option<Fresh>,
    /// Bytes of the dyno that were read and belong to nothing yet.
    rest: &'a mut BytesMut,
}

impl Answer<'_> {
    async fn run(
        mut self,
        dyno: &mut (impl AsyncRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Answered, Failure> {
        if self.request.expect == Expect::Continue {
            // We are connected, so somebody will take the body.
            send(client, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        for _ in 0..=INTERIM_MAX {
            let response = self.head(dyno).await?;
            match response.status {
                101 if self.request.upgrade.is_some() => {
                    self.progress.is_started.set(true);
                    self.progress.phase.set(Phase::Tunnel);
                    send(client, &headers::interim(&response, true)).await?;
                    return Ok(Answered::Switched);
                }
                101 => return Err(Failure::POOR),
                // The client has its 100 from us, or never asked.
                100 => {}
                102..=199 => {
                    if !self.request.is_old {
                        send(client, &headers::interim(&response, false)).await?;
                    }
                }
                _ => return self.relay(response, dyno, client).await,
            }
        }
        Err(Failure::POOR)
    }

    /// The next head of the dyno.
    async fn head(&mut self, dyno: &mut (impl AsyncRead + Unpin)) -> Result<Response, Failure> {
        let is_head = self.request.method == "HEAD";
        let mut looked = 0;
        loop {
            let end = head::end_of_head(self.rest, looked).map_err(|_| Failure::POOR)?;
            if let Some(end) = end {
                let bytes = self.rest.split_to(end).freeze();
                return head::response(&bytes, is_head)
                    .map_err(|refused| Failure::restriction(refused.cause));
            }
            looked = self.rest.len();
            let is_http = b"HTTP/1.".starts_with(&self.rest[..looked.min(7)]);
            if looked > head::RESPONSE_HEAD_MAX || !is_http {
                return Err(Failure::POOR);
            }
            self.rest.reserve(READ);
            match dyno.read_buf(self.rest).await {
                Ok(1..) => {
                    self.fresh = None;
                    self.progress.has_answer.set(true);
                    self.progress.touch();
                    if self.progress.phase.get() == Phase::Waiting {
                        self.progress.phase.set(Phase::Answering);
                    }
                }
                _ => return Err(Failure::CLOSED),
            }
        }
    }

    async fn relay(
        &mut self,
        response: Response,
        dyno: &mut (impl AsyncRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Answered, Failure> {
        let is_old = self.request.is_old;
        let framing = match response.framing {
            Framing::Chunked if is_old => Framing::UntilClose,
            other => other,
        };
        let is_closed = !self.wants_more
            || framing == Framing::UntilClose
            || self.progress.phase.get() == Phase::Uploading;
        let mut out = headers::to_client(&response, framing, !is_closed);
        if self.is_strict {
            headers::add_missing(&mut out, &response, https::HSTS);
        }
        self.progress.is_started.set(true);
        self.progress.phase.set(Phase::Answering);
        match response.framing {
            Framing::None => send(client, &out).await?,
            Framing::Length(left) => self.by_length(left, out, dyno, client).await?,
            Framing::UntilClose => self.by_close(out, dyno, client).await?,
            Framing::Chunked => self.by_chunks(&mut out, is_old, dyno, client).await?,
        }
        let dyno_keeps = response.connection.lasts(response.is_old);
        Ok(Answered::Final {
            status: response.status,
            is_closed,
            retry_after: headers::retry_after(&response),
            keeps_upstream: dyno_keeps && response.framing != Framing::UntilClose,
        })
    }

    async fn by_length(
        &mut self,
        mut left: u64,
        mut out: Vec<u8>,
        dyno: &mut (impl AsyncRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        loop {
            let count = self
                .rest
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            out.extend_from_slice(&self.rest[..count]);
            self.rest.advance(count);
            left -= count as u64;
            if !out.is_empty() {
                send(client, &out).await?;
                self.progress.add(count);
                out.clear();
            }
            if left == 0 {
                return Ok(());
            }
            if self.read(dyno).await? == 0 {
                return Err(Failure::INTERRUPTED);
            }
        }
    }

    async fn by_close(
        &mut self,
        mut out: Vec<u8>,
        dyno: &mut (impl AsyncRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        loop {
            let count = self.rest.len();
            out.extend_from_slice(&self.rest.split());
            send(client, &out).await?;
            self.progress.add(count);
            out.clear();
            if self.read(dyno).await? == 0 {
                return Ok(());
            }
        }
    }

    /// `is_old`: the client knows no chunks, so it gets the bare data.
    async fn by_chunks(
        &mut self,
        out: &mut Vec<u8>,
        is_old: bool,
        dyno: &mut (impl AsyncRead + Unpin),
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        let mut decoder = Decoder::new();
        loop {
            match decoder.step(self.rest).map_err(|_| Failure::INTERRUPTED)? {
                Step::Data(count) => {
                    if is_old {
                        out.extend_from_slice(&self.rest[..count]);
                    } else {
                        chunk(out, &self.rest[..count]);
                    }
                    self.rest.advance(count);
                    decoder.taken(count);
                    self.progress.add(count);
                }
                Step::End(trailers) => {
                    if !is_old {
                        last_chunk(out, &trailers);
                    }
                    return send(client, out).await;
                }
                Step::More => {
                    if !out.is_empty() {
                        send(client, out).await?;
                        out.clear();
                    }
                    if self.read(dyno).await? == 0 {
                        return Err(Failure::INTERRUPTED);
                    }
                }
            }
        }
    }

    async fn read(&mut self, dyno: &mut (impl AsyncRead + Unpin)) -> Result<usize, Failure> {
        self.rest.reserve(READ);
        let read = dyno.read_buf(self.rest).await;
        let count = read.map_err(|_| Failure::INTERRUPTED)?;
        self.progress.touch();
        Ok(count)
    }
}

async fn send(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Failure> {
    client
        .write_all(bytes)
        .await
        .map_err(|_| Failure::CLIENT_GONE)
}

/// Bytes both ways, until either side is done or both are silent.
async fn tunnel(
    client: (
        &mut (impl AsyncRead + Unpin),
        &mut (impl AsyncWrite + Unpin),
    ),
    dyno: (
        &mut (impl AsyncRead + Unpin),
        &mut (impl AsyncWrite + Unpin),
    ),
    from_client: &mut BytesMut,
    from_dyno: &mut BytesMut,
    progress: &Progress,
) {
    progress.touch();
    let up = pipe(client.0, dyno.1, from_client, |_| progress.touch());
    let down = pipe(dyno.0, client.1, from_dyno, |count| progress.add(count));
    tokio::select! {
        _ = up => {}
        _ = down => {}
        _ = clock(progress) => {}
    }
}

async fn pipe(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    buffer: &mut BytesMut,
    moved: impl Fn(usize),
) -> io::Result<()> {
    loop {
        if !buffer.is_empty() {
            to.write_all(buffer).await?;
            moved(buffer.len());
            buffer.clear();
        }
        buffer.reserve(READ);
        if from.read_buf(buffer).await? == 0 {
            return Ok(());
        }
    }
}
