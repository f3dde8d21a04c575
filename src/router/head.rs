//! Heads: strict parsing on top of httparse, and what a message says about its own framing.
//!
//! One reading only: what two parsers could read differently is refused, and heads are always
//! built anew. Source: RFC 9112 sections 2.2, 5 and 6.

mod scan;

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use smol_str::SmolStr;

use super::name::Name;
use scan::{HOST, is_all, is_token};

pub(super) use scan::{end_of_head, is_plain, request_line, status_line};

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
const COOKIE_MAX: usize = 8192;
const RESPONSE_LINE_MAX: usize = 512 * 1024;

/// A head's bytes and where its lines lie in them. Case and order are those of the sender.
#[derive(Clone, Debug)]
pub(super) struct Head {
    bytes: Bytes,
    places: Vec<Place>,
    /// The names in it, by [`Name::bit`].
    names: u32,
}

/// Where a line lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    known: Name,
    name: usize,
    name_end: usize,
    value: usize,
    value_end: usize,
}

/// A header line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) known: Name,
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    head: &'a Head,
    place: Place,
}

impl Line<'_> {
    /// Where the whole line lies, if the sender wrote it as we write lines.
    pub(super) fn written(&self) -> Option<Range<usize>> {
        let Place {
            name,
            name_end,
            value,
            value_end,
            ..
        } = self.place;
        let bytes = &self.head.bytes;
        let is_ours = value == name_end + 2
            && bytes[name_end..value] == *b": "
            && bytes.get(value_end..value_end + 2) == Some(b"\r\n");
        is_ours.then_some(name..value_end + 2)
    }
}

impl Head {
    /// Its lines, in order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.places.iter().map(|place| Line {
            known: place.known,
            name: &self.bytes[place.name..place.name_end],
            value: &self.bytes[place.value..place.value_end],
            head: self,
            place: *place,
        })
    }

    /// The bytes of lines as [`Line::written`] finds them.
    pub(super) fn written(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Whether there is such a line.
    pub(super) fn has(&self, name: Name) -> bool {
        self.names & name.bit() != 0
    }

    /// Values of a header.
    pub(super) fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        // Most are asked for in vain.
        let places = if self.has(name) {
            self.places.as_slice()
        } else {
            &[]
        };
        places
            .iter()
            .filter(move |place| place.known == name)
            .map(|place| &self.bytes[place.value..place.value_end])
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
        !self.is_close && (self.is_keep_alive || !is_old)
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
    pub(super) method: SmolStr,
    /// In origin form.
    pub(super) target: SmolStr,
    /// True: HTTP/1.0.
    pub(super) is_old: bool,
    /// As sent (or of the absolute target).
    pub(super) host: SmolStr,
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
    /// Where the reason lies; `None`: the line had none.
    reason: Option<Range<usize>>,
    pub(super) is_old: bool,
    pub(super) framing: Framing,
    pub(super) connection: Connection,
    /// What its headers say of a body, also where none follows (HEAD, 304).
    pub(super) told: Framing,
    /// Its connection must not be used again.
    pub(super) is_doubtful: bool,
}

impl Response {
    /// As sent; `None`: the line had none.
    pub(super) fn reason(&self) -> Option<&[u8]> {
        let range = self.reason.clone()?;
        Some(&self.head.bytes[range])
    }
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn locate(bytes: &Bytes, headers: &[httparse::Header<'_>]) -> Head {
    let base = bytes.as_ptr() as usize;
    let mut names = 0;
    let mut places = Vec::with_capacity(headers.len());
    for header in headers {
        let known = Name::of(header.name.as_bytes());
        names |= known.bit();
        let (name, value) = (header.name.as_ptr() as usize - base, header.value.as_ptr());
        // An empty value may lie anywhere.
        let value = match header.value {
            [] => name,
            _ => value as usize - base,
        };
        places.push(Place {
            known,
            name,
            name_end: name + header.name.len(),
            value,
            value_end: value + header.value.len(),
        });
    }
    Head {
        bytes: bytes.clone(),
        places,
        names,
    }
}

/// Headers of most heads.
const FEW: usize = 64;

/// Parses a whole request head. Control bytes in names and values are the parser's to refuse, and a
/// test holds it to that.
///
/// # Errors
/// Anything that is not exactly one request in one reading.
pub(super) fn request(bytes: &Bytes) -> Result<Request, Refused> {
    request_line(bytes)?;
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut more = Vec::new();
    let mut parsed = httparse::Request::new(&mut []);
    let mut done = parsed.parse_with_uninit_headers(bytes, &mut few);
    if done == Err(httparse::Error::TooManyHeaders) {
        more.resize(HEADERS_MAX, MaybeUninit::uninit());
        parsed = httparse::Request::new(&mut []);
        done = parsed.parse_with_uninit_headers(bytes, &mut more);
    }
    match done {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(refused(400, "bad request")),
        Err(httparse::Error::TooManyHeaders) => return Err(refused(400, "too many headers")),
        Err(_) => return Err(refused(400, "bad header")),
    }
    let method = parsed.method.unwrap_or_default();
    let target = parsed.path.unwrap_or_default();
    let is_old = parsed.version == Some(0);
    if method.len() > METHOD_MAX || method == "CONNECT" {
        return Err(refused(400, "bad method"));
    }
    let is_long = |h: &httparse::Header<'_>| h.name.len() > NAME_MAX || h.value.len() > VALUE_MAX;
    if parsed.headers.iter().any(is_long) {
        return Err(refused(400, "header too long"));
    }
    let head = locate(bytes, parsed.headers);
    let (target, authority) = split_target(method, target)?;
    let host = host(&head, authority)?;
    let framing = request_framing(&head, is_old)?;
    let connection = connection(&head);
    let upgrade = upgrade(&head, &connection, is_old)?;
    let expect = expect(&head, is_old)?;
    Ok(Request {
        head,
        method: SmolStr::new(method),
        target,
        is_old,
        host,
        framing,
        connection,
        upgrade,
        expect,
    })
}

/// Origin form, and the authority of an absolute one. Source: RFC 9112 section 3.2.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(SmolStr, Option<&'a str>), Refused> {
    const BAD: Refused = refused(400, "bad target");
    if target.starts_with('/') {
        return Ok((SmolStr::new(target), None));
    }
    if target == "*" {
        return if method == "OPTIONS" {
            Ok((SmolStr::new(target), None))
        } else {
            Err(BAD)
        };
    }
    let (scheme, rest) = target.split_once("://").ok_or(BAD)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(BAD);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path {
        // What a proxy was asked about a server as a whole.
        "" if method == "OPTIONS" => SmolStr::new_static("*"),
        path if path.starts_with('/') => SmolStr::new(path),
        path => smol_str::format_smolstr!("/{path}"),
    };
    Ok((path, Some(authority)))
}

/// Exactly one `Host`, in any version; the absolute target's authority wins over it.
fn host(head: &Head, authority: Option<&str>) -> Result<SmolStr, Refused> {
    const BAD: Refused = refused(400, "bad host");
    let mut values = head.values(Name::Host);
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(BAD);
    };
    let sent = std::str::from_utf8(value).map_err(|_| BAD)?;
    // The empty one belongs to targets that have no authority: ours have one.
    if !is_host(sent) || authority.is_some_and(|authority| !is_host(authority)) {
        return Err(BAD);
    }
    Ok(SmolStr::new(authority.unwrap_or(sent)))
}

/// `name`, `name:port`, `[address]`, `[address]:port`. Source: RFC 3986 section 3.2, less what no
/// host of ours has (user names, percent signs).
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
                "v6",
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            ),
            _ => return false,
        },
        None => match memchr::memchr(b':', host.as_bytes()) {
            Some(colon) => (&host[..colon], Some(&host[colon + 1..])),
            None => (host, Some("")),
        },
    };
    let is_port = |p: &str| p.bytes().all(|b| b.is_ascii_digit()) && p.len() <= 5;
    !name.is_empty()
        && is_all(&HOST, name.as_bytes())
        && port.is_some_and(|p| is_port(p) && (p.is_empty() || p.parse::<u16>().is_ok()))
}

/// `Content-Length`, if it is one number; identical repeats count once.
fn length(head: &Head) -> Result<Option<u64>, ()> {
    let mut found = None;
    for value in head.values(Name::ContentLength) {
        if value.is_empty() || value.len() > 19 {
            return Err(());
        }
        let mut number: u64 = 0;
        for byte in value {
            if !byte.is_ascii_digit() {
                return Err(());
            }
            // Nineteen digits fit.
            number = number * 10 + u64::from(byte - b'0');
        }
        if found.is_some_and(|other| other != number) {
            return Err(());
        }
        found = Some(number);
    }
    Ok(found)
}

/// True: the one coding is `chunked`. False: there is none.
fn chunked(head: &Head) -> Result<bool, ()> {
    let mut values = head.values(Name::TransferEncoding);
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

/// The members of a list, without the empty ones.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_space = |b: &u8| *b == b' ' || *b == b'\t';
    value
        .split(|b| *b == b',')
        .map(move |token| {
            let start = token.iter().position(|b| !is_space(b));
            let end = token.iter().rposition(|b| !is_space(b));
            match (start, end) {
                (Some(start), Some(end)) => &token[start..=end],
                _ => &[],
            }
        })
        .filter(|token| !token.is_empty())
}

fn connection(head: &Head) -> Connection {
    let mut connection = Connection::default();
    for token in head.values(Name::Connection).flat_map(tokens) {
        if token.eq_ignore_ascii_case(b"close") {
            connection.is_close = true;
        } else if token.eq_ignore_ascii_case(b"keep-alive") {
            connection.is_keep_alive = true;
        } else if token.eq_ignore_ascii_case(b"upgrade") {
            connection.is_upgrade = true;
        } else {
            connection.named.push(text(token).to_ascii_lowercase());
        }
    }
    connection
}

fn upgrade(head: &Head, connection: &Connection, is_old: bool) -> Result<Option<String>, Refused> {
    if !connection.is_upgrade {
        return Ok(None);
    }
    let asked: Vec<String> = head.values(Name::Upgrade).map(text).collect();
    let asked = asked.join(", ");
    let lower = asked.to_ascii_lowercase();
    let protocols: Vec<&[u8]> = tokens(lower.as_bytes()).collect();
    if protocols.is_empty() {
        return Err(refused(400, "upgrade without Upgrade"));
    }
    // `name` or `name/version`.
    let is_protocol = |p: &&[u8]| p.splitn(2, |b| *b == b'/').all(is_token);
    if !protocols.iter().all(is_protocol) {
        return Err(refused(400, "bad upgrade"));
    }
    // HTTP in another version would hide requests from the router. HTTP/1.0 has no upgrades.
    // Source: RFC 9110 section 7.8.
    let is_http =
        |p: &&[u8]| p.starts_with(b"h2") || p.starts_with(b"h3") || p.starts_with(b"http");
    Ok((!is_old && !protocols.iter().any(is_http)).then_some(asked))
}

/// Source: RFC 9110 section 10.1.1; an expectation that is no token is unreadable (400), another
/// than the one there is cannot be met (417).
fn expect(head: &Head, is_old: bool) -> Result<Expect, Refused> {
    let mut expect = Expect::Nothing;
    if is_old {
        return Ok(expect);
    }
    for token in head.values(Name::Expect).flat_map(tokens) {
        if token.eq_ignore_ascii_case(b"100-continue") {
            if expect == Expect::Nothing {
                expect = Expect::Continue;
            }
        } else if token.contains(&b' ') || token.contains(&b'\t') {
            return Err(refused(400, "bad header"));
        } else {
            expect = Expect::Other;
        }
    }
    Ok(expect)
}

/// What a refused head still tells for certain.
#[derive(Debug)]
pub(super) struct Glimpse {
    pub(super) head: Head,
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: SmolStr,
}

/// Whose request a refused head was, if it has a first line and one good host.
pub(super) fn glimpse(bytes: &Bytes) -> Option<Glimpse> {
    request_line(bytes).ok()?;
    let mut space = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut space);
    // A line that cannot be read ends the reading: what came before it has been found.
    let _ = parsed.parse(bytes);
    let (method, target) = (parsed.method?.to_owned(), parsed.path?.to_owned());
    let whole = parsed.headers.iter().take_while(|h| !h.name.is_empty());
    let headers: Vec<_> = whole.copied().collect();
    let head = locate(bytes, &headers);
    let host = host(&head, None).ok()?;
    Some(Glimpse {
        head,
        method,
        target,
        host,
    })
}

/// Parses a whole answer head. `is_head`: the request's method was HEAD.
///
/// # Errors
/// Status 502 with the cause H25 names, or an empty cause where the answer is no HTTP (H17).
pub(super) fn response(bytes: &Bytes, is_head: bool) -> Result<Response, Refused> {
    const GARBAGE: Refused = refused(502, "");
    status_line(bytes)?;
    let line = memchr::memchr(b'\r', bytes).unwrap_or(0);
    let mut config = httparse::ParserConfig::default();
    // Source: RFC 9112 section 5.1: a proxy removes that space from answers.
    config.allow_spaces_after_header_name_in_responses(true);
    let mut few = [const { MaybeUninit::uninit() }; FEW];
    let mut more = Vec::new();
    let mut parsed = httparse::Response::new(&mut []);
    let mut done = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut few);
    if done == Err(httparse::Error::TooManyHeaders) {
        more.resize(HEADERS_MAX, MaybeUninit::uninit());
        parsed = httparse::Response::new(&mut []);
        done = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut more);
    }
    if !matches!(done, Ok(httparse::Status::Complete(_))) {
        return Err(GARBAGE);
    }
    let status = parsed.code.filter(|code| *code >= 100).ok_or(GARBAGE)?;
    let is_old = parsed.version == Some(0);
    // httparse blanks a reason with bytes above 127: take it from the line itself.
    let reason = (line >= 13).then_some(13..line);
    if reason
        .clone()
        .is_some_and(|reason| !is_plain(&bytes[reason]))
    {
        return Err(GARBAGE);
    }
    let head = locate(bytes, parsed.headers);
    for line in head.lines() {
        if line.name.len() + line.value.len() > RESPONSE_LINE_MAX {
            return Err(refused(502, "oversized header"));
        }
        if line.known == Name::SetCookie && line.value.len() > COOKIE_MAX {
            return Err(refused(502, "oversized cookie"));
        }
    }
    let connection = connection(&head);
    let (told, mut is_doubtful) = response_framing(&head, is_old)?;
    let framing = if is_head || matches!(status, 100..=199 | 204 | 304) {
        // Whoever believes that a body follows may send one.
        is_doubtful = status == 204 && matches!(told, Framing::Length(1..) | Framing::Chunked);
        Framing::None
    } else {
        told
    };
    Ok(Response {
        head,
        status,
        reason,
        is_old,
        framing,
        connection,
        told,
        is_doubtful,
    })
}

/// What the headers say, and whether some other reader might see the end elsewhere: then the
/// connection serves nobody else.
fn response_framing(head: &Head, is_old: bool) -> Result<(Framing, bool), Refused> {
    let is_chunked = chunked(head).map_err(|()| refused(502, ""))?;
    match (is_chunked, length(head)) {
        // Chunks win over whatever length. Source: RFC 9112 sections 6.1 and 6.3.
        (true, length) => Ok((Framing::Chunked, is_old || length != Ok(None))),
        (false, Err(())) => Err(refused(502, "invalid content length")),
        (false, Ok(Some(length))) => Ok((Framing::Length(length), false)),
        (false, Ok(None)) => Ok((Framing::UntilClose, true)),
    }
}

#[cfg(test)]
mod tests;
