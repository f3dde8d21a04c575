//! Clients, dynos and a host at their worst: each has its bound, and everybody else is served.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use manifold::settings::Timings;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::host::{Host, short};
use crate::tls;

const APP: &str = "odd";

fn start(timings: Timings) -> Host {
    let host = Host::start(timings);
    host.web(APP, "odd", "python3 server.py");
    host
}

fn router_lines(host: &Host) -> String {
    host.ok(&["logs", "-a", APP, "-d", "router", "-n", "1500"])
}

fn is_served(host: &Host) -> bool {
    let start = Instant::now();
    let (status, _, body) = host.get("odd.localhost", "/");
    (status, body.as_str()) == (200, "hello") && start.elapsed() < Duration::from_secs(2)
}

#[test]
fn a_head_that_drips_in_gets_408_and_no_dyno_hears_of_it() {
    let host = start(Timings::default());
    let begin = Instant::now();
    // Who has not even begun may take its time.
    let mut silent = host.connect();
    let mut all: Vec<TcpStream> = (0..50).map(|_| host.connect()).collect();
    for stream in &mut all {
        let head = "GET /drip HTTP/1.1\r\nHost: odd.localhost\r\n";
        stream.write_all(head.as_bytes()).expect("written");
        stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .expect("set");
    }
    let mut replies = vec![Vec::new(); all.len()];
    while replies.iter().any(Vec::is_empty) {
        assert!(begin.elapsed() < Duration::from_secs(20), "never cut off");
        assert!(is_served(&host));
        for (stream, reply) in all.iter_mut().zip(&mut replies) {
            // One that was cut off takes no more, or answers with a reset.
            let _ = stream.write_all(b"X: y\r\n");
            let mut buffer = [0; 4096];
            if let Ok(count) = stream.read(&mut buffer) {
                reply.extend_from_slice(&buffer[..count]);
            }
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
    assert!(
        begin.elapsed() >= Duration::from_secs(9),
        "cut off too soon"
    );
    for reply in replies {
        let reply = String::from_utf8_lossy(&reply).into_owned();
        assert!(
            reply.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{reply}"
        );
    }
    assert!(!router_lines(&host).contains("/drip"));
    assert!(ask(&mut silent).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_body_that_drips_in_is_never_too_slow() {
    let host = start(short());
    let mut stream = host.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\nContent-Length: 8\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("written");
    let begin = Instant::now();
    for _ in 0..8 {
        // Less than the limit of silence each time, more than it in all.
        std::thread::park_timeout(Duration::from_millis(300));
        stream.write_all(b"x").expect("written");
    }
    assert!(begin.elapsed() > short().idle_timeout * 2);
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nxxxxxxxx"), "{reply}");
}

#[test]
fn an_answer_that_drips_out_is_never_too_slow() {
    let host = start(short());
    let mut stream = host.connect();
    let head = "GET /ticks HTTP/1.1\r\nHost: odd.localhost\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("written");
    let begin = Instant::now();
    let mut lines = BufReader::new(stream).lines();
    // Ten a second, longer than any limit.
    while begin.elapsed() < short().idle_timeout * 3 {
        let line = lines.next().expect("it goes on");
        line.expect("not cut off");
    }
    assert!(!router_lines(&host).contains("/ticks"));
}

#[test]
fn a_reader_of_one_byte_at_a_time_holds_no_dyno_and_gets_all() {
    let host = start(short());
    host.ok(&["routing:set", "--concurrency", "1", "-a", APP]);
    let traffic = || host.json("GET", &format!("/apps/{APP}/traffic"), "");
    host.until("the router knows", || traffic()["limit"] == 1);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    socket.connect(&host.http.into()).expect("the router");
    let mut slow = TcpStream::from(socket);
    let head = "GET /bytes?900000 HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n\r\n";
    slow.write_all(head.as_bytes()).expect("written");
    let begin = Instant::now();
    let mut got = Vec::new();
    while begin.elapsed() < short().idle_timeout * 2 {
        let mut byte = [0];
        slow.read_exact(&mut byte).expect("a byte");
        got.push(byte[0]);
        assert!(is_served(&host), "the dyno waits for the slow reader");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    slow.read_to_end(&mut got).expect("the rest");
    let head = got.windows(4).position(|w| w == b"\r\n\r\n");
    assert_eq!(got.len(), head.expect("a head") + 4 + 900_000);
    assert!(!router_lines(&host).contains("code="));
}

#[test]
fn a_flood_of_header_lines_is_cut_off() {
    let host = start(Timings::default());
    let mut stream = host.connect();
    let head = "GET /flood HTTP/1.1\r\nHost: odd.localhost\r\n";
    stream.write_all(head.as_bytes()).expect("written");
    let line = format!("X-Flood: {}\r\n", "x".repeat(1000));
    let begin = Instant::now();
    while stream.write_all(line.as_bytes()).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(10), "never cut off");
    }
    // An answer may be lost to the reset that follows it; a calmer client reads it.
    let lines = "X-Flood: y\r\n".repeat(1001);
    let reply = host.raw(&format!("{head}{lines}\r\n"));
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    assert!(is_served(&host));
    assert!(!router_lines(&host).contains("/flood\" host=odd.localhost request_id= dyno=web.1"));
}

#[test]
fn a_flood_of_interim_answers_is_h17() {
    let host = start(Timings::default());
    let (status, _, rest) = host.get("odd.localhost", "/interims");
    assert_eq!(status, 102);
    assert!(rest.matches("HTTP/1.1 102").count() <= 1001);
    assert!(rest.contains("HTTP/1.1 502 Bad Gateway\r\n"));
    let code = "at=error code=H17 desc=\"Poorly formatted HTTP response\"";
    assert!(router_lines(&host).contains(code));
    assert!(is_served(&host));
}

#[test]
fn what_a_dyno_sends_behind_its_answer_reaches_nobody() {
    let host = start(Timings::default());
    for _ in 0..50 {
        let (status, _, body) = host.get("odd.localhost", "/junk");
        assert_eq!((status, body.as_str()), (200, "hello"));
        let (_, _, body) = host.get("odd.localhost", "/who?me");
        assert_eq!(body, " me");
    }
}

#[test]
fn a_dyno_that_is_gone_fails_nobody_but_whom_it_left() {
    let host = start(Timings::default());
    host.ok(&["ps:scale", "web=2", "-a", APP]);
    let two = ["web.1", "web.2"];
    let post = |path: &str| {
        host.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
        ))
    };
    let all_are_served = |count: usize| {
        for _ in 0..count {
            let (_, _, body) = host.get("odd.localhost", "/");
            assert_eq!(body, "hello", "{}", host.logs(APP));
            let reply = post("/echo");
            assert!(reply.ends_with("\r\n\r\nhi"), "{}", host.logs(APP));
        }
    };
    // Killed: it restarts at once, and until then the other one serves. A third end in a row would
    // be waited for.
    for _ in 0..2 {
        host.until_up(APP, &two);
        // As a POST, so that nobody sends it to the other one, too.
        let reply = post("/die");
        assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        all_are_served(30);
    }
    host.until_up(APP, &two);
    // It listens no more, and nobody says so.
    assert_eq!(host.get("odd.localhost", "/deaf").0, 200);
    all_are_served(100);
    let lines = router_lines(&host);
    let faults = lines.lines().filter(|line| line.contains(" code="));
    let faults: Vec<_> = faults.collect();
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(faults.iter().all(|line| line.contains("path=\"/die\"")));
}

#[test]
fn a_dyno_that_refused_is_spared_and_then_used_again() {
    let host = start(Timings::default());
    assert_eq!(host.get("odd.localhost", "/nap?1000").2, "good night");
    let (status, _, _) = host.get("odd.localhost", "/");
    assert_eq!(status, 503);
    assert!(router_lines(&host).contains("code=H21"));
    // There is no other: whoever comes now waits until it may be asked again.
    let begin = Instant::now();
    assert_eq!(host.get("odd.localhost", "/").2, "hello");
    let took = begin.elapsed().as_secs_f64();
    assert!((0.5..4.0).contains(&took), "{took} s");
    assert!(is_served(&host));
}

#[test]
fn who_shakes_hands_slowly_is_cut_off() {
    let host = Host::start_with(Timings::default(), tls::with_tls);
    host.web(APP, "odd", "python3 server.py");
    let connect = || {
        let stream = TcpStream::connect(host.https.expect("TLS")).expect("the router");
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("set");
        stream
    };
    let begin = Instant::now();
    // Nothing; the beginning of a hello; all of it, and then no HTTP/2.
    let silent = connect();
    let mut partial = connect();
    partial
        .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
        .expect("written");
    let config = tls::client(&host.ok(&["certs:ca"]), &["h2"]);
    let shaken = tls::connect(&host, &config, "odd.localhost").expect("trusted");
    for mut stream in [silent, partial, shaken.sock] {
        let mut sink = Vec::new();
        // A cut is an end, too.
        let _ = stream.read_to_end(&mut sink);
        let took = begin.elapsed().as_secs_f64();
        assert!((9.0..15.0).contains(&took), "{took} s");
        assert!(is_served(&host));
    }
}

#[test]
fn an_answer_before_the_end_of_the_body_is_told_and_ends_the_connection() {
    let host = start(Timings::default());
    let mut stream = host.connect();
    let head = "POST /refuse HTTP/1.1\r\nHost: odd.localhost\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("written");
    stream.write_all(b"some").expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an end");
    assert!(
        reply.starts_with("HTTP/1.1 413 Content Too Large\r\n"),
        "{reply}"
    );
    assert!(reply.contains("\r\nConnection: close\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\ntoo much"), "{reply}");
    let line = router_lines(&host);
    assert!(line.contains(" status=413 bytes=8 "), "{line}");
}

#[test]
fn no_body_is_held_whole_and_none_is_too_large() {
    alone("faults::child_with_large_bodies");
}

/// More than anybody would hold.
const LARGE: usize = 256 << 20;

/// What the router may hold of a body (1 MiB of an answer), with what else a request takes.
const HELD: usize = (1 << 20) + (512 << 10);

#[test]
#[ignore = "run by no_body_is_held_whole_and_none_is_too_large only"]
fn child_with_large_bodies() {
    if !is_alone() {
        return;
    }
    // Its end waits for nobody who does not read.
    let host = start(Timings {
        stop_grace: short().stop_grace,
        ..Timings::default()
    });
    for _ in 0..50 {
        assert!(is_served(&host));
    }
    let before = resident();
    let grown = |what: &str, most: usize| {
        let grown = resident().saturating_sub(before);
        eprintln!("{what}: {grown} bytes");
        assert!(grown <= most, "{what}: {grown} bytes");
    };
    let open = |head: String| {
        let mut stream = host.connect();
        stream.write_all(head.as_bytes()).expect("written");
        stream
    };
    let upload = |path: &str| {
        open(format!(
            "POST {path} HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\nContent-Length: {LARGE}\r\n\r\n"
        ))
    };
    let piece = vec![b'x'; 64 * 1024];
    // As much as somebody reads.
    let mut stream = upload("/count");
    for _ in 0..LARGE / piece.len() {
        stream.write_all(&piece).expect("written");
    }
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("an answer");
    assert!(reply.ends_with(&format!("\r\n\r\n{LARGE}")), "{reply}");
    grown("a large upload", HELD);
    // No more than that.
    let mut stream = upload("/stuck");
    let wait = Some(Duration::from_secs(1));
    stream.set_write_timeout(wait).expect("set");
    let mut taken = 0;
    while let Ok(count) = stream.write(&piece) {
        taken += count;
    }
    // Four sockets' buffers, as far as the kernel lets them grow.
    assert!(taken < LARGE / 4, "{taken} bytes of a body nobody reads");
    grown("an upload that nobody reads", HELD);
    drop(stream);
    // The other way round.
    let head =
        format!("GET /bytes?{LARGE} HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n\r\n");
    let mut streams: Vec<_> = (0..10).map(|_| open(head.clone())).collect();
    for stream in &mut streams {
        stream.read_exact(&mut [0; 100]).expect("the beginning");
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        assert!(is_served(&host));
        grown("10 answers that nobody reads", 10 * HELD);
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let mut got = 100;
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = streams[0].read(&mut buffer) {
        got += count;
    }
    assert!(got > LARGE, "{got} of {LARGE}");
}

/// Runs an ignored test in a process of its own, where limits, memory and descriptors are its own.
pub(crate) fn alone(test: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    let output = command.env(ALONE, "1").output().expect("it starts");
    let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (read(&output.stdout), read(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("test result: ok. 1 passed"), "{out}");
    output
}

const ALONE: &str = "MANIFOLD_TEST_ALONE";

pub(crate) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

const IDLE: usize = 10_000;

/// Of resident memory for each idle connection.
const IDLE_BYTES: usize = 4 * 1024;

#[test]
fn ten_thousand_idle_connections_cost_little() {
    alone("faults::child_with_idle_clients");
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("it can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<usize>().ok());
    kilobytes.expect("VmRSS") * 1024
}

#[test]
#[ignore = "run by ten_thousand_idle_connections_cost_little only"]
fn child_with_idle_clients() {
    if !is_alone() {
        return;
    }
    let host = start(Timings::default());
    for _ in 0..200 {
        assert!(is_served(&host));
    }
    let before = resident();
    // They come from another process: each connection takes a descriptor at both ends.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/idle.py");
    let mut clients = Command::new("python3")
        .args([script, &host.http.port().to_string(), &IDLE.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut out = BufReader::new(clients.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, format!("{IDLE} answered\n"));
    let grown = resident().saturating_sub(before);
    eprintln!("{} bytes for each idle connection", grown / IDLE);
    assert!(grown / IDLE <= IDLE_BYTES, "{} bytes each", grown / IDLE);
    // Whoever comes now is served as ever, if need be in the place of who was idle for longest.
    assert!(is_served(&host));
    drop(clients.stdin.take());
    line.clear();
    out.read_line(&mut line).expect("a line");
    let kept: usize = line.trim().parse().expect("a number");
    assert!(clients.wait().expect("it ends").success());
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // Each connection may need another one, to a dyno; some descriptors are for the rest.
    let places = usize::try_from((files - 1024) / 2).expect("it fits");
    eprintln!("{kept} of {IDLE} were kept, {files} descriptors");
    assert!(kept + 8 >= IDLE.min(places), "{kept} kept, {places} places");
}

#[test]
fn out_of_descriptors_the_router_says_so_and_recovers() {
    let output = alone("faults::child_out_of_descriptors");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for words in [
        "no connection is accepted: trying on",
        "Too many open files",
        "connections are accepted again, after",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(
        said.matches("no connection is accepted").count() <= 4,
        "said once per thread, not each time: {said}"
    );
}

/// One request on a connection that stays; its answer as far as its first read.
fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: odd.localhost\r\n\r\n")
        .expect("written");
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).expect("an answer");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
#[ignore = "run by out_of_descriptors_the_router_says_so_and_recovers only"]
fn child_out_of_descriptors() {
    if !is_alone() {
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, 400, 400).expect("lower");
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let host = start(Timings::default());
    // Every request needs a descriptor for its dyno.
    host.ok(&[
        "features:enable",
        "http-disable-keepalive-to-dyno",
        "-a",
        APP,
    ]);
    let mut idle = host.connect();
    assert!(ask(&mut idle).starts_with("HTTP/1.1 200 "));
    let late = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let late = late.expect("a socket");
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    assert!(files.len() > 100, "{}", files.len());
    late.connect(&host.http.into())
        .expect("the kernel takes it");
    // The one that is idle has to go, so that the other is let in.
    let mut late = TcpStream::from(late);
    late.set_read_timeout(Some(Duration::from_secs(30)))
        .expect("set");
    let reply = ask(&mut late);
    assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
    assert_eq!(idle.read(&mut [0]).expect("an end"), 0);
    drop(files);
    assert!(ask(&mut late).starts_with("HTTP/1.1 200 "));
    assert!(is_served(&host));
    let code = "at=error code=H99 desc=\"Platform error\" method=GET path=\"/\"";
    assert!(router_lines(&host).contains(code));
}
