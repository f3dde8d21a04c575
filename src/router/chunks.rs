//! Chunked bodies, decoded strictly. Source: RFC 9112 section 7.1.

use bytes::{Buf as _, BytesMut};

use super::head;
use super::name::Name;

/// Longest size line with its extensions (which are dropped), in bytes.
const LINE_MAX: usize = 4096;

/// All extensions of a body together, in bytes: one must not pay for a byte with a line of them.
const EXTENSIONS_MAX: usize = 64 * 1024;

/// Largest trailer section in bytes. It has no more lines than a head may have.
const TRAILERS_MAX: usize = 64 * 1024;

/// Trailers that would change what was decided by the head: dropped, as is every name that the router
/// looks at or sets itself. Source: RFC 9110 section 6.5.1.
const FORBIDDEN: [&str; 14] = [
    "content-encoding",
    "content-type",
    "content-range",
    "trailer",
    "authorization",
    "proxy-authenticate",
    "www-authenticate",
    "cache-control",
    "range",
    "age",
    "expires",
    "date",
    "location",
    "vary",
];

/// What the decoder found at the start of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes of data lie at the start of the buffer: take at most these.
    Data(usize),
    /// Nothing to hand out before more bytes come.
    More,
    /// The end; the trailers as to be sent on (`Name: value\r\n`…).
    End(Vec<u8>),
}

/// The bytes are no chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    /// So many bytes of them hold no end.
    Trailers(usize),
    Done,
}

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            state: State::Size,
            extensions: 0,
        }
    }

    /// Advances over framing at the start of `buffer`, which is consumed. Data is not: the caller
    /// takes it and says so with [`Decoder::taken`].
    pub(super) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, BadChunk> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = line(buffer, LINE_MAX)? else {
                        return Ok(Step::More);
                    };
                    let (size, extension) = size(&line)?;
                    self.extensions += extension;
                    if self.extensions > EXTENSIONS_MAX {
                        return Err(BadChunk);
                    }
                    self.state = if size == 0 {
                        State::Trailers(0)
                    } else {
                        State::Data(size)
                    };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::More);
                    }
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    return Ok(Step::Data(left.min(buffer.len())));
                }
                State::DataEnd => match (buffer.first(), buffer.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        buffer.advance(2);
                        self.state = State::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Step::More),
                    _ => return Err(BadChunk),
                },
                State::Trailers(looked) => return self.trailers(buffer, looked),
                State::Done => return Ok(Step::End(Vec::new())),
            }
        }
    }

    /// So many bytes of data were taken out of the buffer.
    pub(super) fn taken(&mut self, count: usize) {
        if let State::Data(left) = &mut self.state {
            *left -= count as u64;
            if *left == 0 {
                self.state = State::DataEnd;
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut, looked: usize) -> Result<Step, BadChunk> {
        let end = if buffer.starts_with(b"\r\n") {
            2
        } else {
            if buffer.len() < 2 && b"\r\n".starts_with(buffer) {
                return Ok(Step::More);
            }
            match head::end_of_head(buffer, looked) {
                Ok(Some(end)) if end <= TRAILERS_MAX => end,
                Ok(None) if buffer.len() < TRAILERS_MAX => {
                    self.state = State::Trailers(buffer.len());
                    return Ok(Step::More);
                }
                _ => return Err(BadChunk),
            }
        };
        let section = buffer.split_to(end);
        self.state = State::Done;
        // Room for its lines, without the empty one: for as many as a head may have.
        let count = memchr::memchr_iter(b'\n', &section).count() - 1;
        let mut space = vec![httparse::EMPTY_HEADER; count.min(head::HEADERS_MAX)];
        let Ok(httparse::Status::Complete((_, headers))) =
            httparse::parse_headers(&section, &mut space)
        else {
            return Err(BadChunk);
        };
        let mut out = Vec::new();
        for header in headers {
            if !head::is_plain(header.value) {
                return Err(BadChunk);
            }
            let is_forbidden = Name::of(header.name.as_bytes()) != Name::Other
                || FORBIDDEN
                    .iter()
                    .any(|f| header.name.eq_ignore_ascii_case(f))
                || header.name.to_ascii_lowercase().starts_with("x-forwarded-");
            if !is_forbidden {
                out.extend_from_slice(header.name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(header.value);
                out.extend_from_slice(b"\r\n");
            }
        }
        Ok(Step::End(out))
    }
}

/// Takes a line off the buffer, without its CRLF; `None` if it is not all there.
fn line(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, BadChunk> {
    let Some(end) = buffer.iter().position(|b| *b == b'\n') else {
        let has_cr_inside = buffer.iter().rev().skip(1).any(|b| *b == b'\r');
        return if buffer.len() > max || has_cr_inside {
            Err(BadChunk)
        } else {
            Ok(None)
        };
    };
    if end == 0 || end > max || buffer[end - 1] != b'\r' || buffer[..end - 1].contains(&b'\r') {
        return Err(BadChunk);
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

/// The size a line tells, and the length of its extensions. White space may stand before an
/// extension only.
fn size(line: &[u8]) -> Result<(u64, usize), BadChunk> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    let is_bad = |b: &u8| (*b < 0x20 && *b != b'\t') || *b == 0x7f;
    let extension = rest.iter().find(|b| **b != b' ' && **b != b'\t');
    let is_extension = rest.is_empty() || extension == Some(&b';');
    // Zeros in front count for nothing; 15 digits are more bytes than there are.
    let zeros = number.iter().take_while(|b| **b == b'0').count();
    if digits == 0 || digits - zeros > 15 || !is_extension || rest.iter().any(is_bad) {
        return Err(BadChunk);
    }
    let number = std::str::from_utf8(number).map_err(|_| BadChunk)?;
    let size = u64::from_str_radix(number, 16).map_err(|_| BadChunk)?;
    Ok((size, rest.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// Feeds pieces; the data, the trailers and what is left behind the end.
    fn decode(pieces: &[&[u8]]) -> Result<Option<Parts>, BadChunk> {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::new();
        let mut data = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.step(&mut buffer)? {
                    Step::Data(count) => {
                        data.extend_from_slice(&buffer.split_to(count));
                        decoder.taken(count);
                    }
                    Step::More => break,
                    Step::End(trailers) => return Ok(Some((data, trailers, buffer.to_vec()))),
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn bodies_end_exactly_where_they_end() {
        let body =
            b"5;ext=1\r\nhello\r\n00A\r\n0123456789\r\n000\r\nX-Sum: 1\r\nHost: evil\r\n\r\nGET";
        let (data, trailers, rest) = decode(&[body]).expect("good").expect("whole");
        assert_eq!(data, b"hello0123456789");
        assert_eq!(trailers, b"X-Sum: 1\r\n");
        assert_eq!(rest, b"GET");
    }

    #[test]
    fn trailers_that_the_head_has_decided_about_are_dropped() {
        for name in FORBIDDEN.into_iter().chain([
            "Content-Length",
            "transfer-encoding",
            "SET-COOKIE",
            "X-Forwarded-Host",
            "X_Forwarded_For",
            "X-Heroku-Queue-Wait-Time",
            "X-Heroku-Dynos-In-Use",
            "Connect-Time",
            "Total-Route-Time",
            "X-Request-Start",
            "Proxy",
        ]) {
            let body = format!("0\r\n{name}: 1\r\nGrpc-Status: 0\r\n\r\n");
            let (_, trailers, _) = decode(&[body.as_bytes()]).expect("good").expect("whole");
            assert_eq!(trailers, b"Grpc-Status: 0\r\n", "{name}");
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bad in [
            &b"0x5\r\nhello\r\n0\r\n\r\n"[..],
            b"-5\r\nhello\r\n0\r\n\r\n",
            b"\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rX\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5 5\r\nhello\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\nbad line\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: y\r\n z\r\n\r\n",
            b"0\r\nX: y\nZ: z\r\n\r\n",
            b"0\r\nX: a\x00b\r\n\r\n",
            b"0\n\n",
            b"0\r\n\n",
            b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"5h\r\nhello\r\n0\r\n\r\n",
            b"5,\r\nhello\r\n0\r\n\r\n",
            b"5\x00\r\nhello\r\n0\r\n\r\n",
            b"5;a=\x01\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5\r\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"5\r\nhell\r\n0\r\n\r\n",
            b"8000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000000000000\r\n",
        ] {
            assert_eq!(
                decode(&[bad]),
                Err(BadChunk),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn what_costs_more_than_it_carries_has_a_bound() {
        let zeros = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(100));
        assert!(decode(&[zeros.as_bytes()]).is_ok_and(|d| d.is_some()));
        let line = format!("1;{}\r\n", "x".repeat(LINE_MAX));
        assert_eq!(decode(&[line.as_bytes()]), Err(BadChunk));
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(1000));
        let many = chunk.repeat(EXTENSIONS_MAX / 1000 + 1);
        assert_eq!(decode(&[many.as_bytes()]), Err(BadChunk));
        let endless = format!("0\r\nX: {}", "y".repeat(TRAILERS_MAX));
        assert_eq!(decode(&[endless.as_bytes()]), Err(BadChunk));
        let whole = format!("{endless}\r\n\r\n");
        assert_eq!(decode(&[whole.as_bytes()]), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn the_reading_does_not_depend_on_the_pieces(cuts in proptest::collection::vec(0usize..60, 0..6)) {
            let body: &[u8] = b"5\r\nhello\r\n1F;x=\"y\"\r\n0123456789012345678901234567890\r\n0\r\nA: b\r\n\r\n";
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(body.len())).collect();
            cuts.sort_unstable();
            cuts.push(body.len());
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(&body[from..cut]);
                from = cut;
            }
            let (data, trailers, rest) = decode(&pieces).expect("good").expect("whole");
            prop_assert_eq!(data, b"hello0123456789012345678901234567890");
            prop_assert_eq!(trailers, b"A: b\r\n");
            prop_assert!(rest.is_empty());
        }
    }
}
