//! Bytes of a head before it is parsed: where it ends, whether its first line can be one, and what
//! bytes may stand where.

use super::{Refused, refused};

/// Longest request line in bytes (414).
pub(super) const LINE_MAX: usize = 8192;
/// Longest status line in bytes (502, H25).
const STATUS_LINE_MAX: usize = 8192;

/// Where the head ends (behind its empty line), if it is all there. `from`: where to look on.
///
/// # Errors
/// A line end that is not CRLF.
pub(in crate::router) fn end_of_head(bytes: &[u8], from: usize) -> Result<Option<usize>, Refused> {
    let start = from.saturating_sub(3);
    let seen = bytes.get(start..).unwrap_or_default();
    let mut lines = 0;
    for at in memchr::memchr_iter(b'\n', seen) {
        let at = start + at;
        lines += 1;
        if at == 0 || bytes[at - 1] != b'\r' {
            break;
        }
        if at >= 3 && bytes[at - 3..at] == *b"\r\n\r" {
            // As many CR as LF, and one before each: no other one. The first LF's may lie before.
            let returns = &bytes[start.saturating_sub(1)..=at];
            let returns = memchr::memchr_iter(b'\r', returns).count();
            if returns == lines {
                return Ok(Some(at + 1));
            }
            break;
        }
    }
    end_by_lines(bytes, start)
}

/// The same, one line end after the other.
fn end_by_lines(bytes: &[u8], start: usize) -> Result<Option<usize>, Refused> {
    let line_ends = memchr::memchr2_iter(b'\r', b'\n', bytes.get(start..).unwrap_or_default());
    for at in line_ends.map(|at| start + at) {
        match bytes[at] {
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

/// Our own line, whatever the parser comes to allow.
pub(in crate::router) fn is_plain(value: &[u8]) -> bool {
    value
        .iter()
        .all(|b| (*b >= 0x20 && *b != 0x7f) || *b == b'\t')
}

/// A class of bytes.
pub(super) type Class = [bool; 256];

const fn class(more: &[u8]) -> Class {
    let mut class = [false; 256];
    let mut byte = 0;
    while byte < u8::MAX {
        class[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < more.len() {
        class[more[at] as usize] = true;
        at += 1;
    }
    class
}

const TOKEN: Class = class(b"!#$%&'*+-.^_`|~");
pub(super) const HOST: Class = class(b"-._");

pub(super) fn is_all(class: &Class, bytes: &[u8]) -> bool {
    bytes.iter().all(|b| class[usize::from(*b)])
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && is_all(&TOKEN, bytes)
}

/// Looks at the first line as soon as it is there, so that nobody waits for the rest of what is
/// no HTTP/1 (HTTP/0.9, a preface of HTTP/2, TLS): `method SP target SP version CRLF`. A target is
/// ASCII: what is not comes percent-encoded. Source: RFC 3986 section 2.
///
/// # Errors
/// 414, 505, or 400.
pub(in crate::router) fn request_line(bytes: &[u8]) -> Result<(), Refused> {
    const BAD: Refused = refused(400, "bad request line");
    let seen = &bytes[..bytes.len().min(LINE_MAX + 1)];
    let Some(end) = memchr::memchr2(b'\r', b'\n', seen) else {
        // What begins like no method never becomes a request.
        let method = seen.split(|b| *b == b' ').next().unwrap_or_default();
        return match () {
            () if seen.len() > LINE_MAX => Err(refused(414, "request line too long")),
            () if !method.is_empty() && !is_token(method) => Err(BAD),
            () => Ok(()),
        };
    };
    let mut parts = seen[..end].split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    let is_visible = |b: &u8| (0x21..0x7f).contains(b) && *b != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(is_visible) {
        return Err(BAD);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(refused(505, "bad version"))
        }
        _ => Err(BAD),
    }
}

/// Looks at the first bytes of an answer as soon as they are there.
///
/// # Errors
/// See [`super::response`].
pub(in crate::router) fn status_line(bytes: &[u8]) -> Result<(), Refused> {
    let seen = &bytes[..bytes.len().min(STATUS_LINE_MAX + 1)];
    if !b"HTTP/1.".starts_with(&seen[..seen.len().min(7)]) {
        return Err(refused(502, ""));
    }
    if seen.len() > STATUS_LINE_MAX && !seen.contains(&b'\r') {
        return Err(refused(502, "oversized status line"));
    }
    Ok(())
}
