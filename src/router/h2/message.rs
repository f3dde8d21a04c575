//! Between the two ways to write a message's head.

use bytes::{BufMut as _, BytesMut};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection of HTTP/1.1 and mean nothing here.
/// Source: RFC 9113 section 8.2.2.
const HOP: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
];

/// One field as a line.
pub(super) fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// All fields as lines, but those that `is_left_out`. Crumbs of cookies become one again, since
/// HTTP/1.1 knows one only. Source: RFC 9113 section 8.2.3.
pub(super) fn lines(out: &mut BytesMut, fields: &HeaderMap, is_left_out: impl Fn(&str) -> bool) {
    let mut has_cookie = false;
    for (name, value) in fields {
        if is_left_out(name.as_str()) {
            continue;
        }
        if name != "cookie" {
            line(out, name.as_str().as_bytes(), value.as_bytes());
        } else if !std::mem::replace(&mut has_cookie, true) {
            let crumbs: Vec<&[u8]> = fields
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            line(out, b"cookie", &crumbs.join(&b"; "[..]));
        }
    }
}

/// Lines of a head or of trailers as fields; what HTTP/2 forbids is left out.
pub(super) fn fields<'a>(lines: impl Iterator<Item = (&'a str, &'a [u8])>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        let is_hop = HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop));
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value);
        if let (false, Ok(name), Ok(value)) = (is_hop, name, value) {
            fields.append(name, value);
        }
    }
    fields
}

/// Trailers as the chunked coding ends with them.
pub(super) fn trailers(section: &[u8]) -> HeaderMap {
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut text = section.to_vec();
    text.extend_from_slice(b"\r\n");
    match httparse::parse_headers(&text, &mut space) {
        Ok(httparse::Status::Complete((_, parsed))) => {
            fields(parsed.iter().map(|field| (field.name, field.value)))
        }
        // Our own decoder has parsed them before.
        _ => HeaderMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_joined_where_the_first_one_was() {
        let mut map = HeaderMap::new();
        for (name, value) in [("a", "1"), ("cookie", "x=1"), ("b", "2"), ("cookie", "y=2")] {
            map.append(name, HeaderValue::from_static(value));
        }
        let mut out = BytesMut::new();
        lines(&mut out, &map, |name| name == "b");
        assert_eq!(&out[..], b"a: 1\r\ncookie: x=1; y=2\r\n");
    }

    #[test]
    fn what_belongs_to_a_connection_of_http_1_goes_no_further() {
        let all = [
            ("Connection", &b"close"[..]),
            ("Transfer-Encoding", b"chunked"),
            ("X-Up", b"1"),
            ("Bad Name", b"1"),
            ("Bad", b"a\0"),
        ];
        let map = fields(all.into_iter());
        assert_eq!(map.len(), 1);
        assert_eq!(map["x-up"], "1");
        assert_eq!(trailers(b"Grpc-Status: 0\r\n")["grpc-status"], "0");
        assert!(trailers(b"").is_empty());
    }
}
