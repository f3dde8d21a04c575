//! A browser that comes back to its dyno (feature `http-session-affinity`).
//!
//! The cookie holds a hash of the dyno's id. The id is random and told to nobody but the app's
//! owner, so a client can neither read from the cookie which dyno it means nor make up one for
//! another; and it stays good when the router starts anew, since the dyno stays.
//! Source: Dev Center, "Session Affinity".

use sha2::{Digest as _, Sha256};

use super::head::Head;
use super::name::Name;
use crate::model::DynoId;

/// The cookie's name.
const COOKIE: &str = "heroku-session-affinity";

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark([u8; 16]);

impl Mark {
    /// Of a dyno.
    pub(super) fn of(dyno: DynoId) -> Self {
        let hash = Sha256::digest(format!("{COOKIE} {dyno}"));
        let mut mark = [0; 16];
        mark.copy_from_slice(&hash[..16]);
        Self(mark)
    }

    /// The first one that the request's cookies say.
    pub(super) fn find(head: &Head) -> Option<Self> {
        let pairs = head
            .values(Name::Cookie)
            .flat_map(|value| value.split(|b| *b == b';'));
        let mut marks = pairs.filter_map(|pair| {
            let text = str::from_utf8(pair).ok()?.trim();
            Self::parse(text.strip_prefix(COOKIE)?.strip_prefix('=')?)
        });
        marks.next()
    }

    fn parse(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok()?;
        let is_exact = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_exact.then(|| Self(number.to_be_bytes()))
    }

    /// The header line that makes a browser keep it until it ends.
    pub(super) fn line(self, scheme: &str) -> String {
        let secure = if scheme == "https" { "; Secure" } else { "" };
        let mark = u128::from_be_bytes(self.0);
        format!("Set-Cookie: {COOKIE}={mark:032x}; Path=/; HttpOnly{secure}\r\n")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::router::head;

    #[test]
    fn a_mark_comes_back_in_its_cookie() {
        let (one, other) = (Mark::of(DynoId::new()), Mark::of(DynoId::new()));
        assert_ne!(one, other);
        let find = |cookies: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{cookies}\r\n");
            Mark::find(&head::request(&Bytes::from(head)).expect("a request").head)
        };
        let line = one.line("http");
        let pair = line.split([' ', ';']).nth(1).expect("a pair");
        assert_eq!(find(&format!("Cookie: {pair}\r\n")), Some(one));
        assert_eq!(find(&format!("Cookie: a=b; {pair} ;c\r\n")), Some(one));
        assert_eq!(
            find(&format!("Cookie: a=b\r\nCookie: {pair}\r\n")),
            Some(one)
        );
        for bad in [
            String::new(),
            format!("Cookie: x{pair}\r\n"),
            format!("Cookie: {pair}0\r\n"),
            format!("Cookie: {}\r\n", &pair[..pair.len() - 1]),
            format!("Cookie: {COOKIE}=+{}\r\n", "0".repeat(31)),
            format!("Cookie: {COOKIE}=\r\n"),
        ] {
            assert_eq!(find(&bad), None, "{bad}");
        }
        assert!(one.line("https").ends_with("; HttpOnly; Secure\r\n"));
    }
}
