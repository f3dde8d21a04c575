//! Heads that are taken, and heads that are not.

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
        "Connection: upgrade\r\nUpgrade: ,\r\n",
        "Connection: upgrade\r\nUpgrade: a b\r\n",
        "Content-Length:\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 0\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: \"5\"\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5\x0b\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Content-Length\t: 5\r\n",
        "Content-Length: 5\r\n 6\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding: chunked\x00\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\u{a0}\r\n",
        "Transfer-Encoding\x00: chunked\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\tX: a\r\n",
        "X: a\r\n\tb\r\n",
        "X: a\x00b\r\n",
        "X: a\x01b\r\n",
        "X: a\x7fb\r\n",
        ": a\r\n",
        "X\r\n",
        "X : a\r\n",
        "X Y: a\r\n",
        "X\u{ef}: a\r\n",
        "X[]: a\r\n",
        "Expect: 100 continue\r\n",
    ] {
        refuse(lines, 400);
    }
    refuse(&format!("{}: y\r\n", "x".repeat(NAME_MAX + 1)), 400);
    refuse(&"X: y\r\n".repeat(HEADERS_MAX), 400);
    refuse(&format!("X: {}\r\n", "y".repeat(VALUE_MAX + 1)), 400);
}

/// The parser refuses these, so that nobody looks for them once more.
#[test]
fn control_bytes_are_refused_wherever_they_stand() {
    for byte in 0..=255u8 {
        let value = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX: y".as_slice(),
            &[byte],
            b"z\r\n\r\n",
        ];
        let is_taken = request(&Bytes::from(value.concat())).is_ok();
        assert_eq!(is_taken, is_plain(&[byte]), "{byte} in a value");
        let name = [
            b"GET / HTTP/1.1\r\nHost: a\r\nX".as_slice(),
            &[byte],
            b"Y: z\r\n\r\n",
        ];
        let is_taken = request(&Bytes::from(name.concat())).is_ok();
        assert_eq!(
            is_taken,
            is_token(&[byte]) || byte == b':',
            "{byte} in a name"
        );
        let answer = [b"HTTP/1.1 200 OK\r\nX: y".as_slice(), &[byte], b"z\r\n\r\n"];
        let is_taken = response(&Bytes::from(answer.concat()), false).is_ok();
        assert_eq!(is_taken, is_plain(&[byte]), "{byte} in an answer's value");
    }
}

#[test]
fn hosts_targets_and_versions() {
    let check = |head: &str, expected: Result<(&str, &str), u16>| {
        let got = parse(head)
            .map(|r| (r.target, r.host))
            .map_err(|r| r.status);
        let expected = expected.map(|(t, h)| (t.into(), h.into()));
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
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"] {
        check(&format!("GET / {version}\r\nHost: a\r\n\r\n"), Err(505));
    }
    for line in [
        "GET /",
        "GET",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/01.1",
        "GET / HTTP/1,1",
        "GET / HTTP/11",
        "GET / HTTPS/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://u:p@a/ HTTP/1.1",
        "G(T / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "CONNECT http://a/ HTTP/1.1",
    ] {
        check(&format!("{line}\r\nHost: a\r\n\r\n"), Err(400));
    }
    for host in [
        "", "a b", "a/x", "a,b", "u@a", "a:", "a:b", "a:99999", "a:1:2", "a%2eb", "[::1", "[x]",
        "[::1]x", "::1", "a\\b", "a?b", "a#b", "\u{e9}", ":80", "a:-1", "a:080000",
    ] {
        let expected = if host == "a:" {
            Ok(("/", "a:"))
        } else {
            Err(400)
        };
        check(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), expected);
    }
    for host in ["[::1]", "[2001:db8::1]:8080", "a.b.", "A_b-c:1"] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        check(&head, Ok(("/", host)));
    }
    check("get / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(("/", "a")));
    check(
        "GET HTTPS://z/a HTTP/1.1\r\nHost: x\r\n\r\n",
        Ok(("/a", "z")),
    );
    check(
        "OPTIONS http://z HTTP/1.1\r\nHost: x\r\n\r\n",
        Ok(("*", "z")),
    );
    check("GET http://z/ HTTP/1.1\r\n\r\n", Err(400));
    let method = "M".repeat(METHOD_MAX + 1);
    check(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(400));
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n\r\n",
        "x".repeat(scan::LINE_MAX)
    );
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
    for (lines, is_head, expected) in [
        (
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            false,
            Ok(Framing::Length(3)),
        ),
        (
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            false,
            Err("invalid content length"),
        ),
        (
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            true,
            Err("invalid content length"),
        ),
        (
            "Content-Length: 3, 3\r\n",
            false,
            Err("invalid content length"),
        ),
        (
            "Content-Length: -3\r\n",
            false,
            Err("invalid content length"),
        ),
        ("Content-Length : 3\r\n", false, Ok(Framing::Length(3))),
        (
            "Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n",
            false,
            Ok(Framing::Chunked),
        ),
        ("Transfer-Encoding: gzip, chunked\r\n", false, Err("")),
        ("Transfer-Encoding: identity\r\n", false, Err("")),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            false,
            Err(""),
        ),
        ("X: a\0b\r\n", false, Err("")),
        ("X: a\r\n b\r\n", false, Err("")),
        ("X(: a\r\n", false, Err("")),
        ("X\r\n", false, Err("")),
    ] {
        check(
            &format!("HTTP/1.1 200 OK\r\n{lines}\r\n"),
            is_head,
            expected,
        );
    }
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "HTTP/1.1",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "ICY 200 OK",
        "lorem ipsum",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x1bK",
    ] {
        check(
            &format!("{line}\r\nContent-Length: 0\r\n\r\n"),
            false,
            Err(""),
        );
    }
}

#[test]
fn a_reason_is_kept_as_it_came() {
    let reason = |head: &str| {
        response(&Bytes::from(head.to_owned()), false)
            .expect("ok")
            .reason()
            .map(<[u8]>::to_vec)
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
