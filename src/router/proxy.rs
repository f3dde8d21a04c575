//! One client connection: requests one after another, each relayed to a dyno.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use smol_str::SmolStr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use super::access_log::Record;
use super::affinity::Mark;
use super::deadline::Deadline;
use super::exchange::{self, End, Exchange, Manners, Side};
use super::failure::{self, Failure};
use super::h2::ToDyno;
use super::hail::Ahead;
use super::head::{self, Expect, Framing, Head, Refused, Request};
use super::headers::{self, Context};
use super::https;
use super::listener::Shared;
use super::relay;
use super::route::{self, Client, Connected, NotConnected};
use super::table::AppRoute;
use super::tunnel;
use super::upstream::InUse;
use super::wire::{Origin, Wire};
use super::worker::{self, Ear};
use crate::model::Feature;
use crate::traffic::{DynoTraffic, Sample};

/// A connection without a request is closed after so long.
/// Source: Dev Center, "HTTP Routing", keepalives.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// From its first byte to its last, a head may take so long (408): a slow sender never reaches a
/// dyno.
const HEAD: Duration = Duration::from_secs(10);

/// At a stop, a client that was let in and has not said anything yet gets so long.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// A client that does not read our error gets so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One read. An idle connection holds no buffer.
const READ: usize = 8 * 1024;

/// After an answer that ends the connection, what the client still sends is read for so long, so
/// that the kernel does not reset the connection under the answer. Source: RFC 9112 section 9.6.
const LINGER: Duration = Duration::from_secs(1);

/// What a dyno may be asked for, told where it is not asked. Source: RFC 9110 section 15.5.6.
const ALLOW: &str = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

const TOO_LONG: Refused = Refused {
    status: 431,
    cause: "head too long",
};

/// Serves a client to the end of its connection.
pub(super) async fn serve(shared: Arc<Shared>, mut client: impl Wire, origin: Origin) {
    let mut buffer = BytesMut::new();
    let mut deadline = Deadline::new(Instant::now() + KEEP_ALIVE);
    let ear = Ear::new();
    let mut is_fresh = true;
    loop {
        let request = read_request(&mut client, &mut buffer, &mut deadline, &ear, is_fresh);
        is_fresh = false;
        let request = match request.await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err((refused, head)) => {
                let is_head = is_head(head.as_ref().map_or(&buffer[..], |head| head));
                let head = head.as_ref();
                refuse(&shared, &mut client, refused, head, is_head, &origin).await;
                return linger(client).await;
            }
        };
        // Boxed: a connection that waits for its next request carries no room for one.
        let handled = Box::pin(handle(
            &shared,
            &mut client,
            &mut buffer,
            &mut deadline,
            &request,
            &origin,
        ));
        match handled.await {
            Next::Request => {}
            Next::Close => return linger(client).await,
            Next::Cut => return client.reset(),
        }
    }
}

/// Serves one request whose head is all here and which shares its connection with others; true: its
/// answer was cut.
pub(super) async fn stream(
    shared: &Shared,
    client: &mut impl Wire,
    head: Bytes,
    origin: &Origin,
) -> bool {
    let mut buffer = BytesMut::new();
    match head::request(&head) {
        Ok(request) => {
            let mut deadline = Deadline::new(Instant::now() + KEEP_ALIVE);
            let handled = handle(shared, client, &mut buffer, &mut deadline, &request, origin);
            handled.await == Next::Cut
        }
        Err(refused) => {
            let is_head = is_head(&head);
            refuse(shared, client, refused, Some(&head), is_head, origin).await;
            false
        }
    }
}

/// What becomes of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It serves the next one.
    Request,
    /// It ends behind the answer.
    Close,
    /// It ends in the middle of the answer, and must look like it.
    Cut,
}

impl Next {
    fn request_if(may_go_on: bool) -> Self {
        if may_go_on {
            Self::Request
        } else {
            Self::Close
        }
    }
}

/// The next request's head; `None` when the client is done, or we are.
async fn read_request(
    client: &mut impl Wire,
    buffer: &mut BytesMut,
    deadline: &mut Deadline,
    ear: &Ear,
    is_fresh: bool,
) -> Result<Option<Request>, (Refused, Option<Bytes>)> {
    let idle_until = Instant::now() + KEEP_ALIVE;
    while buffer.is_empty() {
        // Nothing is held while nothing comes.
        worker::give_back(std::mem::take(buffer));
        tokio::select! {
            biased;
            ready = client.readable() => if ready.is_err() { return Ok(None) },
            () = deadline.wait(idle_until) => return Ok(None),
            () = ear.called(true) => {
                let is_patient = is_fresh && worker::is_stopping();
                if !is_patient || !is_heard(client).await {
                    return Ok(None);
                }
            }
        }
        *buffer = worker::lend();
        // A new connection counts as readable before anything has come.
        match client.read_buf(buffer).now_or_never() {
            Some(Ok(1..)) | None => {}
            Some(_) => return Ok(None),
        }
    }
    let mut due = None;
    let (mut looked, mut skipped) = (0, 0);
    let alone = |refused| (refused, None);
    loop {
        // Empty lines before a request are forgiven. Source: RFC 9112 section 2.2.
        while looked == 0 && buffer.starts_with(b"\r\n") {
            skipped += buffer.split_to(2).len();
        }
        if skipped > head::REQUEST_HEAD_MAX {
            return Err(alone(TOO_LONG));
        }
        let end = head::end_of_head(buffer, looked);
        if let Ok(Some(end)) = end
            && end <= head::REQUEST_HEAD_MAX
        {
            let bytes = buffer.split_to(end).freeze();
            let request = head::request(&bytes);
            return request.map(Some).map_err(|refused| (refused, Some(bytes)));
        }
        if buffer.len() > 1 {
            head::request_line(buffer).map_err(alone)?;
        }
        end.map_err(alone)?;
        if buffer.len() > head::REQUEST_HEAD_MAX {
            return Err(alone(TOO_LONG));
        }
        // A lone CR may be half of the empty line.
        looked = if buffer.len() > 1 { buffer.len() } else { 0 };
        buffer.reserve(READ);
        let read = tokio::select! {
            biased;
            read = client.read_buf(buffer) => Some(read),
            // The clock is read only if the rest does not come at once.
            () = async { deadline.wait(*due.get_or_insert_with(|| Instant::now() + HEAD)).await } => None,
        };
        match read {
            Some(Ok(1..)) => {}
            Some(_) => return Ok(None),
            None if buffer.is_empty() => return Ok(None),
            None => {
                return Err(alone(Refused {
                    status: 408,
                    cause: "slow head",
                }));
            }
        }
    }
}

/// A client that was let in just before the stop is on its way with its first request, and would not
/// know whether it was served.
async fn is_heard(client: &mut impl Wire) -> bool {
    let ready = tokio::time::timeout(FIRST_WORDS, client.readable()).await;
    matches!(ready, Ok(Ok(())))
}

/// True if the first line, as far as it can be read, asks for no body.
fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HEAD ")
}

/// Says why a head was refused. If it still tells which app it was for, that app's log has it.
async fn refuse(
    shared: &Shared,
    client: &mut impl Wire,
    refused: Refused,
    head: Option<&Bytes>,
    is_head: bool,
    origin: &Origin,
) {
    let mut is_strict = false;
    tracing::debug!(
        status = refused.status,
        cause = refused.cause,
        "request refused"
    );
    if let Some(glimpse) = head.and_then(head::glimpse)
        && let Some(app) = shared.table.load().find(&glimpse.host).cloned()
    {
        let origin = origin.told(&glimpse.head);
        let fwd = origin.forwarded_for(&glimpse.head);
        let mut turn = Turn::new(shared, &app, &origin, &glimpse.head, fwd);
        turn.record.method = &glimpse.method;
        turn.record.path = &glimpse.target;
        turn.record.host = &glimpse.host;
        turn.record.failure = Some(Failure::request(refused.status, "bad header"));
        turn.end_at_once(refused.status);
        is_strict = turn.is_strict;
    }
    let page = failure::page(refused.status, None, None);
    let answer = Answer {
        is_strict,
        ..Answer::page(refused.status, &page, is_head, false)
    };
    answer.send(client).await;
}

/// An answer of our own.
struct Answer<'a> {
    status: u16,
    /// Whole lines.
    head: &'a str,
    body: &'a str,
    is_head: bool,
    is_keep_alive: bool,
    /// Of an app that wants TLS always, over TLS.
    is_strict: bool,
    /// So many of its first bytes the client has already.
    ahead: usize,
}

impl<'a> Answer<'a> {
    fn page(status: u16, page: &'a str, is_head: bool, is_keep_alive: bool) -> Self {
        Self {
            status,
            head: "Content-Type: text/html; charset=utf-8\r\n",
            body: page,
            is_head,
            is_keep_alive,
            is_strict: false,
            ahead: 0,
        }
    }

    async fn send(self, client: &mut impl Wire) {
        let Self { status, head, .. } = self;
        let connection = if self.is_keep_alive {
            "keep-alive"
        } else {
            "close"
        };
        let reason = failure::reason(status);
        let strict = if self.is_strict { https::HSTS } else { "" };
        // Source: RFC 9110 section 6.6.1. A dyno's answer has the dyno's date, if any.
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\n{head}{strict}Content-Length: {}\r\nCache-Control: no-cache, no-store\r\nServer: Cowboy\r\nDate: {date}\r\nConnection: {connection}\r\n\r\n",
            self.body.len()
        );
        if !self.is_head {
            answer.push_str(self.body);
        }
        let rest = &answer.as_bytes()[self.ahead..];
        let sent = tokio::time::timeout(LAST_WORDS, client.write_all(rest)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!("client gone before its answer");
        }
    }
}

/// Lets the client read our last answer before the connection goes.
async fn linger(mut client: impl Wire) {
    let rest = async {
        if client.shutdown().await.is_ok() {
            // Not inside of the future: every connection would carry its room.
            let mut sink = vec![0; 4096];
            while matches!(client.read(&mut sink).await, Ok(1..)) {}
        }
    };
    // A client that goes on sending is cut off.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// One request, to its line in the log.
async fn handle(
    shared: &Shared,
    client: &mut impl Wire,
    buffer: &mut BytesMut,
    deadline: &mut Deadline,
    request: &Request,
    origin: &Origin,
) -> Next {
    let arrived = SystemTime::now();
    let started = Instant::now();
    let mut since = started;
    let origin = &*origin.told(&request.head);
    let wants_more = request.connection.lasts(request.is_old);
    // An unread body would be taken for the next request.
    let may_go_on = wants_more && request.framing == Framing::None && !worker::is_stopping();
    let is_head = request.method == "HEAD";
    if let Some(proof) = https::proof(shared, request) {
        let answer = Answer {
            head: "Content-Type: application/octet-stream\r\n",
            ..Answer::page(200, &proof, is_head, may_go_on)
        };
        answer.send(client).await;
        return Next::request_if(may_go_on);
    }
    let app = shared.table.load().find(&request.host).cloned();
    let Some(app) = app else {
        let page = failure::page(404, None, None);
        let answer = Answer::page(404, &page, is_head, may_go_on);
        answer.send(client).await;
        return Next::request_if(may_go_on);
    };
    let fwd = origin.forwarded_for(&request.head);
    let mut turn = Turn::new(shared, &app, origin, &request.head, fwd);
    turn.record.method = &request.method;
    turn.record.path = &request.target;
    turn.record.host = &request.host;
    if https::is_misdirected(request, origin) {
        return turn.fail(client, Failure::MISDIRECTED, may_go_on).await;
    }
    if let Some((status, location)) = https::redirect(shared, &app, request, origin) {
        turn.end_at_once(status);
        let page = failure::page(status, None, None);
        let plain = Answer::page(status, &page, is_head, may_go_on);
        let head = &format!("{}Location: {location}\r\n", plain.head);
        Answer { head, ..plain }.send(client).await;
        return Next::request_if(may_go_on);
    }
    if request.expect == Expect::Other {
        let failure = Failure::request(417, "unsupported expect header value");
        return turn.fail(client, failure, may_go_on).await;
    }
    if headers::is_last_hop(request) {
        // Nothing to say of our own: no method of ours needs asking for, and TRACE shows secrets.
        let status = if request.method == "OPTIONS" {
            200
        } else {
            405
        };
        turn.end_at_once(status);
        let answer = Answer {
            head: ALLOW,
            is_strict: turn.is_strict,
            ..Answer::page(status, "", false, may_go_on)
        };
        answer.send(client).await;
        return Next::request_if(may_go_on);
    }
    let is_continue_passed =
        request.expect == Expect::Continue && app.features.contains(&Feature::HttpEndToEndContinue);
    let tells_port = app.features.contains(&Feature::HttpPeerPort);
    let is_sticky = app.features.contains(&Feature::HttpSessionAffinity);
    let mark = is_sticky.then(|| Mark::find(&request.head)).flatten();
    // What may not be sent twice never meets a connection that is being closed.
    let is_pooled = !app.features.contains(&Feature::HttpDisableKeepaliveToDyno);
    // A connection of HTTP/2 to a dyno serves one request.
    let speaks_http2 = app.features.contains(&Feature::Http2ToDyno);
    let mut only_fresh = speaks_http2 || !is_pooled || !exchange::may_repeat(request);
    loop {
        let line = Client {
            stream: &mut *client,
            buffer: &mut *buffer,
            request,
            ahead: &turn.ahead,
        };
        let connected = match route::connect(
            shared.timings,
            &shared.news,
            &app.queue,
            line,
            since,
            only_fresh,
            mark,
        )
        .await
        {
            Ok(connected) => connected,
            Err(NotConnected {
                failure,
                dyno,
                took,
                waited,
            }) => {
                (turn.record.dyno, turn.record.connect) = (dyno, took);
                turn.record.queue = waited;
                return turn.fail(client, failure, may_go_on).await;
            }
        };
        // Counted in until the end of the exchange.
        let Connected {
            seat,
            upstream,
            took,
        } = connected;
        let dyno = &seat.dyno;
        turn.record.dyno = Some(Arc::clone(&dyno.name));
        turn.record.connect = Some(took);
        turn.record.queue = Some(seat.waited);
        turn.traffic = Some(Arc::clone(&dyno.traffic));
        let served = Instant::now();
        let context = Context {
            request_id: &turn.record.request_id,
            forwarded_for: &turn.record.fwd,
            port: origin.port,
            peer_port: tells_port.then_some(origin.peer_port),
            scheme: origin.scheme,
            arrived,
            connect: took,
            route: served - started,
            queue: seat.waited,
            crowd: seat.crowd,
            is_continue_passed,
            is_last: !is_pooled && !speaks_http2,
            version: origin.version(request.is_old),
        };
        let mut head = worker::lend();
        headers::to_dyno(&mut head, request, context);
        let in_use = InUse::new(dyno, !upstream.is_reused);
        let is_new = is_sticky && mark != Some(dyno.mark);
        let cookie = is_new.then(|| dyno.mark.line(origin.scheme));
        let manners = Manners {
            wants_more: wants_more && !worker::is_stopping(),
            is_strict: turn.is_strict,
            is_continue_passed,
            version: speaks_http2.then_some("2.0"),
            cookie: cookie.as_deref().unwrap_or_default(),
        };
        // Compiled once for each kind of dyno.
        macro_rules! exchange_over {
            ($upstream:expr) => {
                exchange::run(Exchange {
                    client: &mut *client,
                    buffer: &mut *buffer,
                    deadline: &mut *deadline,
                    upstream: $upstream,
                    request,
                    ahead: &turn.ahead,
                    head,
                    manners,
                    is_reused: upstream.is_reused,
                    in_use,
                    started: served,
                    timings: shared.timings,
                })
            };
        }
        let mut stream = upstream.stream;
        let (end, stream) = if speaks_http2 {
            let shaken = ToDyno::connect(stream, shared.timings.connect_timeout);
            let shaken = Box::pin(shaken).await;
            let end = match shaken {
                // Boxed: others must not carry the room it needs.
                Ok(mut stream) => Box::pin(exchange_over!(&mut stream)).await,
                Err(error) => {
                    tracing::debug!(dyno = &*dyno.name, %error, "no HTTP/2");
                    End::Failed {
                        failure: Failure::CLOSED,
                        bytes: 0,
                        is_started: false,
                    }
                }
            };
            (end, None)
        } else {
            (exchange_over!(&mut stream).await, Some(stream))
        };
        let done = Instant::now();
        turn.record.service = Some(done - served);
        match end {
            End::Stale => {
                (only_fresh, since) = (true, done);
                turn.record.service = None;
            }
            End::Done {
                status,
                bytes,
                keep_client,
                keep_upstream,
                retry_after,
                tail,
            } => {
                if let Some(retry_after) = retry_after {
                    dyno.strain(retry_after);
                }
                if keep_upstream
                    && is_pooled
                    && let Some(stream) = stream
                {
                    dyno.pool.give_back(stream, done);
                }
                // The dyno is done, whatever the client still has to read.
                drop(seat);
                turn.record.bytes = Some(bytes);
                if !tail.is_empty() {
                    let drain = relay::drain(client, tail, shared.timings.idle_timeout);
                    let drained = Box::pin(drain).await;
                    turn.record.service = Some(served.elapsed());
                    if let Err(failure) = drained {
                        turn.record.failure = Some(failure);
                        turn.end(failure.status);
                        return Next::Cut;
                    }
                }
                turn.end(status);
                return Next::request_if(keep_client);
            }
            End::Piped { bytes, end } => {
                turn.record.bytes = Some(bytes);
                turn.record.closed_by = Some(match end {
                    tunnel::End::Parted => "router",
                    tunnel::End::Closed(Side::Client) => "client",
                    tunnel::End::Closed(Side::Dyno) => "dyno",
                    tunnel::End::Idle => {
                        turn.record.failure = Some(Failure::IDLE);
                        "router"
                    }
                });
                turn.end(101);
                return Next::Close;
            }
            End::Failed {
                failure,
                bytes,
                is_started,
            } => {
                turn.record.bytes = Some(bytes);
                if matches!(failure, Failure::CLOSED | Failure::INTERRUPTED) {
                    dyno.doubt();
                }
                if !is_started {
                    return turn.fail(client, failure, false).await;
                }
                // The head is out: all we can do is to cut.
                turn.record.failure = Some(failure);
                turn.end(failure.status);
                return Next::Cut;
            }
        }
    }
}

/// One request of one app, and what its line will say. Dropped before it has ended: the router
/// cuts its connections (H24).
struct Turn<'a> {
    shared: &'a Shared,
    app: &'a AppRoute,
    record: Record<'a>,
    /// Its answers say that TLS is a must.
    is_strict: bool,
    ahead: Ahead,
    /// Of the dyno that was reached.
    traffic: Option<Arc<DynoTraffic>>,
    has_ended: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.record.failure = Some(Failure::FORCED);
            self.end(Failure::FORCED.status);
        }
    }
}

impl<'a> Turn<'a> {
    fn new(
        shared: &'a Shared,
        app: &'a AppRoute,
        origin: &Origin,
        head: &Head,
        fwd: SmolStr,
    ) -> Self {
        Self {
            shared,
            app,
            record: Record {
                request_id: headers::request_id(head),
                protocol: origin.protocol,
                fwd,
                ..Record::default()
            },
            is_strict: https::is_strict(app, origin),
            ahead: Ahead::default(),
            traffic: None,
            has_ended: false,
        }
    }

    /// Counts the request and writes its line.
    fn end(&mut self, status: u16) {
        self.record.status = status;
        self.has_ended = true;
        let sample = Sample {
            status,
            code: self.record.failure.map(|failure| failure.code),
            queue: self.record.queue,
            connect: self.record.connect,
            service: self.record.service,
        };
        self.app.traffic.counters.add(&sample);
        if let Some(dyno) = &self.traffic {
            dyno.counters.add(&sample);
        }
        let line = self.record.line();
        worker::log(&self.shared.hub, self.app.id, line);
    }

    /// The same before an answer of our own: whoever has the answer finds the line.
    fn end_at_once(&mut self, status: u16) {
        self.end(status);
        worker::flush(&self.shared.hub);
    }

    /// The line, then the error page.
    async fn fail(&mut self, client: &mut impl Wire, failure: Failure, may_go_on: bool) -> Next {
        self.record.failure = Some(failure);
        self.end_at_once(failure.status);
        // Nobody is there to read the answer to a 499.
        if failure.status != 499 {
            let frame = if failure == Failure::MAINTENANCE {
                self.app.maintenance_page.as_deref()
            } else {
                let page = self.app.error_page.as_deref();
                page.filter(|_| failure.status >= 500)
            };
            let page = failure::page(failure.status, Some(failure.code), frame);
            let is_head = self.record.method == "HEAD";
            let answer = Answer {
                is_strict: self.is_strict,
                ahead: self.ahead.take(),
                ..Answer::page(failure.status, &page, is_head, may_go_on)
            };
            answer.send(client).await;
        }
        Next::request_if(may_go_on)
    }
}
