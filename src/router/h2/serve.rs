//! A client's connection and its streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::guard::Guarded;
use super::inward::Inward;
use super::message;
use super::outward::{Kind, Outward};
use super::{CONNECTION_WINDOW, HEAD_MAX, SEND_MAX, STREAM_WINDOW, STREAMS_MAX};
use crate::router::chunks::Decoder;
use crate::router::listener::Shared;
use crate::router::proxy;
use crate::router::wire::{Origin, Source};
use crate::router::worker::Ear;

/// From the end of the handshake to the client's preface.
const PREFACE: Duration = Duration::from_secs(10);

/// A connection without a stream is closed after so long, as in HTTP/1.1.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// A client that was told to go has so long, and streams whose connection has gone, too.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Largest head of an answer that we take apart.
const ANSWER_HEAD_MAX: usize = crate::router::head::RESPONSE_HEAD_MAX;

/// What a connection waits for.
enum Event {
    Stream(Box<(Request<RecvStream>, SendResponse<Bytes>)>),
    /// The client is gone, or broke the protocol: it was told already.
    End,
    /// It sends what must end the connection.
    Alarm(Reason),
}

/// Serves a connection to its end.
pub(in crate::router) async fn serve<S>(shared: Arc<Shared>, stream: S, origin: Origin)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let alarm = Rc::new(Cell::new(None));
    let guarded = Guarded::new(stream, Rc::clone(&alarm));
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_MAX)
        .max_send_buffer_size(SEND_MAX)
        .handshake(guarded);
    let Ok(Ok(connection)) = timeout(PREFACE, handshake).await else {
        return;
    };
    let origin = Rc::new(Origin {
        protocol: "http2.0",
        ..origin
    });
    let mut streams = JoinSet::new();
    streams_of(connection, &alarm, &shared, &origin, &mut streams).await;
    // They notice that their connection is gone, and write their lines.
    let all = async { while streams.join_next().await.is_some() {} };
    timeout(LAST_WORDS, all).await.ok();
}

/// Takes streams until the connection ends.
async fn streams_of<S>(
    mut connection: Connection<S, Bytes>,
    alarm: &Cell<Option<Reason>>,
    shared: &Arc<Shared>,
    origin: &Rc<Origin>,
    streams: &mut JoinSet<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut idle_until = Instant::now() + KEEP_ALIVE;
    let mut is_leaving = false;
    let ear = Ear::new();
    loop {
        let is_idle = streams.is_empty();
        tokio::select! {
            event = poll_fn(|cx| next(&mut connection, alarm, cx)) => match event {
                Event::Stream(stream) => {
                    let (request, respond) = *stream;
                    let (shared, origin) = (Arc::clone(shared), Rc::clone(origin));
                    streams.spawn_local(one(shared, request, respond, origin));
                }
                Event::End => return,
                Event::Alarm(reason) => {
                    tracing::debug!(peer = %origin.peer, %reason, "HTTP/2 connection ends");
                    connection.abrupt_shutdown(reason);
                    let closed = poll_fn(|cx| connection.poll_closed(cx));
                    timeout(LAST_WORDS, closed).await.ok();
                    return;
                }
            },
            Some(_) = streams.join_next(), if !is_idle => {
                idle_until = Instant::now() + KEEP_ALIVE;
            }
            () = ear.called(is_idle), if !is_leaving => {
                connection.graceful_shutdown();
                is_leaving = true;
                idle_until = Instant::now() + LAST_WORDS;
            }
            () = sleep_until(idle_until), if is_idle => {
                if is_leaving {
                    return;
                }
                connection.graceful_shutdown();
                is_leaving = true;
                idle_until = Instant::now() + LAST_WORDS;
            }
        }
    }
}

fn next<S>(
    connection: &mut Connection<S, Bytes>,
    alarm: &Cell<Option<Reason>>,
    cx: &mut Context<'_>,
) -> Poll<Event>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = connection.poll_accept(cx);
    // Set while frames were read, so nobody needs to be woken.
    if let Some(reason) = alarm.get() {
        return Poll::Ready(Event::Alarm(reason));
    }
    match accepted {
        Poll::Ready(Some(Ok(stream))) => Poll::Ready(Event::Stream(Box::new(stream))),
        Poll::Ready(Some(Err(error))) => {
            tracing::debug!(%error, "HTTP/2 connection ended");
            Poll::Ready(Event::End)
        }
        Poll::Ready(None) => Poll::Ready(Event::End),
        Poll::Pending => Poll::Pending,
    }
}

/// One request, to its line in the log.
async fn one(
    shared: Arc<Shared>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    origin: Rc<Origin>,
) {
    let (parts, body) = request.into_parts();
    let Some((head, is_chunked)) = head(&parts, body.is_end_stream()) else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    };
    let out = Rc::new(RefCell::new(Out {
        respond,
        head: BytesMut::new(),
        body: None,
        is_head_only: parts.method == "HEAD",
        is_reset: false,
    }));
    let mut stream = Stream {
        reader: Reader {
            body: Inward::new(body, is_chunked),
            out: Rc::clone(&out),
        },
        writer: Writer(out),
    };
    let is_cut = proxy::stream(&shared, &mut stream, head.freeze(), &origin).await;
    if is_cut {
        stream.cut();
        return;
    }
    let drained = poll_fn(|cx| stream.writer.0.borrow_mut().poll_drain(cx));
    let drained = timeout(shared.timings.idle_timeout, drained).await;
    let mut out = stream.writer.0.borrow_mut();
    if matches!(drained, Ok(Ok(()))) {
        out.close();
    } else {
        out.reset();
    }
}

/// The request's head in the words of HTTP/1.1, and whether its body comes in chunks; `None`: it
/// is malformed. What `block` or h2 has checked already is not checked again.
fn head(parts: &Parts, is_without_body: bool) -> Option<(BytesMut, bool)> {
    let authority = parts.uri.authority().map(Authority::as_str);
    let mut hosts = parts.headers.get_all("host").iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().ok()?),
        (Some(_), Some(_)) => return None,
    };
    // Both must say the same. Source: RFC 9113 section 8.3.1.
    if let (Some(host), Some(authority)) = (host, authority)
        && !host.eq_ignore_ascii_case(authority)
    {
        return None;
    }
    let host = host.or(authority)?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let has_length = parts.headers.contains_key("content-length");
    let is_chunked = !has_length && !is_without_body;
    let mut out = BytesMut::with_capacity(1024);
    out.put_slice(parts.method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(path.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    message::line(&mut out, b"host", host.as_bytes());
    message::lines(&mut out, &parts.headers, |name| {
        matches!(name, "host" | "te")
    });
    if is_chunked {
        message::line(&mut out, b"transfer-encoding", b"chunked");
    }
    out.put_slice(b"\r\n");
    Some((out, is_chunked))
}

/// A stream for the request loop.
struct Stream {
    reader: Reader,
    writer: Writer,
}

/// Both halves look at it: one writes, one watches for a reset.
struct Out {
    respond: SendResponse<Bytes>,
    /// The answer's head, as far as it is here.
    head: BytesMut,
    body: Option<Outward>,
    is_head_only: bool,
    is_reset: bool,
}

impl Out {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(body) = &mut self.body {
            return body.poll_write(cx, bytes);
        }
        self.head.put_slice(bytes);
        while self.body.is_none() && self.answer()? {}
        if let Some(body) = &mut self.body {
            body.hold(bytes);
            return body.poll_write(cx, bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Sends the next head if it is all here.
    fn answer(&mut self) -> io::Result<bool> {
        let mut space = [httparse::EMPTY_HEADER; 64];
        let mut more = Vec::new();
        let mut parsed = httparse::Response::new(&mut space);
        let mut done = parsed.parse(&self.head);
        if done == Err(httparse::Error::TooManyHeaders) {
            more.resize(
                crate::router::head::HEADERS_MAX + 64,
                httparse::EMPTY_HEADER,
            );
            parsed = httparse::Response::new(&mut more);
            done = parsed.parse(&self.head);
        }
        let end = match done {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if self.head.len() <= ANSWER_HEAD_MAX => {
                return Ok(false);
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let lines = parsed.headers.iter();
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = message::fields(lines.map(|field| (field.name, field.value)));
        let is_chunked = parsed
            .headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case("transfer-encoding"));
        self.head.advance(end);
        if status.is_informational() {
            self.respond
                .send_informational(response)
                .map_err(super::broken)?;
            return Ok(true);
        }
        let length = response.headers().get("content-length");
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let kind = match (length, is_chunked) {
            _ if self.is_head_only || matches!(status.as_u16(), 204 | 304) => Kind::Ended,
            (_, true) => Kind::Chunked(Decoder::new()),
            (Some(0), _) => Kind::Ended,
            (Some(length), _) => Kind::Length(length),
            (None, false) => Kind::UntilClose,
        };
        let is_end = matches!(kind, Kind::Ended);
        let send = self
            .respond
            .send_response(response, is_end)
            .map_err(super::broken)?;
        let rest = std::mem::take(&mut self.head);
        self.body = Some(Outward::new(send, kind, rest));
        Ok(false)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.body {
            Some(body) => body.poll_drain(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn close(&mut self) {
        match &mut self.body {
            Some(body) => body.close(),
            // No answer at all: the client is gone, or nobody could say anything to it.
            None => self.reset(),
        }
    }

    fn reset(&mut self) {
        if std::mem::replace(&mut self.is_reset, true) {
            return;
        }
        match &mut self.body {
            Some(body) => body.reset(),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reset = match &mut self.body {
            Some(body) => body.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|reset| match reset {
            Ok(reason) => super::broken(reason.into()),
            Err(error) => super::broken(error),
        })
    }
}

struct Reader {
    body: Inward,
    out: Rc<RefCell<Out>>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.body.poll_read(cx, buf) {
            Poll::Ready(Ok(true)) => Poll::Ready(Ok(())),
            // Behind its body a stream says nothing more, but may still be reset.
            Poll::Ready(Ok(false)) => self.out.borrow_mut().poll_reset(cx).map(Err),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

struct Writer(Rc<RefCell<Out>>);

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

super::pair!(Stream);

/// The end of a body says nothing; a reset does, and needs no question.
impl Source for &mut Reader {
    fn has_ended(&self) -> bool {
        true
    }

    fn tells_of_leaving(&self) -> bool {
        true
    }

    async fn torn(&mut self) {
        poll_fn(|cx| self.out.borrow_mut().poll_reset(cx)).await;
    }
}

impl Stream {
    fn cut(&mut self) {
        self.writer.0.borrow_mut().reset();
    }
}
