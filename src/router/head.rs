//! Heads: strict parsing on top of httparse, and what a message says about its own framing.
//!
//! One reading only: what two parsers could read differently is refused, and heads are always
//! built anew. Source: RFC 9112 sections 2.2, 5 and 6.

use std::ops::Range;

use bytes::Bytes;

/// Longest request line in bytes (414).
const LINE_MAX: usize = 8192;
/// Longest name and value of a request header in bytes (400).
const NAME_MAX: usize = 1000;
const VALUE_MAX: usize = 8192;
/// Most headers (400).
pub(super) const HEADERS_MAX: usize = 1000;
/// Largest request head in bytes (431): what a client may make us hold.
pub(super) const REQUEST_HEAD_MAX: usize = 256 * 1024;
/// Largest answer head in bytes (502).
pub(super) const RESPONSE_HEAD_MAX: usize = 1024 * 1024;
/// Longest method.
const METHOD_MAX: usize = 127;
/// Limits of an answer (502, H25).
const STATUS_LINE_MAX: usize = 8192;
const COOKIE_MAX: usize = 8192;
const RESPONSE_LINE_MAX: usize = 512 * 1024;

/// A head's bytes and where its fields lie in them. Case and order are those of the sender.
#[derive(Clone, Debug)]
pub(super) struct Head {
    bytes: Bytes,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Head {
    /// Names and values, in order.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |range: &Range<usize>| &self.bytes[range.clone()];
        self.fields.iter().map(move |(n, v)| (part(n), part(v)))
    }

    /// Values of a header, by name in any case.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, v)| v)
    }
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Until the sender closes (answers only).
    UntilClose,
}

/// What `Connection` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) is_close: bool,
    pub(super) is_keep_alive: bool,
    pub(super) is_upgrade: bool,
    /// Headers it names, in lower case: they go no further.
    pub(super) named: Vec<String>,
}

impl Connection {
    /// True if the sender keeps its connection; `is_old`: it speaks HTTP/1.0.
    /// Source: RFC 9112 section 9.3.
    pub(super) fn lasts(&self, is_old: bool) -> bool {
        if is_old {
            self.is_keep_alive
        } else {
            !self.is_close
        }
    }
}

/// What `Expect` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Nothing,
    Continue,
    /// 417.
    Other,
}

/// A request's head.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) head: Head,
    pub(super) method: String,
    /// In origin form.
    pub(super) target: String,
    /// True: HTTP/1.0.
    pub(super) is_old: bool,
    /// As sent (or of the absolute target).
    pub(super) host: String,
    pub(super) framing: Framing,
    pub(super) connection: Connection,
    /// The protocols asked for, if this is an upgrade.
    pub(super) upgrade: Option<String>,
    pub(super) expect: Expect,
}

/// An answer's head.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) head: Head,
    pub(super) status: u16,
    /// As sent; `None`: the line had none.
    pub(super) reason: Option<Vec<u8>>,
    pub(super) is_old: bool,
    pub(super) framing: Framing,
    pub(super) connection: Connection,
}

/// A head that is refused: the status to say so with, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) cause: &'static str,
}

const fn refused(status: u16, cause: &'static str) -> Refused {
    Refused { status, cause }
}

/// Where the head ends (behind its empty line), if it is all there. `from`: where to look on.
///
/// # Errors
/// A line end that is not CRLF.
pub(super) fn end_of_head(bytes: &[u8], from: usize) -> Result<Option<usize>, Refused> {
    let start = from.saturating_sub(3);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => {
                return Err(refused(400, "bare LF"));
            }
            b'\n' if at >= 3 && bytes[at - 3..at] == *b"\r\n\r" => return Ok(Some(at + 1)),
            b'\r' if bytes.get(at + 1).is_some_and(|next| *next != b'\n') => {
                return Err(refused(400, "bare CR"));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn locate(bytes: &Bytes, headers: &[httparse::Header<'_>]) -> Head {
    let base = bytes.as_ptr() as usize;
    let range = |part: &[u8]| {
        let start = part.as_ptr() as usize - base;
        start..start + part.len()
    };
    let fields = headers
        .iter()
        .map(|h| (range(h.name.as_bytes()), range(h.value)))
        .collect();
    Head {
        bytes: bytes.clone(),
        fields,
    }
}

/// Parses a whole request head.
///
/// # Errors
/// Anything that is not exactly one request in one reading.
pub(super) fn request(bytes: &Bytes) -> Result<Request, Refused> {
    let line = bytes.iter().position(|b| *b == b'\r').unwrap_or(0);
    if line > LINE_MAX {
        return Err(refused(414, "request line too long"));
    }
    if bytes[..line].contains(&b'\t') {
        return Err(refused(400, "bad request line"));
    }
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut more = Vec::new();
    let mut parsed = httparse::Request::new(&mut space);
    let mut done = parsed.parse(bytes);
    if done == Err(httparse::Error::TooManyHeaders) {
        more.resize(HEADERS_MAX, httparse::EMPTY_HEADER);
        parsed = httparse::Request::new(&mut more);
        done = parsed.parse(bytes);
    }
    match done {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(refused(400, "bad request")),
        Err(httparse::Error::Version) => return Err(refused(505, "bad version")),
        Err(httparse::Error::TooManyHeaders) => return Err(refused(431, "too many headers")),
        Err(_) => return Err(refused(400, "bad header")),
    }
    let method = parsed.method.unwrap_or_default().to_owned();
    let target = parsed.path.unwrap_or_default().to_owned();
    let is_old = parsed.version == Some(0);
    let head = locate(bytes, parsed.headers);
    if method.len() > METHOD_MAX || method == "CONNECT" {
        return Err(refused(400, "bad method"));
    }
    for (name, value) in head.fields() {
        if name.len() > NAME_MAX || value.len() > VALUE_MAX {
            return Err(refused(400, "header too long"));
        }
        // Our own line, whatever the parser comes to allow.
        if value.iter().any(|b| *b < 0x20 && *b != b'\t') {
            return Err(refused(400, "bad header"));
        }
    }
    let (target, authority) = split_target(&method, target)?;
    let host = host(&head, authority)?;
    let framing = request_framing(&head, is_old)?;
    let connection = connection(&head);
    let upgrade = upgrade(&head, &connection)?;
    let expect = expect(&head, is_old)?;
    Ok(Request {
        head,
        method,
        target,
        is_old,
        host,
        framing,
        connection,
        upgrade,
        expect,
    })
}

/// Origin form, and the authority of an absolute one.
fn split_target(method: &str, target: String) -> Result<(String, Option<String>), Refused> {
    const BAD: Refused = refused(400, "bad target");
    if target.starts_with('/') {
        return Ok((target, None));
    }
    if target == "*" {
        return if method == "OPTIONS" {
            Ok((target, None))
        } else {
            Err(BAD)
        };
    }
    let scheme = target
        .get(..7)
        .filter(|s| s.eq_ignore_ascii_case("http://"));
    let rest = scheme.map(|s| &target[s.len()..]).ok_or(BAD)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    Ok((path, Some(authority.to_owned())))
}

/// Exactly one `Host`, in any version; the absolute target's authority wins over it.
fn host(head: &Head, authority: Option<String>) -> Result<String, Refused> {
    const BAD: Refused = refused(400, "bad host");
    let mut values = head.values("host");
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(BAD);
    };
    let host = authority.unwrap_or_else(|| text(value));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(allowed) || !value.iter().copied().all(allowed) {
        return Err(BAD);
    }
    Ok(host)
}

/// `Content-Length`, if it is one number; identical repeats count once.
fn length(head: &Head) -> Result<Option<u64>, ()> {
    let mut found = None;
    for value in head.values("content-length") {
        let is_number =
            !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
        let number = is_number.then(|| text(value).parse::<u64>().ok()).flatten();
        let number = number.ok_or(())?;
        if found.is_some_and(|other| other != number) {
            return Err(());
        }
        found = Some(number);
    }
    Ok(found)
}

/// True: the one coding is `chunked`. False: there is none.
fn chunked(head: &Head) -> Result<bool, ()> {
    let mut values = head.values("transfer-encoding");
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(()),
    }
}

fn request_framing(head: &Head, is_old: bool) -> Result<Framing, Refused> {
    let is_chunked = chunked(head).map_err(|()| refused(400, "bad transfer encoding"))?;
    let length = length(head).map_err(|()| refused(400, "bad content length"))?;
    match (is_chunked, length) {
        (true, Some(_)) => Err(refused(400, "both length and chunks")),
        (true, None) if is_old => Err(refused(400, "chunks in HTTP/1.0")),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(0) | None) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = String> {
    let list = text(value).to_ascii_lowercase();
    let tokens: Vec<String> = list
        .split(',')
        .map(|t| t.trim_matches([' ', '\t']).to_owned())
        .filter(|t| !t.is_empty())
        .collect();
    tokens.into_iter()
}

fn connection(head: &Head) -> Connection {
    let mut connection = Connection::default();
    for token in head.values("connection").flat_map(tokens) {
        match token.as_str() {
            "close" => connection.is_close = true,
            "keep-alive" => connection.is_keep_alive = true,
            "upgrade" => connection.is_upgrade = true,
            _ => connection.named.push(token),
        }
    }
    connection
}

fn upgrade(head: &Head, connection: &Connection) -> Result<Option<String>, Refused> {
    if !connection.is_upgrade {
        return Ok(None);
    }
    let asked: Vec<String> = head.values("upgrade").map(text).collect();
    if asked.is_empty() {
        return Err(refused(400, "upgrade without Upgrade"));
    }
    let asked = asked.join(", ");
    // HTTP/2 in clear text would hide requests from the router.
    let is_h2c = tokens(asked.as_bytes()).any(|token| token == "h2c");
    Ok((!is_h2c).then_some(asked))
}

fn expect(head: &Head, is_old: bool) -> Result<Expect, Refused> {
    let mut expect = Expect::Nothing;
    for value in head.values("expect") {
        if is_old || value.is_empty() {
            continue;
        }
        if value.eq_ignore_ascii_case(b"100-continue") {
            expect = Expect::Continue;
        } else if value.contains(&b' ') {
            return Err(refused(400, "bad header"));
        } else {
            return Ok(Expect::Other);
        }
    }
    Ok(expect)
}

/// Parses a whole answer head. `is_head`: the request's method was HEAD.
///
/// # Errors
/// Status 502 with the cause H25 names, or an empty cause where the answer is no HTTP (H17).
pub(super) fn response(bytes: &Bytes, is_head: bool) -> Result<Response, Refused> {
    const GARBAGE: Refused = refused(502, "");
    let line = bytes.iter().position(|b| *b == b'\r').unwrap_or(0);
    if line > STATUS_LINE_MAX {
        return Err(refused(502, "oversized status line"));
    }
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut more = Vec::new();
    let mut parsed = httparse::Response::new(&mut space);
    let mut done = parsed.parse(bytes);
    if done == Err(httparse::Error::TooManyHeaders) {
        more.resize(HEADERS_MAX, httparse::EMPTY_HEADER);
        parsed = httparse::Response::new(&mut more);
        done = parsed.parse(bytes);
    }
    if !matches!(done, Ok(httparse::Status::Complete(_))) {
        return Err(GARBAGE);
    }
    let status = parsed.code.filter(|code| *code >= 100).ok_or(GARBAGE)?;
    let is_old = parsed.version == Some(0);
    let head = locate(bytes, parsed.headers);
    // httparse blanks a reason with bytes above 127: take it from the line itself.
    let reason = bytes[..line].get(13..).map(<[u8]>::to_vec);
    for (name, value) in head.fields() {
        if name.len() + value.len() > RESPONSE_LINE_MAX {
            return Err(refused(502, "oversized header"));
        }
        if name.eq_ignore_ascii_case(b"set-cookie") && value.len() > COOKIE_MAX {
            return Err(refused(502, "oversized cookie"));
        }
    }
    let connection = connection(&head);
    let framing = if is_head || matches!(status, 100..=199 | 204 | 304) {
        Framing::None
    } else {
        match (chunked(&head), length(&head)) {
            (Err(()), _) => return Err(GARBAGE),
            (Ok(true), _) => Framing::Chunked,
            (Ok(false), Err(())) => return Err(refused(502, "invalid content length")),
            (Ok(false), Ok(Some(length))) => Framing::Length(length),
            (Ok(false), Ok(None)) => Framing::UntilClose,
        }
    };
    Ok(Response {
        head,
        status,
        reason,
        is_old,
        framing,
        connection,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Request, Refused> {
        request(&Bytes::from(text.to_owned()))
    }

    #[track_caller]
    fn refuse(lines: &str, status: u16) {
        let text = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n");
        let end = end_of_head(text.as_bytes(), 0);
        let result = end.and_then(|_| parse(&text).map(drop));
        assert_eq!(result.map_err(|r| r.status), Err(status), "{lines:?}");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5_0\r\n",
            "Content-Length : 5\r\n",
            "Content-Length: 5\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\rb\r\n",
            "X(: a\r\n",
            "Host: a.example\r\n",
            "Connection: upgrade\r\n",
        ] {
            refuse(lines, 400);
        }
        refuse(&format!("X: {}\r\n", "y".repeat(VALUE_MAX + 1)), 400);
    }

    #[test]
    fn hosts_targets_and_versions() {
        let check = |head: &str, expected: Result<(&str, &str), u16>| {
            let got = parse(head)
                .map(|r| (r.target, r.host))
                .map_err(|r| r.status);
            let expected = expected.map(|(t, h)| (t.to_owned(), h.to_owned()));
            assert_eq!(got, expected, "{head:?}");
        };
        check(
            "GET /a?b HTTP/1.1\r\nHost: x.y:80\r\n\r\n",
            Ok(("/a?b", "x.y:80")),
        );
        check(
            "GET http://z/ HTTP/1.1\r\nHost: x.y\r\n\r\n",
            Ok(("/", "z")),
        );
        check(
            "GET http://z?q HTTP/1.1\r\nHost: x.y\r\n\r\n",
            Ok(("/?q", "z")),
        );
        check("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", Ok(("*", "x")));
        check("GET * HTTP/1.1\r\nHost: x\r\n\r\n", Err(400));
        check("GET / HTTP/1.0\r\n\r\n", Err(400));
        check("GET / HTTP/1.1\r\nHost:\r\n\r\n", Err(400));
        check("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(400));
        check("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
        check("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(505));
        let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(LINE_MAX));
        check(&long, Err(414));
    }

    #[test]
    fn answers_say_how_long_they_are() {
        let check = |head: &str, is_head: bool, expected: Result<Framing, &str>| {
            let got = response(&Bytes::from(head.to_owned()), is_head);
            let got = got.map(|r| r.framing).map_err(|r| r.cause);
            assert_eq!(got, expected, "{head:?}");
        };
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            false,
            Ok(Framing::Length(3)),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            true,
            Ok(Framing::None),
        );
        check(
            "HTTP/1.1 304 Not\r\nContent-Length: 3\r\n\r\n",
            false,
            Ok(Framing::None),
        );
        check("HTTP/1.1 200\r\n\r\n", false, Ok(Framing::UntilClose));
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            false,
            Err("invalid content length"),
        );
        check("HTTP/1.1 20 OK\r\n\r\n", false, Err(""));
        check("lorem ipsum\r\n\r\n", false, Err(""));
    }

    #[test]
    fn a_reason_is_kept_as_it_came() {
        let reason = |head: &str| {
            response(&Bytes::from(head.to_owned()), false)
                .expect("ok")
                .reason
        };
        assert_eq!(
            reason("HTTP/1.1 799 My Own Words\r\n\r\n"),
            Some(b"My Own Words".to_vec())
        );
        assert_eq!(reason("HTTP/1.1 200 \r\n\r\n"), Some(Vec::new()));
        assert_eq!(reason("HTTP/1.1 200\r\n\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = end_of_head(&bytes, 0);
            let _ = request(&Bytes::from(bytes.clone()));
            let _ = response(&Bytes::from(bytes), false);
        }

        #[test]
        fn the_end_is_found_wherever_the_reads_end(cut in 0usize..40) {
            let text = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nrest";
            let cut = cut.min(text.len());
            let first = end_of_head(&text[..cut], 0);
            let found = match first {
                Ok(Some(end)) => end,
                Ok(None) => end_of_head(text, cut).expect("no error").expect("an end"),
                // A lone CR at the very end of a read is not known to be bare yet.
                Err(error) => panic!("{error:?} at {cut}"),
            };
            prop_assert_eq!(&text[found..], b"rest");
        }
    }
}
