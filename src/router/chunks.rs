//! Chunked bodies, decoded strictly. Source: RFC 9112 section 7.1.

use bytes::{Buf as _, BytesMut};

/// Longest size line with its extensions (which are dropped), in bytes.
const LINE_MAX: usize = 4096;

/// Largest trailer section in bytes.
const TRAILERS_MAX: usize = 64 * 1024;

/// Trailers that would change framing or routing: dropped.
const FORBIDDEN: [&str; 9] = [
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
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
    Trailers,
    Done,
}

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { state: State::Size }
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
                    let size = size(&line)?;
                    self.state = if size == 0 {
                        State::Trailers
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
                State::Trailers => return self.trailers(buffer),
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

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Step, BadChunk> {
        let end = if buffer.starts_with(b"\r\n") {
            2
        } else {
            if buffer.len() < 2 && b"\r\n".starts_with(buffer) {
                return Ok(Step::More);
            }
            match super::head::end_of_head(buffer, 0) {
                Ok(Some(end)) => end,
                Ok(None) if buffer.len() <= TRAILERS_MAX => return Ok(Step::More),
                _ => return Err(BadChunk),
            }
        };
        let section = buffer.split_to(end);
        self.state = State::Done;
        let mut space = [httparse::EMPTY_HEADER; 64];
        let Ok(httparse::Status::Complete((_, headers))) =
            httparse::parse_headers(&section, &mut space)
        else {
            return Err(BadChunk);
        };
        let mut out = Vec::new();
        for header in headers {
            let is_forbidden = FORBIDDEN
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

fn size(line: &[u8]) -> Result<u64, BadChunk> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    let rest_is_extension = matches!(rest.first(), None | Some(b';' | b' ' | b'\t'));
    let has_control = rest.iter().any(|b| *b < 0x20 && *b != b'\t');
    if digits == 0 || digits > 15 || !rest_is_extension || has_control {
        return Err(BadChunk);
    }
    // White space may stand before an extension only.
    let trimmed = rest.trim_ascii_start();
    if !rest.is_empty() && trimmed.first() != Some(&b';') {
        return Err(BadChunk);
    }
    std::str::from_utf8(number)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(BadChunk)
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
        ] {
            assert_eq!(
                decode(&[bad]),
                Err(BadChunk),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
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
