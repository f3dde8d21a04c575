//! Clients that leave before they have their answer: their dyno hears of it, and is free again.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use manifold::settings::Timings;

use crate::faults;
use crate::host::Host;
use crate::tls;

const APP: &str = "odd";

fn start() -> Host {
    let host = Host::start_with(Timings::default(), tls::with_tls);
    host.web(APP, "odd", "python3 server.py");
    host
}

fn head(method: &str, path: &str, rest: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {APP}.localhost\r\n{rest}\r\n")
}

fn send(host: &Host, bytes: &str) -> TcpStream {
    let mut stream = host.connect();
    stream.write_all(bytes.as_bytes()).expect("written");
    stream
}

fn traffic(host: &Host) -> serde_json::Value {
    host.json("GET", &format!("/apps/{APP}/traffic"), "")
}

/// How often the dyno has said so.
fn said(host: &Host, words: &str) -> usize {
    let logs = host.ok(&["logs", "-a", APP, "-s", "app", "-n", "1500"]);
    logs.lines().filter(|line| line.ends_with(words)).count()
}

/// The router's last line, once it begins like this.
fn line(host: &Host, start: &str) -> String {
    let last = || {
        let logs = host.ok(&["logs", "-a", APP, "-d", "router", "-n", "1"]);
        let line = logs.split_once("heroku[router]: ");
        line.map_or_else(String::new, |(_, line)| line.trim_end().to_owned())
    };
    host.until(start, || last().starts_with(start));
    last()
}

const LEFT: &str = "sock=client at=warning code=H27 desc=\"Client Request Interrupted\" method=";

/// One dyno that serves one request at a time: only what is over lets the next one in.
fn one_at_a_time(host: &Host) {
    host.ok(&["routing:set", "--concurrency", "1", "-a", APP]);
    host.until("the router knows", || traffic(host)["limit"] == 1);
}

#[test]
fn a_client_that_closes_while_its_dyno_works_ends_that() {
    let host = start();
    one_at_a_time(&host);
    let config = tls::client(&host.ok(&["certs:ca"]), &[]);
    let get = head("GET", "/watch", "");
    let post = head("POST", "/watch", "Content-Length: 5\r\n") + "hello";
    let put = head("PUT", "/watch", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n";
    for (method, request) in [("GET", get), ("POST", post), ("PUT", put)] {
        for is_tls in [false, true] {
            let before = said(&host, &format!("left by {method}"));
            let asked = format!("asked by {method}");
            let is_asked = || said(&host, &asked) == before + 1;
            let start = Instant::now();
            if is_tls {
                let name = format!("{APP}.localhost");
                let mut client = tls::connect(&host, &config, &name).expect("trusted");
                client.write_all(request.as_bytes()).expect("written");
                host.until("the dyno has it", is_asked);
                client.conn.send_close_notify();
                client.flush().expect("told");
            } else {
                let client = send(&host, &request);
                host.until("the dyno has it", is_asked);
                drop(client);
            }
            let begin = format!("{LEFT}{method} path=\"/watch\" ");
            let line = line(&host, &begin);
            let end = format!(
                " status=499 bytes=0 protocol={} queue=0ms",
                if is_tls { "https" } else { "http" }
            );
            assert!(line.contains(" dyno=web.1 connect="), "{line}");
            assert!(line.ends_with(&end), "{line}");
            // Long before the dyno's time is up (H12), and the dyno is told.
            assert!(start.elapsed() < Duration::from_secs(20));
            host.until("the dyno hears of it", || {
                said(&host, &format!("left by {method}")) == before + 1
            });
            // Nobody sent it again, and the place is free for the next one.
            assert_eq!(said(&host, &asked), before + 1);
            assert_eq!(host.get("odd.localhost", "/").2, "hello");
        }
    }
    host.until("nothing runs", || traffic(&host)["in_flight"] == 0);
    assert_eq!(traffic(&host)["total"]["errors"]["H27"], 6);
}

#[test]
fn a_client_that_resets_or_closes_inside_of_its_answer_ends_that() {
    let host = start();
    one_at_a_time(&host);
    for (count, is_reset) in [(1, true), (2, false)] {
        let mut client = send(&host, &head("GET", "/ticks", ""));
        let mut seen = Vec::new();
        while !seen.ends_with(b"tick\n\r\n") {
            let mut buffer = [0; 1024];
            let length = client.read(&mut buffer).expect("read");
            assert!(length > 0, "closed after {seen:?}");
            seen.extend_from_slice(&buffer[..length]);
        }
        if is_reset {
            let socket = socket2::SockRef::from(&client);
            socket.set_linger(Some(Duration::ZERO)).expect("set");
        }
        drop(client);
        let line = line(&host, &format!("{LEFT}GET path=\"/ticks\" "));
        assert!(line.contains(" status=499 bytes="), "{line}");
        assert!(!line.contains(" bytes=0 "), "{line}");
        host.until("the dyno hears of it", || {
            said(&host, "left by GET") == count
        });
        host.until("the line is counted", || {
            traffic(&host)["total"]["errors"]["H27"] == count
        });
        // Half of an answer is no reason to use its connection again.
        assert_eq!(host.get("odd.localhost", "/").2, "hello");
    }
    host.until("nothing runs", || traffic(&host)["in_flight"] == 0);
}

/// Milliseconds that its dyno had the request of this line for.
fn service(line: &str) -> u64 {
    let time = line.split_once(" service=").expect("a time").1;
    let time = time.split_once("ms ").expect("in ms").0;
    time.parse().expect("a number")
}

#[test]
fn a_client_that_leaves_before_its_answer_is_missed_at_once() {
    let host = start();
    drop(send(&host, &head("GET", "/watch", "")));
    let line = line(&host, &format!("{LEFT}GET path=\"/watch\" "));
    assert!((100..900).contains(&service(&line)), "{line}");
    host.until("the dyno hears of it", || said(&host, "left by GET") == 1);
}

/// Reads until the answer is like this.
fn read_until(client: &mut impl std::io::Read, end: &str) -> String {
    let mut seen = String::new();
    while !seen.trim_end().ends_with(end) {
        let mut buffer = [0; 1024];
        let length = client.read(&mut buffer).expect("read");
        assert!(length > 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    seen
}

#[test]
fn a_client_that_leaves_a_silent_answer_is_missed_soon() {
    let host = start();
    let config = tls::client(&host.ok(&["certs:ca"]), &[]);
    let mut count = 0;
    for framing in ["chunks", "length", "close"] {
        for is_tls in [false, true] {
            count += 1;
            let path = format!("/quiet?{framing}");
            let request = head("GET", &path, "");
            if is_tls {
                let name = format!("{APP}.localhost");
                let mut client = tls::connect(&host, &config, &name).expect("trusted");
                client.write_all(request.as_bytes()).expect("written");
                read_until(&mut client, "first,");
                client.conn.send_close_notify();
                client.flush().expect("told");
            } else {
                let mut client = send(&host, &request);
                read_until(&mut client, "first,");
            }
            host.until("the line is counted", || {
                traffic(&host)["total"]["errors"]["H27"] == count
            });
            let line = line(&host, &format!("{LEFT}GET path=\"{path}\" "));
            let end = format!(
                " status=499 bytes=6 protocol={} queue=0ms",
                if is_tls { "https" } else { "http" }
            );
            assert!(line.ends_with(&end), "{line}");
            // Long before the dyno has been silent for too long (H15).
            assert!(service(&line) < 5000, "{line}");
            host.until("the dyno hears of it", || {
                said(&host, "left by GET") == count
            });
        }
    }
    host.until("nothing runs", || traffic(&host)["in_flight"] == 0);
}

#[test]
fn a_client_that_only_sends_no_more_reads_its_answer_to_the_end() {
    let host = start();
    let finish = |stream: &TcpStream| stream.shutdown(Shutdown::Write).expect("half closed");
    let check = &|framing: &str, pause: u32, is_before: bool| {
        let path = format!("/quiet?{framing}&{pause}");
        let mut client = send(&host, &head("GET", &path, "Connection: close\r\n"));
        if is_before {
            finish(&client);
        }
        let mut reply = read_until(&mut client, "first,");
        if !is_before {
            finish(&client);
        }
        client.read_to_string(&mut reply).expect("all of it");
        let end = if framing == "chunks" {
            // Zeros that it was asked with stand in front of the size.
            "6\r\nsecond\r\n0\r\n\r\n"
        } else {
            "first,second"
        };
        assert!(reply.ends_with(end), "{framing}, {is_before}: {reply}");
    };
    std::thread::scope(|scope| {
        for framing in ["chunks", "length", "close"] {
            // Before its answer it is asked by what comes of that.
            scope.spawn(move || check(framing, 3000, true));
            // An answer that keeps flowing asks on.
            scope.spawn(move || check(framing, 600, false));
        }
        scope.spawn(|| check("chunks", 3000, false));
    });
    host.until("all are counted", || {
        traffic(&host)["total"]["classes"]["2xx"] == 7
    });
}

#[test]
fn a_client_that_waits_in_peace_gets_its_answer_whenever_it_comes() {
    let host = start();
    let ask = |request: &str| {
        let client = send(&host, request);
        client.shutdown(Shutdown::Write).expect("half closed");
        let mut reply = String::new();
        (&client).read_to_string(&mut reply).expect("an answer");
        reply
    };
    let answer = "HTTP/1.1 200 OK\r\n";
    let soon = ask(&head("GET", "/late?200", ""));
    assert!(soon.starts_with(answer), "{soon}");
    // It is asked twice meanwhile whether it is still there, and need not know.
    let late = ask(&head("GET", "/late?3500", ""));
    assert!(late.starts_with(answer), "{late}");
    let old = format!("GET /late?2500 HTTP/1.0\r\nHost: {APP}.localhost\r\n\r\n");
    let old = ask(&old);
    assert!(old.starts_with(answer), "{old}");
    // An interim answer is the first to begin, and one of the router's own begins like all others.
    let interim = "HTTP/1.1%20103%20Early%20Hints%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0aContent-Length:%200%0d%0a%0d%0a";
    let reply = ask(&head(
        "GET",
        &format!("/play?after=2000&bytes={interim}"),
        "",
    ));
    let both = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(reply.starts_with(both), "{reply}");
    let reply = ask(&head("GET", "/play?after=2000&close=1&bytes=%00", ""));
    assert!(reply.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{reply}");
    for reply in [soon, late, old] {
        assert!(reply.ends_with("\r\n\r\nat last"), "{reply}");
    }
    host.until("all are counted", || {
        traffic(&host)["total"]["requests"] == 5
    });
    assert_eq!(traffic(&host)["total"]["classes"]["2xx"], 4);
}

#[test]
fn a_client_of_http_1_0_is_asked_like_any_other() {
    let host = start();
    one_at_a_time(&host);
    let request = format!("GET /watch HTTP/1.0\r\nHost: {APP}.localhost\r\n\r\n");
    let client = send(&host, &request);
    host.until("the dyno has it", || said(&host, "asked by GET") == 1);
    let begin = Instant::now();
    drop(client);
    let line = line(&host, &format!("{LEFT}GET path=\"/watch\" "));
    assert!(
        line.ends_with(" status=499 bytes=0 protocol=http queue=0ms"),
        "{line}"
    );
    assert!(begin.elapsed() < Duration::from_secs(20));
    host.until("the dyno hears of it", || said(&host, "left by GET") == 1);
    assert_eq!(host.get("odd.localhost", "/").2, "hello");
}

/// As much of a body as anybody takes.
fn fill(client: &mut impl std::io::Write) {
    let piece = vec![b'x'; 64 * 1024];
    while client.write_all(&piece).is_ok() {}
}

#[test]
fn an_upload_that_its_dyno_does_not_read_ends_with_its_client() {
    let host = start();
    let config = tls::client(&host.ok(&["certs:ca"]), &[]);
    let length = "Content-Length: 1000000000\r\n";
    let chunks = "Transfer-Encoding: chunked\r\n";
    let patience = Some(Duration::from_millis(500));
    let mut number = 0;
    for lines in [length, chunks] {
        for is_tls in [false, true] {
            number += 1;
            let path = format!("/stuck?{number}");
            let mut bytes = head("POST", &path, lines);
            if lines == chunks {
                bytes.push_str("fffffff\r\n");
            }
            let begin = if is_tls {
                let name = format!("{APP}.localhost");
                let mut client = tls::connect(&host, &config, &name).expect("trusted");
                client.write_all(bytes.as_bytes()).expect("written");
                client.sock.set_write_timeout(patience).expect("set");
                fill(&mut client);
                Instant::now()
            } else {
                let mut client = send(&host, &bytes);
                client.set_write_timeout(patience).expect("set");
                fill(&mut client);
                Instant::now()
            };
            // Long before the dyno has been silent for too long (H15).
            let line = line(&host, &format!("{LEFT}POST path=\"{path}\" "));
            assert!(line.contains(" dyno=web.1 connect="), "{line}");
            assert!(begin.elapsed() < Duration::from_secs(25), "{line}");
        }
    }
    host.until("nothing runs", || traffic(&host)["in_flight"] == 0);
}

#[test]
fn an_upload_that_its_dyno_takes_late_arrives_whole() {
    let host = start();
    let mut client = send(
        &host,
        &head(
            "POST",
            "/count?8000",
            "Connection: close\r\nContent-Length: 33554432\r\n",
        ),
    );
    // Its client is asked meanwhile.
    client.write_all(&vec![b'x'; 32 << 20]).expect("written");
    let mut reply = String::new();
    client.read_to_string(&mut reply).expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n33554432"), "{reply}");
}

#[test]
fn clients_that_leave_leave_nothing_behind() {
    faults::alone("leaving::child_whose_clients_leave");
}

/// Descriptors of this process.
fn descriptors() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("there");
    all.count()
}

#[test]
#[ignore = "run by clients_that_leave_leave_nothing_behind only"]
fn child_whose_clients_leave() {
    if !faults::is_alone() {
        return;
    }
    let host = start();
    assert_eq!(host.get("odd.localhost", "/").2, "hello");
    let idle = || traffic(&host)["in_flight"] == 0;
    host.until("it is over", idle);
    let before = descriptors();
    for _ in 0..3 {
        let mut clients = Vec::new();
        for number in 0..40 {
            let path = ["/watch", "/ticks"][number % 2];
            let client = send(&host, &head("GET", path, ""));
            if number % 3 == 0 {
                let socket = socket2::SockRef::from(&client);
                socket.set_linger(Some(Duration::ZERO)).expect("set");
            }
            clients.push(client);
        }
        host.until("all are served", || traffic(&host)["in_flight"] == 40);
        drop(clients);
        host.until("all have gone", idle);
    }
    assert_eq!(host.get("odd.localhost", "/").2, "hello");
    assert_eq!(traffic(&host)["total"]["errors"]["H27"], 120);
    // The kept connections of both sides are let go in time.
    host.until("all is closed", || descriptors() <= before);
}
