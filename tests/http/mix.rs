//! Requests for several apps over shared connections, while their dynos are replaced: an answer is
//! the asked app's own, and the asked request's own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the apps are called, and say they are.
pub(crate) const APPS: [&str; 3] = ["red", "green", "blue"];

const CLIENTS: u64 = 6;

const REQUESTS: usize = 700;

/// A client's connection, which serves requests for all apps.
struct Client {
    router: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    /// Status and body; `None`: the connection was cut in the middle.
    fn ask(&mut self, request: &str) -> Option<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.router),
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
fn run(router: SocketAddr, seed: u64) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = Client {
        router,
        stream: None,
    };
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
            let mut stream = connect(router);
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

fn connect(router: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(router).expect("the router");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// Sends thousands of requests to the apps, whose web processes are `tests/apps/odd` with their
/// names in `NAME`, while `restart` replaces the dynos of one app after the other.
///
/// # Panics
/// At an answer that is somebody else's, and when too few are answered.
pub(crate) fn never_mix(router: SocketAddr, restart: impl Fn(&str) + Sync) {
    let seed: u64 = rand::random_range(0..1_000_000);
    eprintln!("seeds from {seed}");
    let is_over = AtomicBool::new(false);
    let (answered, restarts) = std::thread::scope(|scope| {
        // Dynos come and go meanwhile, and addresses change hands.
        let restarts = scope.spawn(|| {
            let mut restarts = 0;
            while !is_over.load(Ordering::Relaxed) {
                restart(APPS[restarts % APPS.len()]);
                restarts += 1;
            }
            restarts
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || run(router, seed + n)))
            .collect();
        let counts = clients.into_iter().map(std::thread::ScopedJoinHandle::join);
        let counts: Vec<_> = counts.collect();
        is_over.store(true, Ordering::Relaxed);
        let restarts = restarts.join().expect("dynos restart");
        let counts = counts.into_iter().map(|count| count.expect("no mix-up"));
        (counts.sum::<usize>(), restarts)
    });
    let all = usize::try_from(CLIENTS).expect("few") * REQUESTS;
    eprintln!("{answered} of {all} answered, {restarts} restarts");
    // 94 of 100 have an answer, and 19 of 20 wait for it.
    assert!(answered > all * 8 / 10, "{answered} of {all}");
}
