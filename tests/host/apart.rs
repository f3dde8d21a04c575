//! Whatever apps share the router, and however their dynos behave: an answer is the asked app's own,
//! and the asked request's own. Hosts, wildcards among them, tell the apps apart.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manifold::settings::Timings;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::host::Host;

const APPS: [&str; 3] = ["red", "green", "blue"];

const CLIENTS: u64 = 6;

const REQUESTS: usize = 700;

/// A client's connection, which serves requests for all apps.
struct Client<'a> {
    host: &'a Host,
    stream: Option<TcpStream>,
}

impl Client<'_> {
    /// Status and body; `None`: the connection was cut in the middle.
    fn ask(&mut self, request: &str) -> Option<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.host.connect(),
        };
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let head = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(at) = head {
                let text = String::from_utf8_lossy(&reply[..at]).into_owned();
                let value = |name: &str| {
                    let mut lines = text.lines();
                    lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
                };
                let length: usize = value("Content-Length: ")?.parse().expect("a length");
                let body = &reply[at + 4..];
                assert!(body.len() <= length, "more than one answer: {text}");
                if body.len() == length {
                    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
                    if value("Connection: ").as_deref() == Some("keep-alive") {
                        self.stream = Some(stream);
                    }
                    return Some((status.expect("a status"), body.to_vec()));
                }
            }
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => reply.extend_from_slice(&buffer[..count]),
                _ => return None,
            }
        }
    }
}

/// Requests of one client; how many got their answer.
fn run(host: &Host, seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = Client { host, stream: None };
    let mut count = 0;
    for number in 0..REQUESTS {
        let app = APPS[random.random_range(0..APPS.len())];
        let token = format!("{seed}-{number}");
        let head = format!("Host: {app}.localhost\r\n");
        let kind = random.random_range(0..100);
        let request = match kind {
            0..70 => format!("GET /who?{token} HTTP/1.1\r\n{head}\r\n"),
            70..90 => format!(
                "POST /echo HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{token}",
                token.len()
            ),
            90..94 => format!("GET /junk HTTP/1.1\r\n{head}\r\n"),
            94..97 => format!("GET /close HTTP/1.1\r\n{head}\r\n"),
            _ => format!("GET /half HTTP/1.1\r\n{head}\r\n"),
        };
        if random.random_range(0..20) == 0 {
            // It leaves without its answer, which must not wait for anybody else.
            let mut stream = host.connect();
            stream.write_all(request.as_bytes()).expect("written");
            continue;
        }
        let Some((status, body)) = client.ask(&request) else {
            continue;
        };
        let expected = match kind {
            0..70 => format!("{app} {token}"),
            70..90 => token,
            90..94 => "hello".to_owned(),
            _ => String::new(),
        };
        if status == 200 {
            let body = String::from_utf8_lossy(&body).into_owned();
            assert_eq!(
                body, expected,
                "seed {seed}, request {number}, {app}, {kind}"
            );
            count += 1;
        } else {
            // A dyno that closed, or is being replaced.
            assert_eq!(status, 503, "seed {seed}, request {number}");
        }
    }
    count
}

#[test]
fn an_answer_never_reaches_another_apps_or_another_clients_request() {
    let host = Host::start(Timings::default());
    for app in APPS {
        let command = format!("NAME={app} exec python3 server.py");
        host.ok(&["create", app]);
        host.release(app, "odd", &[("web", &command)]);
        host.ok(&["ps:scale", "web=2", "-a", app]);
    }
    for app in APPS {
        host.until_up(app, &["web.1", "web.2"]);
    }
    let seed: u64 = rand::random_range(0..1_000_000);
    eprintln!("seeds from {seed}");
    let (is_over, restarts) = (AtomicBool::new(false), AtomicUsize::new(0));
    let answered: usize = std::thread::scope(|scope| {
        // Dynos come and go meanwhile, and ports change hands.
        scope.spawn(|| {
            for app in APPS.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                host.ok(&["ps:restart", "-a", app]);
                host.until_up(app, &["web.1", "web.2"]);
                restarts.fetch_add(1, Ordering::Relaxed);
            }
        });
        let host = &host;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || run(host, seed + n)))
            .collect();
        let counts = clients.into_iter().map(std::thread::ScopedJoinHandle::join);
        let counts: Vec<_> = counts.collect();
        is_over.store(true, Ordering::Relaxed);
        counts
            .into_iter()
            .map(|count| count.expect("no mix-up"))
            .sum()
    });
    let all = usize::try_from(CLIENTS).expect("few") * REQUESTS;
    eprintln!("{answered} of {all} answered, {restarts:?} restarts");
    // 94 of 100 have an answer, and 19 of 20 wait for it.
    assert!(answered > all * 8 / 10, "{answered} of {all}");
    assert!(restarts.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_host_finds_its_app_by_exact_names_and_wildcards() {
    let host = Host::start(Timings::default());
    for app in APPS {
        host.web(app, "odd", &format!("NAME={app} exec python3 server.py"));
    }
    host.ok(&["domains:add", "*.example.com", "-a", "red"]);
    // Names below it are its owner's alone.
    let (_, said) = host.fails(&["domains:add", "www.example.com", "-a", "green"]);
    assert!(said.contains("in use by another app"), "{said}");
    host.ok(&["domains:add", "*.shop.test", "-a", "green"]);
    host.ok(&["domains:add", "shop.test.example.org", "-a", "blue"]);
    let expected = BTreeMap::from([
        ("example.com", ""),
        ("shop.test.example.org", "blue"),
        ("www.shop.test.example.org", ""),
        ("www.example.com", "red"),
        ("WWW.Example.COM:8080", "red"),
        ("www.example.com.", "red"),
        ("www.shop.test", "green"),
        ("shop.test", ""),
        ("a.b.example.com", "red"),
        ("notexample.com", ""),
        ("example.com.evil.test", ""),
        ("green.localhost", "green"),
    ]);
    let who = |name: &str| {
        let (status, _, body) = host.get(name, "/who?x");
        match status {
            200 => body.strip_suffix(" x").map(str::to_owned),
            404 => Some(String::new()),
            _ => None,
        }
    };
    host.until("the router knows", || {
        who("shop.test.example.org").as_deref() == Some("blue")
    });
    for (name, app) in expected {
        assert_eq!(who(name).as_deref(), Some(app), "{name}");
    }
    host.ok(&["domains:remove", "*.example.com", "-a", "red"]);
    host.until("it is gone", || {
        who("www.example.com").as_deref() == Some("")
    });
    assert_eq!(who("www.shop.test").as_deref(), Some("green"));
}
