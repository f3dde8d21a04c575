//! What a block of fields says, held to the rules, and the words in which the h2 crate gets it.
//!
//! The crate takes some malformed messages for good ones, and others for the end of the connection.
//! So it is given blocks that it cannot misread: each field written out, none of HPACK's table; and in
//! the place of a malformed one a block for which it resets the stream, and the stream alone.
//! Source: RFC 9113 sections 8.1.1, 8.2 and 8.3.

use super::hpack::{BadBlock, Decoder, ENTRY};

/// Largest head, as HPACK counts it (names, values and 32 bytes for each).
pub(super) const HEAD_MAX: u32 = 64 * 1024;

/// So much more than a head may have, and nobody listens any longer. h2 has the same bound.
const ABUSE: usize = 4;

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const AUTHORITY: u8 = 4;
const PATH: u8 = 8;

/// Fields of HTTP/1.1's connections. Source: RFC 9113 section 8.2.2.
const HOP: [&[u8]; 5] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"transfer-encoding",
    b"upgrade",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a request.
    Head,
    Trailers,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The block written out.
    Good(Vec<u8>),
    Malformed,
    /// More than [`HEAD_MAX`].
    Large,
    /// Far more than that.
    Abuse,
}

/// Reads a block.
///
/// # Errors
/// It is no HPACK: the connection must end.
pub(super) fn read(decoder: &mut Decoder, block: &[u8], kind: Kind) -> Result<Verdict, BadBlock> {
    let mut reading = Reading {
        kind,
        // Huffman's code saves a quarter or so, the table more.
        plain: Vec::with_capacity((2 * block.len() + 128).min(HEAD_MAX as usize)),
        size: 0,
        pseudo: 0,
        has_fields: false,
        is_connect: false,
        is_malformed: false,
    };
    decoder.decode(block, |name, value| reading.take(name, value))?;
    Ok(reading.end())
}

struct Reading {
    kind: Kind,
    plain: Vec<u8>,
    /// As HPACK counts.
    size: usize,
    /// Those that were there.
    pseudo: u8,
    has_fields: bool,
    is_connect: bool,
    is_malformed: bool,
}

impl Reading {
    fn take(&mut self, name: &[u8], value: &[u8]) {
        self.size = self.size.saturating_add(name.len() + value.len() + ENTRY);
        if self.is_malformed || self.is_large() {
            return;
        }
        let is_good = if let [b':', rest @ ..] = name {
            self.takes_pseudo(rest, value)
        } else {
            self.has_fields = true;
            is_name(name) && !HOP.contains(&name) && (name != b"te" || value == b"trailers")
        };
        self.is_malformed = !is_good || !is_value(value);
        // A literal without indexing. Source: RFC 7541 section 6.2.2.
        self.plain.push(0);
        string(&mut self.plain, name);
        string(&mut self.plain, value);
    }

    fn takes_pseudo(&mut self, name: &[u8], value: &[u8]) -> bool {
        let (bit, is_good) = match name {
            b"method" => (METHOD, is_token(value)),
            b"scheme" => (SCHEME, true),
            b"authority" => (AUTHORITY, true),
            // A fragment is no part of it, nor of any request target of HTTP/1.1.
            b"path" => (PATH, !value.is_empty() && !value.contains(&b'#')),
            // `:protocol` was not offered, `:status` is an answer's.
            _ => return false,
        };
        let is_first = self.pseudo & bit == 0;
        self.pseudo |= bit;
        self.is_connect |= bit == METHOD && value == b"CONNECT";
        let has_place = self.kind == Kind::Head && !self.has_fields;
        is_first && is_good && has_place && str::from_utf8(value).is_ok()
    }

    fn is_large(&self) -> bool {
        self.size >= HEAD_MAX as usize
    }

    fn end(self) -> Verdict {
        let is_whole = match self.kind {
            Kind::Trailers => true,
            // Source: RFC 9113 section 8.5.
            Kind::Head if self.is_connect => self.pseudo == METHOD | AUTHORITY,
            Kind::Head => self.pseudo | AUTHORITY == METHOD | SCHEME | PATH | AUTHORITY,
        };
        if self.size > ABUSE * HEAD_MAX as usize {
            Verdict::Abuse
        } else if self.is_malformed {
            Verdict::Malformed
        } else if self.is_large() {
            Verdict::Large
        } else if is_whole {
            Verdict::Good(self.plain)
        } else {
            Verdict::Malformed
        }
    }
}

/// A string that is written out. Source: RFC 7541 sections 5.1 and 5.2.
fn string(out: &mut Vec<u8>, text: &[u8]) {
    let mut left = text.len();
    if left < 0x7f {
        out.push(low(left));
    } else {
        out.push(0x7f);
        left -= 0x7f;
        while left >= 0x80 {
            out.push(0x80 | low(left & 0x7f));
            left >>= 7;
        }
        out.push(low(left));
    }
    out.extend_from_slice(text);
}

fn low(value: usize) -> u8 {
    u8::try_from(value).expect("seven bits")
}

/// Source: RFC 9110 section 5.6.2.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let all = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut at = 0;
    while at < all.len() {
        table[all[at] as usize] = true;
        at += 1;
    }
    table
};

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Source: RFC 9113 section 8.2.1.
fn is_name(name: &[u8]) -> bool {
    is_token(name) && !name.iter().any(u8::is_ascii_uppercase)
}

/// Source: RFC 9113 section 8.2.1; RFC 9110 section 5.5 for the other control characters.
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_text = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
    !is_blank(value.first()) && !is_blank(value.last()) && value.iter().all(is_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "a"),
    ];

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            string(&mut block, name.as_bytes());
            string(&mut block, value.as_bytes());
        }
        block
    }

    fn check(kind: Kind, fields: &[(&str, &str)], is_good: bool) {
        let block = block(fields);
        let wanted = if is_good {
            Verdict::Good(block.clone())
        } else {
            Verdict::Malformed
        };
        let read = read(&mut Decoder::new(), &block, kind);
        assert_eq!(read, Ok(wanted), "{kind:?} {fields:?}");
    }

    #[test]
    fn heads_and_trailers_are_held_to_their_rules() {
        let head = |fields: &[(&str, &str)], is_good| check(Kind::Head, fields, is_good);
        head(&GET, true);
        head(&GET[..3], true);
        for at in 0..3 {
            let mut fields = GET.to_vec();
            let twice = fields.remove(at);
            head(&fields, false);
            head(&[&GET[..], &[twice]].concat(), false);
        }
        head(&[&GET[..], &[GET[3]]].concat(), false);
        for (name, value, is_good) in [
            ("x", "y", true),
            ("x", "", true),
            ("x", "a\tb", true),
            ("te", "trailers", true),
            ("te", "gzip", false),
            ("x", " y", false),
            ("x", "y\t", false),
            ("x", "a\0b", false),
            ("x", "a\rb", false),
            ("x", "a\nb", false),
            ("x", "a\x7fb", false),
            ("X", "y", false),
            ("", "y", false),
            ("a b", "y", false),
            ("a:b", "y", false),
            ("é", "y", false),
            ("connection", "close", false),
            ("keep-alive", "1", false),
            ("proxy-connection", "1", false),
            ("transfer-encoding", "chunked", false),
            ("upgrade", "h2c", false),
        ] {
            head(&[&GET[..], &[(name, value)]].concat(), is_good);
            check(Kind::Trailers, &[(name, value)], is_good);
        }
        for (name, value) in GET {
            check(Kind::Trailers, &[(name, value)], false);
        }
        head(&[&GET[..], &[(":status", "200")]].concat(), false);
        head(&[&GET[..], &[(":protocol", "websocket")]].concat(), false);
        head(&[&GET[..3], &[("x", "y"), GET[3]]].concat(), false);
        for (at, value) in [
            (0, ""),
            (0, "GET /"),
            (2, ""),
            (2, "/#"),
            (2, "/a#b"),
            (2, "/ "),
            (2, "/\r\n"),
        ] {
            let mut fields = GET;
            fields[at].1 = value;
            head(&fields, false);
        }
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        head(&connect, true);
        head(&connect[..1], false);
        head(&[&connect[..], &[(":path", "/")]].concat(), false);
        head(&[&connect[..], &[(":scheme", "https")]].concat(), false);
        check(Kind::Trailers, &[], true);
    }

    #[test]
    fn a_small_block_may_stand_for_too_much() {
        let value = "v".repeat(3000);
        let first = [&[0x40][..], &block(&[("x", &value)])[1..]].concat();
        let kind = Kind::Trailers;
        for (count, verdict) in [
            (20, None),
            (21, Some(Verdict::Large)),
            (85, Some(Verdict::Large)),
            (86, Some(Verdict::Abuse)),
        ] {
            let mut block = first.clone();
            block.resize(first.len() + count, 0xbe);
            let read = read(&mut Decoder::new(), &block, kind).expect("HPACK");
            assert_eq!(matches!(read, Verdict::Good(_)), verdict.is_none());
            assert!(verdict.is_none_or(|verdict| read == verdict), "{count}");
        }
        // Where the first bound is. Strings of every length are written so that they are read.
        for length in [0, 126, 127, 128, 254, 255, 16_510, 65_500] {
            let value = "v".repeat(length);
            check(kind, &[("x", &value)], true);
        }
        let value = "v".repeat(65_503);
        let read = read(&mut Decoder::new(), &block(&[("x", &value)]), kind);
        assert_eq!(read, Ok(Verdict::Large));
    }
}
