//! Connections to dynos: kept where that is good for both, closed where a server is stuck on them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use manifold::settings::Timings;

use crate::host::Host;

const APP: &str = "pool";

/// `server`: `one` connection at a time, or `many`, or `hasty`.
fn start(server: &str) -> Host {
    let host = Host::start(Timings::default());
    host.web(APP, "odd", &format!("python3 pool.py {server}"));
    host
}

/// A request on a connection that stays: how many connections the dyno has seen, and the time it
/// took.
fn ask(stream: &mut TcpStream) -> (usize, Duration) {
    ask_by("GET", stream)
}

fn ask_by(method: &str, stream: &mut TcpStream) -> (usize, Duration) {
    let start = Instant::now();
    let head = format!("{method} / HTTP/1.1\r\nHost: {APP}.localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    let mut reply = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = reply.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            if head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())) {
                return (body.parse().expect("a number"), start.elapsed());
            }
        }
        let count = stream.read(&mut buffer).expect("read");
        assert!(count > 0, "closed after {reply:?}");
        reply.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// Every client sends so many requests, one after the other, all clients at once: the connections
/// that the dyno has seen by then, and the longest time of a request.
fn crowd(host: &Host, clients: usize, requests: usize) -> (usize, Duration) {
    let client = || {
        let mut stream = host.connect();
        let answers = (0..requests).map(|_| ask(&mut stream));
        answers.max_by_key(|(_, took)| *took).expect("requests")
    };
    let longest = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let times = clients.into_iter().map(|c| c.join().expect("served").1);
        times.max().expect("clients")
    });
    (ask(&mut host.connect()).0, longest)
}

#[test]
fn a_server_of_one_connection_at_a_time_is_not_stuck_on_an_idle_one() {
    let host = start("one");
    let (connections, longest) = crowd(&host, 8, 10);
    // Idle connections live for four seconds.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    assert!(connections > 1, "{connections}");
}

#[test]
fn a_server_of_many_connections_keeps_those_it_has() {
    let host = start("many");
    let (connections, _) = crowd(&host, 16, 60);
    // A new one for each that is closed beside another new one would be one for each request.
    assert!(connections < 320, "{connections} for 961 requests");
}

#[test]
fn connections_are_kept_unless_the_app_wants_none_kept() {
    let host = start("many");
    let mut stream = host.connect();
    let (first, _) = ask(&mut stream);
    assert_eq!(ask(&mut stream).0, first, "the same one");
    let feature = "http-disable-keepalive-to-dyno";
    host.ok(&["features:enable", feature, "-a", APP]);
    host.until("the router knows", || {
        let before = ask(&mut host.connect()).0;
        let mut stream = host.connect();
        ask(&mut stream);
        ask(&mut stream).0 == before + 2
    });
    for _ in 0..10 {
        let before = ask(&mut stream).0;
        assert_eq!(ask(&mut stream).0, before + 1);
    }
}

#[test]
fn a_body_behind_its_head_comes_at_once() {
    let host = start("one");
    let mut stream = host.connect();
    let mut times: Vec<_> = (0..40).map(|_| ask(&mut stream).1).collect();
    // A new connection acknowledges its first segments without being asked.
    let late = &mut times[20..];
    late.sort_unstable();
    // The kernel keeps an acknowledgement for 40 ms.
    assert!(late[10] < Duration::from_millis(35), "{late:?}");
}

#[test]
fn a_server_that_closes_when_it_likes_fails_no_request() {
    let host = start("hasty");
    let mut stream = host.connect();
    let mut used_again = 0;
    let mut before = 0;
    for number in 0..400 {
        // What may not be sent twice meets no connection that is being closed.
        let method = if number % 4 == 0 { "POST" } else { "GET" };
        let (connections, _) = ask_by(method, &mut stream);
        used_again += usize::from(connections == before);
        before = connections;
    }
    // Each served one request, and most requests came while the last one was being closed.
    assert_eq!(used_again, 0);
    let logs = host.ok(&["logs", "-a", APP, "-d", "router", "-n", "1500"]);
    assert!(!logs.contains("code="), "{logs}");
}
