//! What must hold for the parsers whatever bytes come. The fuzz targets under `fuzz/` search for
//! bytes that break it; the tests here replay the corpus they have gathered.

#![cfg_attr(
    test,
    expect(unreachable_pub, reason = "public in the package of the fuzz targets")
)]

use std::time::{Duration, UNIX_EPOCH};

use bytes::{Buf as _, Bytes, BytesMut};

use super::chunks::{BadChunk, Decoder, Step};
use super::head::{self, Framing};
use super::headers::{self, Context};

/// The end of a head, in two reads that part in the middle as in one.
fn end(bytes: &[u8]) -> Option<usize> {
    let whole = head::end_of_head(bytes, 0);
    let cut = bytes.len() / 2;
    match head::end_of_head(&bytes[..cut], 0) {
        Ok(None) => assert_eq!(head::end_of_head(bytes, cut), whole, "two reads"),
        first => assert_eq!(first, whole, "a longer read"),
    }
    whole.ok().flatten()
}

/// Name (lower case) and value of every line of a head we wrote; the first line apart. Nothing in
/// it can be read in two ways.
fn lines(written: &[u8]) -> (String, Vec<(String, String)>) {
    let text: String = written.iter().copied().map(char::from).collect();
    let head = text
        .strip_suffix("\r\n\r\n")
        .expect("an empty line ends it");
    let mut lines = head.split("\r\n");
    let first = lines.next().expect("a first line").to_owned();
    let bad = |c: char| c == '\r' || c == '\n' || c == '\0';
    assert!(!first.contains(bad), "{first:?}");
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a colon");
        assert!(!name.is_empty() && !value.contains(bad), "{line:?}");
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        assert!(name.bytes().all(is_token), "{line:?}");
        (name.to_ascii_lowercase(), value.to_owned())
    };
    (first, lines.map(field).collect())
}

fn values<'a>(lines: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let found = lines.iter().filter(|(n, _)| n == name);
    found.map(|(_, value)| value.as_str()).collect()
}

/// Any request: refused, or passed on so that one reading is left.
pub fn request_head(bytes: &[u8]) {
    let Some(end) = end(bytes) else { return };
    let Ok(request) = head::request(&Bytes::copy_from_slice(&bytes[..end])) else {
        return;
    };
    let forwarded_for = headers::forwarded_for(&request.head, &"192.0.2.1".into());
    let context = Context {
        request_id: &headers::request_id(&request.head),
        forwarded_for: &forwarded_for,
        port: 80,
        peer_port: Some(1),
        scheme: "http",
        arrived: UNIX_EPOCH,
        connect: Duration::ZERO,
        route: Duration::ZERO,
        queue: Duration::ZERO,
        crowd: None,
        is_continue_passed: false,
        is_last: false,
        version: "1.1",
    };
    let mut written = BytesMut::new();
    headers::to_dyno(&mut written, &request, context);
    let (line, fields) = lines(&written);
    let target: String = request.target.bytes().map(char::from).collect();
    assert_eq!(line, format!("{} {target} HTTP/1.1", request.method));
    for name in [
        "host",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-forwarded-peer-port",
        "x-request-start",
        "via",
    ] {
        assert_eq!(values(&fields, name).len(), 1, "{name} in {fields:?}");
    }
    assert_eq!(values(&fields, "host"), [request.host.as_str()]);
    let coding = values(&fields, "transfer-encoding");
    let length = values(&fields, "content-length");
    match request.framing {
        Framing::None => assert!(coding.is_empty() && length.iter().all(|l| *l == "0")),
        Framing::Length(count) => {
            assert_eq!(
                (length, coding.len()),
                (vec![count.to_string().as_str()], 0)
            );
        }
        Framing::Chunked => assert_eq!((length.len(), coding), (0, vec!["chunked"])),
        Framing::UntilClose => unreachable!("no request ends by a close"),
    }
    for name in ["te", "keep-alive", "proxy-connection", "proxy"] {
        let rest = values(&fields, name);
        assert!(
            rest.is_empty() || (name == "te" && rest == ["trailers"]),
            "{name}"
        );
    }
    let is_upgrade = request.upgrade.is_some();
    assert_eq!(!values(&fields, "upgrade").is_empty(), is_upgrade);
    assert!(
        !values(&fields, "upgrade")
            .iter()
            .any(|u| u.starts_with("h2"))
    );
}

/// Any answer, to a request of any method: refused, or passed on so that one reading is left.
pub fn response_head(bytes: &[u8]) {
    let Some(end) = end(bytes) else { return };
    for is_head in [false, true] {
        let Ok(answer) = head::response(&Bytes::copy_from_slice(&bytes[..end]), is_head) else {
            continue;
        };
        assert!((100..=999).contains(&answer.status));
        let (line, _) = lines(&headers::interim(&answer, false));
        assert!(line.starts_with(&format!("HTTP/1.1 {} ", answer.status)));
        let framing = answer.framing;
        let mut written = BytesMut::new();
        headers::to_client(&mut written, &answer, framing, true, "1.1");
        let (_, fields) = lines(&written);
        let coding = values(&fields, "transfer-encoding").len();
        let length = values(&fields, "content-length").len();
        let expected = match framing {
            Framing::Length(_) => (1, 0),
            Framing::Chunked => (0, 1),
            Framing::UntilClose => (0, 0),
            // HEAD and 304 may tell what they do not send: one way or the other.
            Framing::None => {
                assert!(length + coding <= 1, "{fields:?}");
                (length, coding)
            }
        };
        assert_eq!((length, coding), expected, "{fields:?}");
        // Only an answer that asks for it keeps its offer.
        let asks = answer.status == 426 && !values(&fields, "upgrade").is_empty();
        assert!(asks || values(&fields, "upgrade").is_empty());
        let connection = if asks {
            "keep-alive, Upgrade"
        } else {
            "keep-alive"
        };
        assert_eq!(values(&fields, "connection"), [connection]);
    }
}

type Decoded = Result<Option<(Vec<u8>, Vec<u8>, Vec<u8>)>, BadChunk>;

/// Data, trailers, and what is left, if the end is in the pieces.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new();
    let (mut buffer, mut data) = (BytesMut::new(), Vec::new());
    let mut end = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while end.is_none() {
            match decoder.step(&mut buffer)? {
                Step::Data(count) => {
                    assert!(count > 0, "progress");
                    data.extend_from_slice(&buffer[..count]);
                    buffer.advance(count);
                    decoder.taken(count);
                }
                Step::More => break,
                Step::End(trailers) => end = Some(trailers),
            }
        }
    }
    Ok(end.map(|trailers| (data, trailers, buffer.to_vec())))
}

/// Any chunked body: read the same however it is cut, and the same again as we would write it.
pub fn chunks(bytes: &[u8]) {
    let whole = decode(std::iter::once(bytes));
    assert_eq!(decode(bytes.chunks(1)), whole, "byte by byte");
    let (front, back) = bytes.split_at(bytes.len() / 2);
    assert_eq!(decode([front, back].into_iter()), whole, "in halves");
    let Ok(Some((data, trailers, _))) = whole else {
        return;
    };
    let mut again = format!("{:x}\r\n", data.len()).into_bytes();
    again.extend_from_slice(&data);
    let last: &[u8] = if data.is_empty() { b"" } else { b"\r\n0\r\n" };
    again.extend_from_slice(last);
    again.extend_from_slice(&trailers);
    again.extend_from_slice(b"\r\n");
    let again = decode(std::iter::once(again.as_slice()));
    assert_eq!(
        again,
        Ok(Some((data, trailers, Vec::new()))),
        "written anew"
    );
}

/// Checks all that a target has gathered.
#[cfg(test)]
pub(super) fn replay(target: &str, check: fn(&[u8])) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let entries = std::fs::read_dir(&dir).expect("the corpus lies in the repository");
    let mut count = 0;
    for entry in entries.flatten() {
        check(&std::fs::read(entry.path()).expect("a file"));
        count += 1;
    }
    assert!(count > 5, "{} has {count} inputs", dir.display());
}

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn the_gathered_requests_still_hold() {
        replay("request_head", super::request_head);
    }

    #[test]
    fn the_gathered_answers_still_hold() {
        replay("response_head", super::response_head);
    }

    #[test]
    fn the_gathered_chunks_still_hold() {
        replay("chunks", super::chunks);
    }
}
