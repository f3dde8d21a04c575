//! `Expect: 100-continue`, met by the router or, where the app wants that, by the dyno.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::host::{Host, short};

const APP: &str = "odd";

fn start() -> Host {
    let host = Host::start(short());
    host.web(APP, "odd", "python3 server.py");
    host.ok(&["features:enable", "http-end-to-end-continue", "-a", APP]);
    // The router hears of it a moment later: from then on it does not say it itself.
    host.until("the router knows", || {
        let mut stream = ask(&host, "POST", "refuse", BODY);
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an answer");
        reply.starts_with("HTTP/1.1 403 ")
    });
    host
}

const BODY: &str = "Content-Length: 5\r\n";

/// Sends a head that expects something.
fn ask(host: &Host, method: &str, how: &str, lines: &str) -> TcpStream {
    let mut stream = host.connect();
    let head = format!(
        "{method} /expect?{how} HTTP/1.1\r\nHost: {APP}.localhost\r\nExpect: 100-continue\r\n{lines}\r\n"
    );
    stream.write_all(head.as_bytes()).expect("written");
    stream
}

/// Reads until it ends like this.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = String::new();
    while !seen.ends_with(end) {
        let mut byte = [0];
        let count = stream.read(&mut byte).expect("read");
        assert!(count > 0, "closed after {seen:?}");
        seen.push(char::from(byte[0]));
    }
    seen
}

/// All that is left.
fn rest(stream: &mut TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an end");
    rest
}

/// The last lines: that of an earlier request may come after the last one's, from another thread.
fn logged(host: &Host) -> String {
    host.ok(&["logs", "-a", APP, "-d", "router", "-n", "5"])
}

#[test]
fn the_dyno_meets_it_once_and_without_more_words() {
    let host = start();
    let lines = format!("{BODY}Connection: close\r\n");
    let mut stream = ask(&host, "POST", "meet", &lines);
    assert_eq!(
        read_until(&mut stream, "\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"hello").expect("written");
    let answer = rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    let mut stream = ask(&host, "POST", "twice", BODY);
    let first = read_until(&mut stream, "\r\n\r\n");
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
    let answer = rest(&mut stream);
    assert!(
        answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{answer}"
    );
    assert!(logged(&host).contains("code=H17"), "{}", logged(&host));
}

#[test]
fn an_answer_instead_of_it_ends_the_connection() {
    let host = start();
    let mut stream = ask(&host, "POST", "refuse", BODY);
    let answer = rest(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 403 No\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nno"), "{answer}");
}

#[test]
fn silence_instead_of_it_is_h12() {
    let host = start();
    let mut stream = ask(&host, "POST", "silent", BODY);
    let answer = rest(&mut stream);
    assert!(
        answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{answer}"
    );
    assert!(logged(&host).contains("code=H12"), "{}", logged(&host));
}

#[test]
fn a_switch_may_follow_it() {
    let host = start();
    let lines = "Connection: Upgrade\r\nUpgrade: x\r\n";
    let mut stream = ask(&host, "GET", "switch", lines);
    let first = read_until(&mut stream, "\r\n\r\n");
    assert_eq!(first, "HTTP/1.1 100 Continue\r\n\r\n");
    let switched = read_until(&mut stream, "hello");
    assert!(
        switched.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{switched}"
    );
}
