//! HTTP/2 frame by frame, as h2spec checks it: what breaks RFC 9113 or RFC 7541 is answered with
//! the right error, and floods are bounded.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use manifold::settings::Timings;
use rustls::ClientConfig;

use crate::host::Host;
use crate::tls::{Tls, client, connect, with_tls};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

// Error codes. Source: RFC 9113 section 7.
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const REFUSED: u32 = 7;
const COMPRESSION: u32 = 9;
const CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut bytes = vec![size[1], size[2], size[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field, written out (HPACK's literal without indexing).
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short");
    let mut bytes = vec![0, length(name)];
    bytes.extend(name.as_bytes());
    bytes.push(length(value));
    bytes.extend(value.as_bytes());
    bytes
}

fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":path", "/"),
    (":authority", "odd.localhost"),
];

const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/echo"),
    (":authority", "odd.localhost"),
];

fn with(head: [(&'static str, &'static str); 4], more: &[(&'static str, &'static str)]) -> Vec<u8> {
    let mut all = head.to_vec();
    all.extend(more);
    fields(&all)
}

/// A whole request without a body.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(&GET))
}

/// A request whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(&POST))
}

fn ask(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

fn join(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

struct Raw {
    tls: Tls,
    buffer: Vec<u8>,
}

impl Raw {
    fn open(host: &Host, config: &Arc<ClientConfig>) -> Self {
        let tls = connect(host, config, "odd.localhost").expect("trusted");
        Self {
            tls,
            buffer: Vec::new(),
        }
    }

    /// Past the preface and the settings of both.
    fn start(host: &Host, config: &Arc<ClientConfig>) -> Self {
        let mut raw = Self::open(host, config);
        raw.send(PREFACE);
        raw.send(&frame(SETTINGS, 0, 0, &[]));
        let mut is_acknowledged = false;
        let mut has_settings = false;
        while !(is_acknowledged && has_settings) {
            let frame = raw.next().expect("settings");
            if frame.kind == SETTINGS {
                is_acknowledged |= frame.flags & ACK != 0;
                has_settings |= frame.flags & ACK == 0;
            }
        }
        raw.send(&frame(SETTINGS, ACK, 0, &[]));
        raw
    }

    /// The other side may have closed: then the answer says so.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).and_then(|()| self.tls.flush());
    }

    /// The next frame; `None`: the connection is closed.
    fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, d, e, f, g, ..] = self.buffer[..] {
                let size = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if self.buffer.len() >= 9 + size {
                    let payload = self.buffer[9..9 + size].to_vec();
                    self.buffer.drain(..9 + size);
                    let stream = u32::from_be_bytes([d & 127, e, f, g]);
                    return Some(Frame {
                        kind,
                        flags,
                        stream,
                        payload,
                    });
                }
            }
            let mut more = [0; 16 * 1024];
            match self.tls.read(&mut more) {
                Ok(count @ 1..) => self.buffer.extend(&more[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("no answer in time");
                }
                _ => return None,
            }
        }
    }

    /// What the next DATA frame has.
    fn data(&mut self) -> Vec<u8> {
        loop {
            let frame = self.next().expect("open");
            assert!(!matches!(frame.kind, GOAWAY | RST), "an error");
            if frame.kind == DATA {
                return frame.payload;
            }
        }
    }

    /// The first error, or answer, or end.
    fn outcome(&mut self) -> Outcome {
        while let Some(frame) = self.next() {
            let code = |at: usize| {
                let bytes = frame
                    .payload
                    .get(at..at + 4)
                    .and_then(|b| b.try_into().ok());
                bytes.map_or(0, u32::from_be_bytes)
            };
            match frame.kind {
                RST => return Outcome::Stream(code(0)),
                GOAWAY => return Outcome::Connection(code(4)),
                HEADERS => return Outcome::Answer(frame.payload.first().copied().unwrap_or(0)),
                PING if frame.flags & ACK != 0 => return Outcome::Pong,
                _ => {}
            }
        }
        Outcome::End
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stream(u32),
    Connection(u32),
    /// The first byte of the answer's head: 0x88 is 200.
    Answer(u8),
    Pong,
    End,
}

/// What the RFC wants, and h2spec takes for right.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// GOAWAY with that code.
    Connection(u32),
    /// The same, or a reset of the stream: an error of a stream may be one of the connection.
    /// Source: RFC 9113 section 5.4.1.
    Stream(u32),
    /// A reset of the stream, and the connection stays.
    Reset(u32),
    Answer,
    /// Status 400, or as [`Wanted::Reset`] with `PROTOCOL`.
    Refused,
    Pong,
}

fn is_right(wanted: Wanted, got: Outcome) -> bool {
    match (wanted, got) {
        (Wanted::Answer, Outcome::Answer(0x88))
        | (Wanted::Refused, Outcome::Answer(0x8c) | Outcome::Stream(PROTOCOL))
        | (Wanted::Pong, Outcome::Pong) => true,
        (Wanted::Connection(code) | Wanted::Stream(code), Outcome::Connection(got))
        | (Wanted::Stream(code) | Wanted::Reset(code), Outcome::Stream(got)) => code == got,
        _ => false,
    }
}

/// Section and meaning, what is sent after the settings, and what must come.
fn cases() -> Vec<(&'static str, Vec<u8>, Wanted)> {
    use Wanted::{Answer, Connection, Pong, Refused, Reset, Stream};
    let block = fields(&GET);
    let (first, second) = block.split_at(10);
    let rest = |at: u8| frame(CONTINUATION, at, 1, second);
    let open = frame(HEADERS, END_STREAM, 1, first);
    let setting = |id: u16, value: u32| {
        let mut payload = id.to_be_bytes().to_vec();
        payload.extend(value.to_be_bytes());
        frame(SETTINGS, 0, 0, &payload)
    };
    let window = |stream: u32, by: u32| frame(WINDOW, 0, stream, &by.to_be_bytes());
    let ping = frame(PING, 0, 0, b"12345678");
    let without = |name: &str| {
        let left: Vec<_> = GET
            .into_iter()
            .filter(|(other, _)| *other != name)
            .collect();
        ask(&fields(&left))
    };
    let but = |name: &'static str, value: &'static str| {
        let changed = GET.map(|(n, v)| if n == name { (n, value) } else { (n, v) });
        ask(&fields(&changed))
    };
    let more = |extra: &[(&'static str, &'static str)]| ask(&with(GET, extra));
    let raw = |bytes: &[u8]| ask(&[&fields(&GET)[..], bytes].concat());
    let trailers =
        |name: &str, value: &str| frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(name, value));
    // GET, https and "/", by their numbers.
    let short = |authority: &[u8]| [&[0x82, 0x87, 0x84][..], authority].concat();
    let kept = [&[0x41, 13][..], b"odd.localhost"].concat();
    let cancel = frame(RST, 0, 1, &[0, 0, 0, 8]);
    vec![
        ("2 a request", get(1), Answer),
        (
            "4.1 an unknown frame is ignored",
            join(&[frame(99, 0, 0, b"x"), get(1)]),
            Answer,
        ),
        (
            "4.1 undefined flags are ignored",
            join(&[frame(PING, 0xfe, 0, b"12345678"), ping.clone()]),
            Pong,
        ),
        (
            "4.2 a DATA frame that is too large",
            join(&[post(1), frame(DATA, 0, 1, &[0; 16385])]),
            Stream(SIZE),
        ),
        (
            "4.2 a HEADERS frame that is too large",
            frame(HEADERS, END_HEADERS, 1, &[0; 16385]),
            Connection(SIZE),
        ),
        (
            "4.3 a block that is no HPACK",
            ask(&[0x40]),
            Connection(COMPRESSION),
        ),
        (
            "4.3 PRIORITY inside of a block",
            join(&[open.clone(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 255])]),
            Connection(PROTOCOL),
        ),
        (
            "4.3 another stream inside of a block",
            join(&[open.clone(), get(3)]),
            Connection(PROTOCOL),
        ),
        (
            "5.1 DATA on an idle stream",
            frame(DATA, END_STREAM, 1, b"x"),
            Connection(PROTOCOL),
        ),
        (
            "5.1 RST_STREAM on an idle stream",
            frame(RST, 0, 1, &[0, 0, 0, 8]),
            Connection(PROTOCOL),
        ),
        (
            "5.1 WINDOW_UPDATE on an idle stream",
            window(1, 100),
            Connection(PROTOCOL),
        ),
        (
            "5.1 CONTINUATION on an idle stream",
            rest(END_HEADERS),
            Connection(PROTOCOL),
        ),
        (
            "5.1 DATA on a half-closed stream",
            join(&[get(1), frame(DATA, END_STREAM, 1, b"x")]),
            Connection(CLOSED),
        ),
        (
            "5.1 HEADERS on a half-closed stream",
            join(&[get(1), get(1)]),
            Connection(CLOSED),
        ),
        (
            "5.1 CONTINUATION on a half-closed stream",
            join(&[get(1), rest(END_HEADERS)]),
            Connection(PROTOCOL),
        ),
        (
            "5.1 DATA on a stream that the client has reset",
            join(&[post(1), cancel.clone(), frame(DATA, 0, 1, b"x")]),
            Connection(CLOSED),
        ),
        (
            "5.1 HEADERS on a stream that the client has reset",
            join(&[post(1), cancel.clone(), get(1)]),
            Connection(CLOSED),
        ),
        (
            "5.1 CONTINUATION on a stream that the client has reset",
            join(&[post(1), cancel.clone(), rest(END_HEADERS)]),
            Connection(PROTOCOL),
        ),
        (
            "5.1 a second reset is ignored",
            join(&[post(1), cancel.clone(), cancel, ping.clone()]),
            Pong,
        ),
        (
            "5.1 room on a half-closed stream is no error",
            join(&[get(1), window(1, 1)]),
            Answer,
        ),
        ("5.1.1 an even stream", get(2), Connection(PROTOCOL)),
        (
            "5.1.1 a smaller stream than before",
            join(&[post(5), get(3)]),
            Connection(PROTOCOL),
        ),
        (
            "5.3.1 a stream that depends on itself",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | 0x20,
                1,
                &[&[0, 0, 0, 1, 255][..], &block].concat(),
            ),
            Reset(PROTOCOL),
        ),
        (
            "5.3.1 a PRIORITY of a stream on itself",
            join(&[post(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 255])]),
            Reset(PROTOCOL),
        ),
        (
            "6.3 a PRIORITY on an idle stream",
            join(&[frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 255]), get(1)]),
            Answer,
        ),
        (
            "7 codes that nobody knows",
            join(&[
                post(1),
                frame(RST, 0, 1, &[0, 0, 0, 255]),
                frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 255]),
                ping.clone(),
            ]),
            Pong,
        ),
        (
            "6.10 CONTINUATION behind DATA",
            join(&[post(1), frame(DATA, 0, 1, b"x"), rest(END_HEADERS)]),
            Connection(PROTOCOL),
        ),
        (
            "5.5 an unknown frame inside of a block",
            join(&[open.clone(), frame(99, 0, 0, b"x")]),
            Connection(PROTOCOL),
        ),
        (
            "6.1 DATA on stream 0",
            frame(DATA, 0, 0, b"x"),
            Connection(PROTOCOL),
        ),
        (
            "6.1 padding longer than DATA",
            join(&[post(1), frame(DATA, PADDED, 1, &[9, 1])]),
            Connection(PROTOCOL),
        ),
        (
            "6.2 HEADERS on stream 0",
            frame(HEADERS, END_HEADERS, 0, &block),
            Connection(PROTOCOL),
        ),
        (
            "6.2 padding longer than HEADERS",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 1]),
            Connection(PROTOCOL),
        ),
        (
            "6.3 PRIORITY on stream 0",
            frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 255]),
            Connection(PROTOCOL),
        ),
        (
            "6.3 a PRIORITY of 4 bytes",
            join(&[post(1), frame(PRIORITY, 0, 1, &[0; 4])]),
            Stream(SIZE),
        ),
        (
            "6.4 RST_STREAM on stream 0",
            frame(RST, 0, 0, &[0, 0, 0, 8]),
            Connection(PROTOCOL),
        ),
        (
            "6.4 a RST_STREAM of 3 bytes",
            join(&[post(1), frame(RST, 0, 1, &[0; 3])]),
            Connection(SIZE),
        ),
        (
            "6.5 an acknowledgement with content",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            Connection(SIZE),
        ),
        (
            "6.5 SETTINGS on a stream",
            frame(SETTINGS, 0, 1, &[]),
            Connection(PROTOCOL),
        ),
        (
            "6.5 SETTINGS of 5 bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            Connection(SIZE),
        ),
        (
            "6.5.2 ENABLE_PUSH of 2",
            setting(2, 2),
            Connection(PROTOCOL),
        ),
        (
            "6.5.2 a window past its most",
            setting(4, 1 << 31),
            Connection(FLOW),
        ),
        (
            "6.5.2 frames below the least",
            setting(5, 16383),
            Connection(PROTOCOL),
        ),
        (
            "6.5.2 frames past the most",
            setting(5, 1 << 24),
            Connection(PROTOCOL),
        ),
        (
            "6.5.2 an unknown setting is ignored",
            join(&[setting(255, 1), ping.clone()]),
            Pong,
        ),
        ("6.7 a PING is answered", ping.clone(), Pong),
        (
            "6.7 an answer to no PING is ignored",
            join(&[frame(PING, ACK, 0, b"invalid!"), ping]),
            Pong,
        ),
        (
            "6.7 a PING on a stream",
            frame(PING, 0, 1, &[0; 8]),
            Connection(PROTOCOL),
        ),
        (
            "6.7 a PING of 6 bytes",
            frame(PING, 0, 0, &[0; 6]),
            Connection(SIZE),
        ),
        (
            "6.8 GOAWAY on a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            Connection(PROTOCOL),
        ),
        ("6.9 no room at all", window(0, 0), Connection(PROTOCOL)),
        (
            "6.9 no room on a stream",
            join(&[post(1), window(1, 0)]),
            Stream(PROTOCOL),
        ),
        (
            "6.9 a WINDOW_UPDATE of 3 bytes",
            frame(WINDOW, 0, 0, &[0; 3]),
            Connection(SIZE),
        ),
        (
            "6.9.1 a window past its most",
            join(&[window(0, (1 << 31) - 1), window(0, (1 << 31) - 1)]),
            Connection(FLOW),
        ),
        (
            "6.9.1 a stream's window past its most",
            join(&[post(1), window(1, (1 << 31) - 1), window(1, (1 << 31) - 1)]),
            Stream(FLOW),
        ),
        (
            "6.10 a block in two frames",
            join(&[open.clone(), rest(END_HEADERS)]),
            Answer,
        ),
        (
            "6.10 CONTINUATION behind the end of a block",
            join(&[open.clone(), rest(END_HEADERS), rest(END_HEADERS)]),
            Connection(PROTOCOL),
        ),
        (
            "6.10 CONTINUATION on stream 0",
            join(&[open, frame(CONTINUATION, END_HEADERS, 0, second)]),
            Connection(PROTOCOL),
        ),
        (
            "8.1 a second head without the end",
            join(&[post(1), frame(HEADERS, END_HEADERS, 1, &field("x", "y"))]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 an upper-case name",
            more(&[("X-Test", "ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a line end in a value",
            more(&[("x-test", "a\r\nhost: b")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a zero in a value",
            more(&[("x-test", "a\0b")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a colon in a name",
            more(&[("x:test", "ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 connection",
            more(&[("connection", "keep-alive")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 keep-alive",
            more(&[("keep-alive", "1")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 proxy-connection",
            more(&[("proxy-connection", "1")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 transfer-encoding",
            more(&[("transfer-encoding", "chunked")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 upgrade",
            more(&[("upgrade", "websocket")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 te of more than trailers",
            more(&[("te", "trailers, deflate")]),
            Reset(PROTOCOL),
        ),
        ("8.2.2 te of trailers", more(&[("te", "trailers")]), Answer),
        (
            "8.3 an unknown pseudo-header",
            more(&[(":test", "ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3 an answer's pseudo-header",
            more(&[(":status", "200")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3 a pseudo-header behind a field",
            ask(&[field("x", "y"), block.clone()].concat()),
            Reset(PROTOCOL),
        ),
        (
            "8.1 a pseudo-header in trailers",
            join(&[post(1), trailers(":method", "GET")]),
            Reset(PROTOCOL),
        ),
        (
            "8.1 an answer's pseudo-header in trailers",
            join(&[post(1), trailers(":status", "200")]),
            Reset(PROTOCOL),
        ),
        (
            "8.1 an unknown pseudo-header in trailers",
            join(&[post(1), trailers(":test", "ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.1 a pseudo-header in trailers behind all of the body",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "4")]),
                ),
                frame(DATA, 0, 1, b"four"),
                trailers(":path", "/"),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a space before a value in trailers",
            join(&[post(1), trailers("x", " y")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a line end in a value in trailers",
            join(&[post(1), trailers("x", "y\r\nz: 1")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 a fragment in the path",
            but(":path", "/fragment#there"),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 a fragment and nothing else",
            but(":path", "/#"),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 two authorities",
            more(&[(":authority", "odd.localhost")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 a path that is no text",
            raw(&[0, 5, b':', b'p', b'a', b't', b'h', 1, 0xff]),
            Reset(PROTOCOL),
        ),
        ("8.3.1 an empty path", but(":path", ""), Reset(PROTOCOL)),
        ("8.3.1 no method", without(":method"), Reset(PROTOCOL)),
        ("8.3.1 no scheme", without(":scheme"), Reset(PROTOCOL)),
        ("8.3.1 no path", without(":path"), Reset(PROTOCOL)),
        (
            "8.3.1 two methods",
            more(&[(":method", "GET")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 two schemes",
            more(&[(":scheme", "https")]),
            Reset(PROTOCOL),
        ),
        ("8.3.1 two paths", more(&[(":path", "/")]), Reset(PROTOCOL)),
        (
            "8.3.1 no host at all",
            without(":authority"),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 a host that says something else",
            more(&[("host", "other.localhost")]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 a host that says the same",
            more(&[("host", "odd.localhost")]),
            Answer,
        ),
        (
            "8.3.1 two hosts",
            more(&[("host", "odd.localhost"), ("host", "odd.localhost")]),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 less than the length says",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "5")]),
                ),
                frame(DATA, END_STREAM, 1, b"four"),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 more than the length says",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "1")]),
                ),
                frame(DATA, END_STREAM, 1, b"four"),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 a length and no body",
            more(&[("content-length", "5")]),
            Reset(PROTOCOL),
        ),
        (
            "8.4 PUSH_PROMISE of a client",
            frame(PUSH, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block].concat()),
            Connection(PROTOCOL),
        ),
        ("4.1 a reserved bit is ignored", get(0x8000_0001), Answer),
        (
            "6.1 padded DATA",
            join(&[
                post(1),
                frame(DATA, PADDED | END_STREAM, 1, &[2, b'h', b'i', 0, 0]),
            ]),
            Answer,
        ),
        (
            "6.2 padded HEADERS with a priority",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED | 0x20,
                1,
                &[&[1, 0, 0, 0, 0, 255][..], &block, &[0]].concat(),
            ),
            Answer,
        ),
        (
            "6.5.2 a window of nothing lets heads pass",
            join(&[setting(4, 0), get(1)]),
            Answer,
        ),
        (
            "6.9.2 settings that push a stream's window past its most",
            join(&[post(1), window(1, (1 << 31) - 1 - 65535), setting(4, 65536)]),
            Connection(FLOW),
        ),
        (
            "6.10 an empty CONTINUATION in between",
            join(&[
                frame(HEADERS, END_STREAM, 1, first),
                frame(CONTINUATION, 0, 1, &[]),
                rest(END_HEADERS),
            ]),
            Answer,
        ),
        ("8.2.1 no name", more(&[("", "x")]), Reset(PROTOCOL)),
        (
            "8.2.1 a space in a name",
            more(&[("x y", "ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a name of other letters",
            more(&[("x\u{e9}", "ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a space before a value",
            more(&[("x-test", " ok")]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.1 a tab behind a value",
            more(&[("x-test", "ok\t")]),
            Reset(PROTOCOL),
        ),
        ("8.2.1 a value of nothing", more(&[("x-test", "")]), Answer),
        (
            "8.3.1 host in the place of the authority",
            ask(&[&fields(&GET[..3])[..], &field("host", "odd.localhost")].concat()),
            Answer,
        ),
        ("8.3.1 a path without its slash", but(":path", "x"), Refused),
        (
            "8.3.1 a whole URI as path",
            but(":path", "http://a/"),
            Refused,
        ),
        ("8.3.1 an asterisk with GET", but(":path", "*"), Refused),
        (
            "8.3.1 an asterisk with OPTIONS",
            ask(&fields(&[
                (":method", "OPTIONS"),
                (":scheme", "https"),
                (":path", "*"),
                (":authority", "odd.localhost"),
            ])),
            Answer,
        ),
        ("8.3.1 a space in a path", but(":path", "/a b"), Refused),
        (
            "8.3.1 a line end in a path",
            but(":path", "/a\r\nb"),
            Refused,
        ),
        ("8.3.1 a zero in a path", but(":path", "/a\0"), Refused),
        ("8.3.1 no word in the method", but(":method", ""), Refused),
        (
            "8.3.1 two words in the method",
            but(":method", "GET /"),
            Refused,
        ),
        (
            "8.3.1 a user in the authority",
            but(":authority", "u@odd.localhost"),
            Refused,
        ),
        (
            "8.3.1 an authority of nothing",
            but(":authority", ""),
            Refused,
        ),
        (
            "8.3.1 a path in the authority",
            but(":authority", "odd.localhost/x"),
            Refused,
        ),
        (
            "8.5 CONNECT with a path",
            but(":method", "CONNECT"),
            Refused,
        ),
        (
            "8.5 CONNECT",
            ask(&fields(&[
                (":method", "CONNECT"),
                (":authority", "odd.localhost:80"),
            ])),
            Refused,
        ),
        (
            "8441 4 a protocol that was not offered",
            ask(&with(
                [
                    (":method", "CONNECT"),
                    (":scheme", "https"),
                    (":path", "/ws"),
                    (":authority", "odd.localhost"),
                ],
                &[(":protocol", "websocket")],
            )),
            Refused,
        ),
        (
            "8.1.1 two lengths",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "4"), ("content-length", "5")]),
                ),
                frame(DATA, END_STREAM, 1, b"four"),
            ]),
            Refused,
        ),
        (
            "8.1.1 a length that is no number",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "+4")]),
                ),
                frame(DATA, END_STREAM, 1, b"four"),
            ]),
            Refused,
        ),
        (
            "8.1.1 the same length twice",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "4"), ("content-length", "4")]),
                ),
                frame(DATA, END_STREAM, 1, b"four"),
            ]),
            Answer,
        ),
        (
            "8.1.1 data where the length is 0",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "0")]),
                ),
                frame(DATA, END_STREAM, 1, b"four"),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8.1.1 a length that grows in the trailers",
            join(&[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &with(POST, &[("content-length", "5")]),
                ),
                frame(DATA, 0, 1, b"four"),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x", "y")),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "4.2 a DATA frame of the greatest size",
            join(&[post(1), frame(DATA, END_STREAM, 1, &[b'x'; 16384])]),
            Answer,
        ),
        (
            "6.1 DATA that is nothing but padding",
            join(&[
                post(1),
                frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat()),
                frame(DATA, END_STREAM, 1, b"x"),
            ]),
            Answer,
        ),
        (
            "6.1 no room for the length of the padding",
            join(&[post(1), frame(DATA, PADDED, 1, &[])]),
            Connection(SIZE),
        ),
        (
            "6.2 no room for a priority",
            frame(HEADERS, END_HEADERS | 0x20, 1, &[0; 4]),
            Connection(SIZE),
        ),
        (
            "6.8 who says goodbye still gets answers",
            join(&[
                post(1),
                frame(GOAWAY, 0, 0, &[0; 8]),
                frame(DATA, END_STREAM, 1, b"x"),
            ]),
            Answer,
        ),
        (
            "6.9.2 a window below nothing is no error",
            join(&[setting(4, 0), setting(4, 65535), get(1)]),
            Answer,
        ),
        (
            "9218 7.1 a new priority is ignored",
            join(&[
                frame(16, 0, 0, &[&[0, 0, 0, 1][..], b"u=1"].concat()),
                get(1),
            ]),
            Answer,
        ),
        (
            "8.1 trailers",
            join(&[
                post(1),
                frame(DATA, 0, 1, b"x"),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x", "y")),
            ]),
            Answer,
        ),
        (
            "8.1 DATA behind trailers",
            join(&[
                post(1),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x", "y")),
                frame(DATA, END_STREAM, 1, b"x"),
            ]),
            Connection(CLOSED),
        ),
        (
            "8.2.1 an upper-case name in trailers",
            join(&[
                post(1),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("X", "y")),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8.2.2 connection in trailers",
            join(&[
                post(1),
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &field("connection", "x"),
                ),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 an authority with its port",
            but(":authority", "odd.localhost:443"),
            Answer,
        ),
        (
            "8.3.1 a port that is none",
            but(":authority", "odd.localhost:x"),
            Refused,
        ),
        (
            "8.3.1 a scheme that is none",
            but(":scheme", "ht tp"),
            Reset(PROTOCOL),
        ),
        (
            "8.3.1 a path that begins with two slashes",
            but(":path", "//evil.test/"),
            Answer,
        ),
        (
            "7541 2.3.3 an index that is not there",
            raw(&[0xff, 0x80, 0x01]),
            Connection(COMPRESSION),
        ),
        ("7541 6.1 index 0", raw(&[0x80]), Connection(COMPRESSION)),
        (
            "7541 4.2 a table size at the end",
            raw(&[0x20]),
            Connection(COMPRESSION),
        ),
        (
            "7541 6.3 a table size past the limit",
            ask(&[&[0x3f, 0xe1, 0xff, 0x03][..], &block].concat()),
            Connection(COMPRESSION),
        ),
        (
            "7541 5.2 a Huffman string with the end in it",
            raw(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a']),
            Connection(COMPRESSION),
        ),
        (
            "7541 5.2 a Huffman string filled up with zeros",
            raw(&[0, 1, b'x', 0x81, 0b0001_1000]),
            Connection(COMPRESSION),
        ),
        (
            "7541 5.2 a Huffman string filled up with a whole byte",
            raw(&[0, 1, b'x', 0x82, 0b0001_1111, 0xff]),
            Connection(COMPRESSION),
        ),
        (
            "7541 5.2 a string longer than its block",
            raw(&[0, 1, b'x', 9, b'y']),
            Connection(COMPRESSION),
        ),
        (
            "7541 5.1 a number of too many bytes",
            raw(&[0, 0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0]),
            Connection(COMPRESSION),
        ),
        (
            "7541 4.2 a table size between two fields",
            raw(&[0x20, 0, 1, b'x', 1, b'y']),
            Connection(COMPRESSION),
        ),
        (
            "7541 4.3 an index that a table size has emptied",
            join(&[
                frame(HEADERS, END_HEADERS, 1, &short(&kept)),
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    3,
                    &[&[0x20, 0x3f, 0xe1, 0x1f][..], &short(&[0xbe])].concat(),
                ),
            ]),
            Connection(COMPRESSION),
        ),
        (
            "7541 4.2 table sizes at the beginning",
            ask(&[&[0x20, 0x3f, 0xe1, 0x1f][..], &short(&kept)].concat()),
            Answer,
        ),
        (
            "7541 6.1 an index of the request before",
            join(&[
                frame(HEADERS, END_HEADERS, 1, &short(&kept)),
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &short(&[0xbe])),
            ]),
            Answer,
        ),
        (
            "7541 2.2 an index of a request that was malformed",
            join(&[
                frame(HEADERS, END_HEADERS, 1, &short(&kept)),
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &[&[0x40, 1, b'x', 1, b'y'][..], &[0x84]].concat(),
                ),
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &short(&[0xbf, 0xbe])),
            ]),
            Reset(PROTOCOL),
        ),
        (
            "7541 6.2.1 a literal that is kept, in Huffman's code",
            ask(&short(
                &[
                    &[0x41, 0x89][..],
                    &[0x3c, 0x92, 0x2f, 0x41, 0xc8, 0x3a, 0x27, 0x3a, 0x13],
                ]
                .concat(),
            )),
            Answer,
        ),
        (
            "7541 6.2.3 a literal that is never kept",
            ask(&short(&[&[0x11, 13][..], b"odd.localhost"].concat())),
            Answer,
        ),
    ]
}

#[test]
fn what_breaks_the_protocol_gets_the_right_error() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let mut faults = Vec::new();
    for (what, bytes, wanted) in cases() {
        let mut raw = Raw::start(&host, &config);
        raw.tls
            .sock
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("set");
        raw.send(&bytes);
        let got = raw.outcome();
        if !is_right(wanted, got) {
            faults.push(format!("{what}: {got:?}, not {wanted:?}"));
        } else if matches!(got, Outcome::Connection(_)) {
            let got = raw.outcome();
            if got != Outcome::End {
                faults.push(format!("behind {what}: {got:?}"));
            }
        } else if matches!(wanted, Wanted::Reset(_)) {
            raw.send(&get(101));
            let got = raw.outcome();
            if got != Outcome::Answer(0x88) {
                faults.push(format!("behind {what}: {got:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    // No preface, and one that is none.
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: odd.localhost\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut raw = Raw::open(&host, &config);
        raw.send(bytes);
        let got = raw.outcome();
        let is_right = matches!(got, Outcome::End | Outcome::Connection(PROTOCOL));
        assert!(is_right, "{got:?}");
    }
    // A preface, and then something else than SETTINGS.
    for first in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, &[])] {
        let mut raw = Raw::open(&host, &config);
        raw.send(&[PREFACE, &first].concat());
        assert_eq!(raw.outcome(), Outcome::Connection(PROTOCOL));
    }
    // A stream that both have ended.
    for late in [frame(DATA, END_STREAM, 1, b"x"), get(1)] {
        let mut raw = Raw::start(&host, &config);
        raw.send(&get(1));
        while raw.next().expect("an answer").flags & END_STREAM == 0 {}
        raw.send(&late);
        assert_eq!(raw.outcome(), Outcome::Connection(CLOSED));
    }
    // Nothing of what is malformed has come to a dyno, or into the app's log.
    let logs = host.logs("odd");
    assert!(!logs.contains("/fragment"), "{logs}");
    // In clear text there is no HTTP/2.
    let reply = host.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(
        reply.starts_with("HTTP/1.1 505 ") || reply.starts_with("HTTP/1.1 400 "),
        "{reply}"
    );
}

/// Source: RFC 9113 sections 6.5.3 and 6.9.2.
#[test]
fn the_last_value_of_a_setting_counts_and_open_windows_follow_it() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let mut raw = Raw::start(&host, &config);
    let window = |sizes: &[u8]| {
        let settings: Vec<u8> = sizes.iter().flat_map(|n| [0, 4, 0, 0, 0, *n]).collect();
        frame(SETTINGS, 0, 0, &settings)
    };
    raw.send(&join(&[window(&[100, 1]), get(1)]));
    assert_eq!(raw.data(), b"h");
    // Below nothing, and back: one byte more than was sent.
    raw.send(&join(&[window(&[0]), window(&[2])]));
    assert_eq!(raw.data(), b"e");
    raw.send(&frame(WINDOW, 0, 1, &[0, 0, 0, 100]));
    assert_eq!(raw.data(), b"llo");
}

#[test]
fn floods_are_told_to_calm_down_and_others_are_served() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let end = |what: &str, flood: &dyn Fn(u32) -> Vec<u8>| {
        let mut raw = Raw::start(&host, &config);
        // Within what anybody may do for no reason, then far past it.
        let bytes: Vec<u8> = (0..5000).flat_map(flood).collect();
        raw.send(&bytes);
        let code = loop {
            match raw.outcome() {
                Outcome::Connection(code) => break code,
                Outcome::End => panic!("{what}: closed without a word"),
                _ => {}
            }
        };
        assert_eq!(code, CALM, "{what}");
    };
    end("PING", &|_| frame(PING, 0, 0, b"12345678"));
    end("SETTINGS", &|_| frame(SETTINGS, 0, 0, &[]));
    end("PRIORITY", &|n| {
        frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 255])
    });
    end("rapid reset", &|n| {
        join(&[get(2 * n + 1), frame(RST, 0, 2 * n + 1, &[0, 0, 0, 8])])
    });
    end("malformed requests", &|n| {
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &[0x82])
    });
    end("CONTINUATION", &|n| match n {
        0 => frame(HEADERS, END_STREAM, 1, &fields(&GET)),
        _ => frame(CONTINUATION, 0, 1, &field("x-more", "of the same")),
    });
    let mut raw = Raw::start(&host, &config);
    raw.send(&get(1));
    assert_eq!(raw.outcome(), Outcome::Answer(0x88));
}

#[test]
fn streams_past_the_limit_are_refused() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let mut raw = Raw::start(&host, &config);
    let streams: Vec<u8> = (0..=100).flat_map(|n| post(2 * n + 1)).collect();
    raw.send(&streams);
    while let Some(frame) = raw.next() {
        if frame.kind == RST {
            assert_eq!(
                (frame.stream, &frame.payload[..]),
                (201, &REFUSED.to_be_bytes()[..])
            );
            return;
        }
        assert_ne!(frame.kind, GOAWAY);
    }
    panic!("closed");
}

#[test]
fn a_head_that_is_too_large_is_refused_and_the_connection_stays() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let mut raw = Raw::start(&host, &config);
    // 700 fields of 100 bytes and more: 64 KiB and more as HPACK counts.
    let value = "y".repeat(100);
    let mut block = fields(&GET);
    for _ in 0..700 {
        block.extend(field("x", &value));
    }
    let mut bytes = frame(HEADERS, END_STREAM, 1, &block[..16_000]);
    let parts: Vec<&[u8]> = block[16_000..].chunks(16_000).collect();
    for (at, part) in parts.iter().enumerate() {
        let flags = if at + 1 == parts.len() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frame(CONTINUATION, flags, 1, part));
    }
    raw.send(&bytes);
    // Nothing of it reaches a dyno. The status is 431, a literal with Huffman's code.
    let mut answer = raw.next().expect("an answer");
    while answer.kind != HEADERS {
        assert!(!matches!(answer.kind, GOAWAY | RST), "an error");
        answer = raw.next().expect("an answer");
    }
    assert_eq!(answer.payload[..5], [0x48, 0x83, 0x69, 0x90, 0xff]);
    raw.send(&get(3));
    assert_eq!(raw.outcome(), Outcome::Answer(0x88));
}

#[test]
fn an_answer_before_the_end_of_the_body_is_whole_and_asks_for_no_more() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let mut raw = Raw::start(&host, &config);
    let head = fields(&POST.map(|(n, v)| (n, if n == ":path" { "/refuse" } else { v })));
    raw.send(&frame(HEADERS, END_HEADERS, 1, &head));
    raw.send(&frame(DATA, 0, 1, b"some"));
    let mut body: Vec<u8> = Vec::new();
    let mut is_whole = false;
    while let Some(frame) = raw.next() {
        match frame.kind {
            DATA => body.extend(&frame.payload),
            // Source: RFC 9113 section 8.1.
            RST => {
                assert!(is_whole, "reset before its end");
                assert_eq!(frame.payload, [0; 4], "NO_ERROR");
                break;
            }
            GOAWAY => panic!("{:?}", frame.payload),
            _ => {}
        }
        is_whole |= matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
    }
    assert_eq!(body, b"too much");
    raw.send(&get(3));
    assert_eq!(raw.outcome(), Outcome::Answer(0x88));
}
