//! Heads as they leave: what is removed, what is added, case and order kept.
//! Source: Dev Center, "HTTP Routing"; RFC 9110 section 7.6.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, BytesMut};
use smol_str::SmolStr;

use super::head::{Connection, Framing, Head, Line, Request, Response};
use super::name::Name;

/// In `Via`, by the platform's contract.
const NAME: &str = "vegur";

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

/// Lines whose every piece is ours.
fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Copies lines of a head: neighbours that the sender wrote as we would go in one piece.
struct Copy<'a> {
    head: &'a Head,
    run: Range<usize>,
}

impl<'a> Copy<'a> {
    fn of(head: &'a Head) -> Self {
        Self { head, run: 0..0 }
    }

    fn line(&mut self, out: &mut BytesMut, wanted: Line<'_>) {
        match wanted.written() {
            Some(range) if range.start == self.run.end => self.run.end = range.end,
            Some(range) => {
                self.flush(out);
                self.run = range;
            }
            None => {
                self.flush(out);
                line(out, wanted.name, wanted.value);
            }
        }
    }

    /// A line as if it had been sent with this value.
    fn as_if(&mut self, out: &mut BytesMut, sent: Line<'_>, value: &[u8]) {
        if sent.value == value {
            self.line(out, sent);
        } else {
            self.flush(out);
            line(out, sent.name, value);
        }
    }

    /// Before anything else is written.
    fn flush(&mut self, out: &mut BytesMut) {
        if !self.run.is_empty() {
            out.extend_from_slice(self.head.written(std::mem::take(&mut self.run)));
        }
    }
}

/// Whole ones.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `Via` with us at its end. `version`: of HTTP, that the message came in.
fn via(out: &mut BytesMut, head: &Head, version: &str) {
    out.extend_from_slice(b"Via: ");
    for value in head.values(Name::Via).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    put(out, &[version, " ", NAME, "\r\n"]);
}

/// The one line about a body's length, still to be written: in the place and the case of the
/// sender's own.
struct Length(Framing);

impl Length {
    /// At a line of the sender's about it.
    fn line(&mut self, copy: &mut Copy<'_>, out: &mut BytesMut, sent: Line<'_>) {
        let mut digits = itoa::Buffer::new();
        let value = match self.0 {
            Framing::Length(length) if sent.known == Name::ContentLength => {
                digits.format(length).as_bytes()
            }
            Framing::Chunked if sent.known == Name::TransferEncoding => b"chunked",
            _ => return,
        };
        copy.as_if(out, sent, value);
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
            .values(Name::MaxForwards)
            .any(|value| !value.is_empty() && value.iter().all(|b| *b == b'0'))
}

/// `Max-Forwards` for the next hop.
fn fewer(value: &[u8]) -> String {
    let count = text(value).parse::<u64>();
    count.map_or_else(|_| text(value), |count| count.saturating_sub(1).to_string())
}

/// The id of a request: the client's if it is a good one.
pub(super) fn request_id(head: &Head) -> String {
    let mut values = head.values(Name::XRequestId);
    if let (Some(value), None) = (values.next(), values.next()) {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"+/=-".contains(b);
        if (20..=200).contains(&value.len()) && value.iter().all(allowed) {
            return text(value);
        }
    }
    // Of this thread's own generator: one that asks the kernel costs as much as the rest of the head.
    let random = uuid::Builder::from_random_bytes(rand::random());
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let hyphenated = random.into_uuid().hyphenated();
    hyphenated.encode_lower(&mut text).to_owned()
}

/// `X-Forwarded-For` with the client's address at its end.
pub(super) fn forwarded_for(head: &Head, peer: &SmolStr) -> SmolStr {
    if !head.has(Name::XForwardedFor) {
        return peer.clone();
    }
    let mut all = String::with_capacity(80);
    for value in head.values(Name::XForwardedFor) {
        // What is no text names nobody: it ends here, rather than go on as something else.
        let value = str::from_utf8(value).unwrap_or_default();
        if !value.is_empty() {
            all.push_str(value);
            all.push_str(", ");
        }
    }
    all.push_str(peer);
    all.into()
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
    /// The client's own, if the app wants it.
    pub(super) peer_port: Option<u16>,
    pub(super) scheme: &'a str,
    pub(super) arrived: SystemTime,
    pub(super) connect: Duration,
    pub(super) route: Duration,
    pub(super) queue: Duration,
    pub(super) crowd: Option<Crowd>,
    /// The dyno is asked whether it wants the body.
    pub(super) is_continue_passed: bool,
    /// Its connection serves no other request.
    pub(super) is_last: bool,
    /// Of HTTP, that it came in.
    pub(super) version: &'a str,
}

/// The head as the dyno gets it.
pub(super) fn to_dyno(out: &mut BytesMut, request: &Request, context: Context<'_>) {
    out.extend_from_slice(request.method.as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // A method that wants a body is told that it has none.
    let mut length = Length(match request.framing {
        Framing::None if request.head.has(Name::ContentLength) => Framing::Length(0),
        framing => framing,
    });
    let is_counted = matches!(request.method.as_str(), "OPTIONS" | "TRACE");
    let mut copy = Copy::of(&request.head);
    for sent in request.head.lines() {
        let known = sent.known;
        if known == Name::Host {
            // No client can have it removed. There is exactly one; an absolute target has changed
            // what it says.
            copy.as_if(out, sent, request.host.as_bytes());
        } else if known.is_length() {
            // Framing is ours to state.
            length.line(&mut copy, out, sent);
        } else if known.is_hop()
            || known.is_own()
            || known.is_kept_back()
            || (known == Name::Upgrade && request.upgrade.is_none())
            || is_named(&request.connection, sent.name)
        {
            // It ends here.
        } else if is_counted && known == Name::MaxForwards {
            copy.as_if(out, sent, fewer(sent.value).as_bytes());
        } else {
            copy.line(out, sent);
        }
    }
    copy.flush(out);
    length.rest(out);
    if request.upgrade.is_some() {
        line(out, b"Connection", b"Upgrade");
    } else if context.is_last {
        line(out, b"Connection", b"close");
    }
    if context.is_continue_passed {
        line(out, b"Expect", b"100-continue");
    }
    let start = context
        .arrived
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut digits = [itoa::Buffer::new(); 5];
    let [port, arrived, connect, route, queue] = &mut digits;
    put(
        out,
        &[
            "X-Request-ID: ",
            context.request_id,
            "\r\nX-Forwarded-For: ",
            context.forwarded_for,
            "\r\nX-Forwarded-Proto: ",
            context.scheme,
            "\r\nX-Forwarded-Port: ",
            port.format(context.port),
            "\r\nX-Request-Start: ",
            arrived.format(milliseconds(start)),
            "\r\n",
        ],
    );
    via(out, &request.head, context.version);
    put(
        out,
        &[
            "Connect-Time: ",
            connect.format(milliseconds(context.connect)),
            "\r\nTotal-Route-Time: ",
            route.format(milliseconds(context.route)),
            "\r\nX-Heroku-Queue-Wait-Time: ",
            queue.format(milliseconds(context.queue)),
            "\r\n",
        ],
    );
    if let Some(port) = context.peer_port {
        number(out, "X-Forwarded-Peer-Port", port);
    }
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
    let value = response.head.values(Name::RetryAfter).next()?;
    let seconds = std::str::from_utf8(value)
        .ok()
        .and_then(|v| v.trim().parse().ok());
    Some(Duration::from_secs(seconds.unwrap_or(1)))
}

/// The head as the client gets it. `framing`: how the body will be sent; `is_keep_alive`: of the
/// client's own connection; `version`: of HTTP, that it came in.
pub(super) fn to_client(
    out: &mut BytesMut,
    response: &Response,
    framing: Framing,
    is_keep_alive: bool,
    version: &str,
) {
    status_line(out, response);
    // HEAD and 304 tell the length of what they do not send.
    let mut length = Length(match framing {
        Framing::None if !matches!(response.status, 100..=199 | 204) => response.told,
        framing => framing,
    });
    // What this answer asks for. Source: RFC 9110 section 15.5.22.
    let asks_upgrade = response.status == 426 && response.head.has(Name::Upgrade);
    let mut copy = Copy::of(&response.head);
    for sent in response.head.lines() {
        let known = sent.known;
        if known.is_length() {
            length.line(&mut copy, out, sent);
        } else if known == Name::Upgrade {
            if asks_upgrade {
                copy.line(out, sent);
            }
        } else if !known.is_hop()
            && known != Name::Via
            && !is_named(&response.connection, sent.name)
        {
            copy.line(out, sent);
        }
    }
    copy.flush(out);
    length.rest(out);
    if !response.head.has(Name::Server) {
        line(out, b"Server", b"Cowboy");
    }
    via(out, &response.head, version);
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
    let mut lines = response.head.lines();
    if !lines.any(|sent| sent.name.eq_ignore_ascii_case(name)) {
        add(out, wanted);
    }
}

/// True if the sender's `Connection` has a word for it: then it goes no further.
fn is_named(connection: &Connection, name: &[u8]) -> bool {
    let named = &connection.named;
    named
        .iter()
        .any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

/// An interim answer (1xx), or the switch of an upgrade.
pub(super) fn interim(response: &Response, is_upgrade: bool) -> BytesMut {
    let mut interim = BytesMut::new();
    let out = &mut interim;
    status_line(out, response);
    for sent in response.head.lines() {
        let is_dropped = sent.known.is_hop()
            || sent.known.is_length()
            || is_named(&response.connection, sent.name)
            || (sent.known == Name::Upgrade && !is_upgrade);
        if !is_dropped {
            line(out, sent.name, sent.value);
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
    if let Some(reason) = response.reason() {
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
        forwarded_over(lines, false)
    }

    fn forwarded_over(lines: &str, is_last: bool) -> String {
        let head = format!("POST /p HTTP/1.1\r\nHost: A.Example\r\n{lines}\r\n");
        let request = head::request(&Bytes::from(head)).expect("a request");
        let fwd = forwarded_for(&request.head, &"9.9.9.9".into());
        let context = Context {
            request_id: "the-id",
            forwarded_for: &fwd,
            port: 80,
            peer_port: Some(50_000),
            scheme: "http",
            arrived: UNIX_EPOCH + Duration::from_millis(1_383_600_692_125),
            connect: Duration::from_millis(1),
            route: Duration::from_millis(2),
            queue: Duration::from_millis(3),
            crowd: None,
            is_continue_passed: false,
            is_last,
            version: "1.1",
        };
        let mut out = BytesMut::new();
        to_dyno(&mut out, &request, context);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_request_keeps_case_and_order_and_gets_our_headers_once() {
        let text = forwarded(
            "X-CuStOm: 1\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.0 first\r\nCookie: a\r\nX_Forwarded_For: evil\r\nX-Request-Start: 1\r\nX-Forwarded-Peer-Port: 9\r\nX-Heroku-Queue-Depth: 9\r\nX-Heroku-Dynos-In-Use: 9\r\nX-Heroku-Queue-Wait-Time: 9\r\nProxy: evil\r\nContent-Length: 05\r\n",
        );
        let expected = "POST /p HTTP/1.1\r\nHost: A.Example\r\nX-CuStOm: 1\r\nCookie: a\r\nContent-Length: 5\r\nX-Request-ID: the-id\r\nX-Forwarded-For: 1.2.3.4, 9.9.9.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\nX-Request-Start: 1383600692125\r\nVia: 1.0 first, 1.1 vegur\r\nConnect-Time: 1\r\nTotal-Route-Time: 2\r\nX-Heroku-Queue-Wait-Time: 3\r\nX-Forwarded-Peer-Port: 50000\r\n\r\n";
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
    fn a_connection_that_serves_one_request_says_so() {
        let text = forwarded_over("Connection: keep-alive\r\n", true);
        assert_eq!(text.matches("Connection: ").count(), 1, "{text}");
        assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let text = forwarded_over(upgrade, true);
        assert!(text.contains("\r\nConnection: Upgrade\r\n"), "{text}");
        assert!(!text.contains("close"), "{text}");
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
        to_client(&mut out, &response, Framing::Chunked, true, "1.0");
        let text = String::from_utf8(out.to_vec()).expect("text");
        assert_eq!(
            text,
            "HTTP/1.1 799 My Own Words\r\nX-ReSp: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\nServer: Cowboy\r\nVia: 1.1 x, 1.0 vegur\r\nConnection: keep-alive\r\n\r\n"
        );
    }
}
