//! Heads as they leave: what is removed, what is added, case and order kept.
//! Source: Dev Center, "HTTP Routing"; RFC 9110 section 7.6.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, BytesMut};

use super::head::{Framing, Head, Request, Response};

/// Name in `Via`, as the platform's contract has it.
const VIA: &str = "vegur";

/// Headers that end at every hop.
const HOP: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "proxy-authorization",
];

/// What the router sets itself: whatever the client sent under these names is replaced, or (first
/// two) becomes the front of the new value.
const OWN: [&str; 11] = [
    "x-forwarded-for",
    "via",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-request-id",
    "x-request-start",
    "connect-time",
    "total-route-time",
    "x-heroku-queue-wait-time",
    "x-heroku-queue-depth",
    "x-heroku-dynos-in-use",
];

/// Never passed to an app: read as `HTTP_PROXY` by CGI (httpoxy).
const NEVER: [&str; 3] = ["proxy", "expect", "http2-settings"];

/// What says where a body ends. We say it ourselves, once.
const LENGTH: [&str; 2] = ["content-length", "transfer-encoding"];

fn is(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

/// True for a name that CGI and WSGI would read as one of ours (`X_Forwarded_For`).
fn is_disguised(name: &[u8]) -> bool {
    if !name.contains(&b'_') {
        return false;
    }
    let plain: Vec<u8> = name
        .iter()
        .map(|b| if *b == b'_' { b'-' } else { *b })
        .collect();
    is(&plain, &OWN)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(out: &mut BytesMut, name: &str, value: impl itoa::Integer) {
    line(
        out,
        name.as_bytes(),
        itoa::Buffer::new().format(value).as_bytes(),
    );
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `Via` with us at its end.
fn via(out: &mut BytesMut, head: &Head, is_old: bool) {
    out.extend_from_slice(b"Via: ");
    for value in head.values("via") {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    let version: &[u8] = if is_old { b"1.0 " } else { b"1.1 " };
    out.extend_from_slice(version);
    out.extend_from_slice(VIA.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The one line about a body's length, still to be written: in the place and the case of the
/// sender's own.
struct Length(Framing);

impl Length {
    /// At a line of the sender's with this name.
    fn line(&mut self, out: &mut BytesMut, name: &[u8]) {
        match self.0 {
            Framing::Length(length) if is(name, &["content-length"]) => {
                line(out, name, itoa::Buffer::new().format(length).as_bytes());
            }
            Framing::Chunked if is(name, &["transfer-encoding"]) => line(out, name, b"chunked"),
            _ => return,
        }
        self.0 = Framing::None;
    }

    /// Behind all lines.
    fn rest(self, out: &mut BytesMut) {
        match self.0 {
            Framing::Length(length) => number(out, "Content-Length", length),
            Framing::Chunked => line(out, b"Transfer-Encoding", b"chunked"),
            Framing::None | Framing::UntilClose => {}
        }
    }
}

/// True if the request must be answered here: it was to pass no more proxies.
/// Source: RFC 9110 section 7.6.2.
pub(super) fn is_last_hop(request: &Request) -> bool {
    matches!(request.method.as_str(), "OPTIONS" | "TRACE")
        && request
            .head
            .values("max-forwards")
            .any(|value| value == b"0")
}

/// `Max-Forwards` for the next hop.
fn fewer(value: &[u8]) -> String {
    let count = text(value).parse::<u64>();
    count.map_or_else(|_| text(value), |count| count.saturating_sub(1).to_string())
}

/// The id of a request: the client's if it is a good one.
pub(super) fn request_id(head: &Head) -> String {
    let mut values = head.values("x-request-id");
    if let (Some(value), None) = (values.next(), values.next()) {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"+/=-".contains(b);
        if (20..=200).contains(&value.len()) && value.iter().all(allowed) {
            return text(value);
        }
    }
    // Of this thread's own generator: one that asks the kernel costs as much as the rest of the head.
    let random = uuid::Builder::from_random_bytes(rand::random());
    random.into_uuid().to_string()
}

/// `X-Forwarded-For` with the client's address at its end.
pub(super) fn forwarded_for(head: &Head, peer: IpAddr) -> String {
    let mut all = String::with_capacity(40);
    for value in head.values("x-forwarded-for") {
        all.push_str(&String::from_utf8_lossy(value));
        all.push_str(", ");
    }
    // A string takes all.
    let _ = write!(all, "{peer}");
    all
}

/// What the app's dynos and its line looked like when the seat was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowd {
    pub(super) dynos_in_use: usize,
    pub(super) depth: usize,
}

/// What the router knows about a request beside its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) request_id: &'a str,
    pub(super) forwarded_for: &'a str,
    pub(super) port: u16,
    pub(super) scheme: &'a str,
    pub(super) arrived: SystemTime,
    pub(super) connect: Duration,
    pub(super) route: Duration,
    pub(super) queue: Duration,
    pub(super) crowd: Option<Crowd>,
    /// The dyno is asked whether it wants the body.
    pub(super) is_continue_passed: bool,
}

/// The head as the dyno gets it.
pub(super) fn to_dyno(out: &mut BytesMut, request: &Request, context: Context<'_>) {
    out.extend_from_slice(request.method.as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // A method that wants a body is told that it has none.
    let has_length = request.head.values("content-length").next().is_some();
    let mut length = Length(match request.framing {
        Framing::None if has_length => Framing::Length(0),
        framing => framing,
    });
    let is_counted = matches!(request.method.as_str(), "OPTIONS" | "TRACE");
    for (name, value) in request.head.fields() {
        let is_named = request
            .connection
            .named
            .iter()
            .any(|n| name.eq_ignore_ascii_case(n.as_bytes()));
        // Framing is ours to state, and no client can have Host removed.
        let is_kept = is(name, &["host"]) || is(name, &LENGTH);
        let is_dropped = is(name, &HOP)
            || is(name, &OWN)
            || is(name, &NEVER)
            || is_disguised(name)
            || (is(name, &["upgrade"]) && request.upgrade.is_none());
        if is_dropped || (is_named && !is_kept) {
            continue;
        }
        if is(name, &["host"]) {
            // There is exactly one; an absolute target has changed what it says.
            line(out, name, request.host.as_bytes());
        } else if is(name, &LENGTH) {
            length.line(out, name);
        } else if is_counted && is(name, &["max-forwards"]) {
            line(out, name, fewer(value).as_bytes());
        } else {
            line(out, name, value);
        }
    }
    length.rest(out);
    if request.upgrade.is_some() {
        line(out, b"Connection", b"Upgrade");
    }
    if context.is_continue_passed {
        line(out, b"Expect", b"100-continue");
    }
    let start = context
        .arrived
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    line(out, b"X-Request-ID", context.request_id.as_bytes());
    line(out, b"X-Forwarded-For", context.forwarded_for.as_bytes());
    line(out, b"X-Forwarded-Proto", context.scheme.as_bytes());
    number(out, "X-Forwarded-Port", context.port);
    number(out, "X-Request-Start", milliseconds(start));
    via(out, &request.head, request.is_old);
    number(out, "Connect-Time", milliseconds(context.connect));
    number(out, "Total-Route-Time", milliseconds(context.route));
    let waited = milliseconds(context.queue);
    number(out, "X-Heroku-Queue-Wait-Time", waited);
    if let Some(crowd) = context.crowd {
        number(out, "X-Heroku-Dynos-In-Use", crowd.dynos_in_use);
        number(out, "X-Heroku-Queue-Depth", crowd.depth);
    }
    out.extend_from_slice(b"\r\n");
}

/// How long a dyno wants to be spared: a 503 with `Retry-After` is its way to say that it has too
/// much to do. A date, or nonsense, counts as a second. Source: RFC 9110 section 10.2.3.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    if response.status != 503 {
        return None;
    }
    let value = response.head.values("retry-after").next()?;
    let seconds = std::str::from_utf8(value)
        .ok()
        .and_then(|v| v.trim().parse().ok());
    Some(Duration::from_secs(seconds.unwrap_or(1)))
}

/// The head as the client gets it. `framing`: how the body will be sent; `is_keep_alive`: of the
/// client's own connection.
pub(super) fn to_client(
    out: &mut BytesMut,
    response: &Response,
    framing: Framing,
    is_keep_alive: bool,
) {
    status_line(out, response);
    let mut has_server = false;
    // HEAD and 304 tell the length of what they do not send.
    let mut length = Length(match framing {
        Framing::None if !matches!(response.status, 100..=199 | 204) => response.told,
        framing => framing,
    });
    // What this answer asks for. Source: RFC 9110 section 15.5.22.
    let asks_upgrade = response.status == 426 && response.head.values("upgrade").next().is_some();
    for (name, value) in response.head.fields() {
        has_server |= is(name, &["server"]);
        if is(name, &LENGTH) {
            length.line(out, name);
        } else if is(name, &["upgrade"]) {
            if asks_upgrade {
                line(out, name, value);
            }
        } else if !is(name, &HOP) && !is(name, &["via"]) && !is_named(response, name) {
            line(out, name, value);
        }
    }
    length.rest(out);
    if !has_server {
        line(out, b"Server", b"Cowboy");
    }
    via(out, &response.head, response.is_old);
    let connection: &[u8] = match (is_keep_alive, asks_upgrade) {
        (true, false) => b"keep-alive",
        (false, false) => b"close",
        (true, true) => b"keep-alive, Upgrade",
        (false, true) => b"close, Upgrade",
    };
    line(out, b"Connection", connection);
    out.extend_from_slice(b"\r\n");
}

/// Puts a header line (or nothing) at the end of a finished head.
pub(super) fn add(out: &mut BytesMut, wanted: &str) {
    out.truncate(out.len() - 2);
    out.extend_from_slice(wanted.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The same, unless the answer has such a header already.
pub(super) fn add_missing(out: &mut BytesMut, response: &Response, wanted: &str) {
    let name = wanted.split(':').next().unwrap_or_default().as_bytes();
    if !response
        .head
        .fields()
        .any(|(n, _)| n.eq_ignore_ascii_case(name))
    {
        add(out, wanted);
    }
}

fn is_named(response: &Response, name: &[u8]) -> bool {
    let named = &response.connection.named;
    named
        .iter()
        .any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

/// An interim answer (1xx), or the switch of an upgrade.
pub(super) fn interim(response: &Response, is_upgrade: bool) -> BytesMut {
    let mut interim = BytesMut::new();
    let out = &mut interim;
    status_line(out, response);
    for (name, value) in response.head.fields() {
        let is_dropped = is(name, &HOP)
            || is(name, &LENGTH)
            || is_named(response, name)
            || (is(name, &["upgrade"]) && !is_upgrade);
        if !is_dropped {
            line(out, name, value);
        }
    }
    if is_upgrade {
        line(out, b"Connection", b"Upgrade");
    }
    out.extend_from_slice(b"\r\n");
    interim
}

fn status_line(out: &mut BytesMut, response: &Response) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(response.status).as_bytes());
    out.put_u8(b' ');
    if let Some(reason) = &response.reason {
        out.extend_from_slice(reason);
    } else {
        let code = hyper::StatusCode::from_u16(response.status).ok();
        let reason = code.and_then(|code| code.canonical_reason());
        out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::router::head;

    fn forwarded(lines: &str) -> String {
        let head = format!("POST /p HTTP/1.1\r\nHost: A.Example\r\n{lines}\r\n");
        let request = head::request(&Bytes::from(head)).expect("a request");
        let fwd = forwarded_for(&request.head, [9, 9, 9, 9].into());
        let context = Context {
            request_id: "the-id",
            forwarded_for: &fwd,
            port: 80,
            scheme: "http",
            arrived: UNIX_EPOCH + Duration::from_millis(1_383_600_692_125),
            connect: Duration::from_millis(1),
            route: Duration::from_millis(2),
            queue: Duration::from_millis(3),
            crowd: None,
            is_continue_passed: false,
        };
        let mut out = BytesMut::new();
        to_dyno(&mut out, &request, context);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_request_keeps_case_and_order_and_gets_our_headers_once() {
        let text = forwarded(
            "X-CuStOm: 1\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.0 first\r\nCookie: a\r\nX_Forwarded_For: evil\r\nX-Request-Start: 1\r\nX-Heroku-Queue-Depth: 9\r\nX-Heroku-Dynos-In-Use: 9\r\nX-Heroku-Queue-Wait-Time: 9\r\nProxy: evil\r\nContent-Length: 05\r\n",
        );
        let expected = "POST /p HTTP/1.1\r\nHost: A.Example\r\nX-CuStOm: 1\r\nCookie: a\r\nContent-Length: 5\r\nX-Request-ID: the-id\r\nX-Forwarded-For: 1.2.3.4, 9.9.9.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\nX-Request-Start: 1383600692125\r\nVia: 1.0 first, 1.1 vegur\r\nConnect-Time: 1\r\nTotal-Route-Time: 2\r\nX-Heroku-Queue-Wait-Time: 3\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn hop_by_hop_headers_stop_here_but_not_what_we_set() {
        let text = forwarded(
            "Connection: close, X-Mine, Host, X-Forwarded-For, Content-Length\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nContent-Length: 5\r\n",
        );
        for gone in ["X-Mine", "TE:", "Keep-Alive", "Connection"] {
            assert!(!text.contains(&format!("\r\n{gone}")), "{gone} in {text}");
        }
        for kept in [
            "Host: A.Example",
            "X-Forwarded-For: 9.9.9.9",
            "Content-Length: 5",
        ] {
            assert!(text.contains(kept), "{kept} not in {text}");
        }
    }

    #[test]
    fn an_upgrade_is_passed_and_h2c_is_not() {
        let text = forwarded("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n");
        assert!(
            text.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"),
            "{text}"
        );
        let text = forwarded(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
        );
        assert!(
            !text.contains("pgrade") && !text.contains("HTTP2"),
            "{text}"
        );
    }

    #[test]
    fn request_ids_are_kept_when_they_are_good() {
        let id = |lines: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            request_id(&head::request(&Bytes::from(head)).expect("a request").head)
        };
        assert_eq!(
            id("X-Request-ID: client-given-id-0123456789\r\n"),
            "client-given-id-0123456789"
        );
        for bad in ["short", "<script>alert(1)</script>xxxxxxxx"] {
            assert_eq!(id(&format!("X-Request-Id: {bad}\r\n")).len(), 36, "{bad}");
        }
    }

    #[test]
    fn an_answer_keeps_its_words_and_speaks_for_our_connection() {
        let head = "HTTP/1.0 799 My Own Words\r\nX-ReSp: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nConnection: close\r\nVia: 1.1 x\r\n\r\n";
        let response = head::response(&Bytes::from(head), false).expect("an answer");
        let mut out = BytesMut::new();
        to_client(&mut out, &response, Framing::Chunked, true);
        let text = String::from_utf8(out.to_vec()).expect("text");
        assert_eq!(
            text,
            "HTTP/1.1 799 My Own Words\r\nX-ReSp: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\nServer: Cowboy\r\nVia: 1.1 x, 1.0 vegur\r\nConnection: keep-alive\r\n\r\n"
        );
    }
}
