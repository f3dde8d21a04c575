//! Every H code that the router gives: what makes it, the status and the page that the client gets,
//! and the line in the app's log. H31 is in `h2` and `tls`.
//!
//! What makes the others does not exist here: a second domain that redirects to the first (H16); a
//! limit of connections beside that of requests, which is H11 (H22); an endpoint without upgrades
//! (H23); a certificate of the platform's that may fail to match, since a handshake for a name
//! without one fails before there is a request (H32); apps that serve no HTTP by their stack (H70);
//! quotas of dyno hours (H82); degradations that somebody plans (H83).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use manifold::settings::Timings;

use crate::host::{Host, short};

const APP: &str = "odd";

fn start() -> Host {
    let host = Host::start(short());
    host.web(APP, "odd", "python3 server.py");
    host
}

/// The last router line of the app's log.
fn last(host: &Host, app: &str) -> String {
    let logs = host.ok(&["logs", "-a", app, "-d", "router", "-n", "1"]);
    let line = logs.split_once("heroku[router]: ");
    line.map(|(_, line)| line.trim_end().to_owned())
        .unwrap_or_default()
}

/// True if that is the whole text, where `#` is a whole number and `@` an id that the router made.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some(at) = pattern.find(['#', '@']) else {
        return pattern == text;
    };
    let (plain, rest) = pattern.split_at(at);
    let Some(text) = text.strip_prefix(plain) else {
        return false;
    };
    let is_part: fn(char) -> bool = if rest.starts_with('#') {
        |c| c.is_ascii_digit()
    } else {
        |c| matches!(c, '0'..='9' | 'a'..='f' | '-')
    };
    let behind = text.trim_start_matches(is_part);
    let length = text.len() - behind.len();
    let is_whole = if rest.starts_with('#') {
        length > 0
    } else {
        length == 36
    };
    is_whole && is_like(&rest[1..], behind)
}

#[test]
fn a_line_is_like_its_pattern_as_a_whole() {
    let line = "at=info request_id=8601b555-6a83-4c12-8269-97c8e32cdb22 connect=12ms queue=";
    assert!(is_like("at=info request_id=@ connect=#ms queue=", line));
    for other in [
        "at=info request_id=@ connect=#ms",
        "at=info request_id=@ connect=# queue=",
        "at=info request_id=@ connect=#ms queue=#ms",
        "info request_id=@ connect=#ms queue=",
    ] {
        assert!(!is_like(other, line), "{other}");
    }
    assert!(!is_like("request_id=@", "request_id=8601b555"));
}

/// A whole line: what went wrong, the request, and how far it got.
fn line(start: &str, request: &str, app: &str, end: &str) -> String {
    let (method, path) = request.split_once(' ').expect("a method and a path");
    let host = format!("host={app}.localhost");
    format!("{start} method={method} path=\"{path}\" {host} request_id=@ fwd=\"127.0.0.1\" {end}")
}

/// The end of a line whose request got to no dyno.
fn nowhere(status: u16, queue: &str) -> String {
    format!("dyno= connect= service= status={status} bytes= protocol=http queue={queue}")
}

/// The same of one that its dyno had.
fn at_dyno(status: u16, bytes: &str) -> String {
    format!(
        "dyno=web.1 connect=#ms service=#ms status={status} bytes={bytes} protocol=http queue=0ms"
    )
}

/// Waits for a line of the app `odd`.
fn await_line(host: &Host, start: &str, request: &str, end: &str) {
    let pattern = line(start, request, APP, end);
    let is_it = |line: &str| is_like(&pattern, line);
    host.until_said(&pattern, || last(host, APP), is_it);
}

fn get(host: &Host, app: &str, path: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\nConnection: close\r\n\r\n");
    host.raw(&request)
}

/// Sends a head and what follows it, and keeps the connection.
fn open(host: &Host, method: &str, path: &str, rest: &str) -> TcpStream {
    let mut stream = host.connect();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {APP}.localhost\r\n{rest}");
    stream.write_all(head.as_bytes()).expect("written");
    stream
}

const OUR_FAULT: &str = "Application error";

/// A whole answer of the router's own, and the line that goes with it.
#[track_caller]
fn check(host: &Host, app: &str, reply: &str, status: u16, title: &str, pattern: &str) {
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
    for wanted in [
        "\r\nContent-Type: text/html; charset=utf-8\r\n".to_owned(),
        format!("\r\nContent-Length: {}\r\n", body.len()),
        "\r\nCache-Control: no-cache, no-store\r\n".to_owned(),
    ] {
        assert!(head.contains(&wanted), "{wanted} in {head}");
    }
    assert!(body.contains(&format!("<title>{title}</title>")), "{body}");
    let got = last(host, app);
    assert!(is_like(pattern, &got), "{got} is not like {pattern}");
    assert!(got.contains(&format!(" status={status} bytes=")), "{got}");
}

#[test]
fn h10_all_web_dynos_crashed() {
    let host = Host::start(short());
    host.ok(&["create", "bad"]);
    host.release("bad", "odd", &[("web", "exit 1")]);
    host.until("crashed", || {
        host.states("bad") == [("web.1".to_owned(), "crashed".to_owned())]
    });
    let reply = get(&host, "bad", "/");
    let start = "at=error code=H10 desc=\"App crashed\"";
    let line = line(start, "GET /", "bad", &nowhere(503, ""));
    check(&host, "bad", &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h11_the_line_is_full() {
    let host = Host::start(Timings::default());
    host.web(APP, "odd", "python3 server.py");
    host.ok(&["routing:set", "global-queue", "-a", APP]);
    let traffic = || host.json("GET", &format!("/apps/{APP}/traffic"), "");
    host.until("the router knows", || traffic()["limit"] == 1);
    // One is served, as long as it likes, and 49 wait: that makes 50 for one dyno.
    let mut all = vec![open(
        &host,
        "GET",
        "/ws",
        "Connection: Upgrade\r\nUpgrade: x\r\n\r\n",
    )];
    host.until("it is served", || traffic()["in_flight"] == 1);
    all.extend((0..49).map(|_| open(&host, "GET", "/head", "\r\n")));
    host.until("49 wait", || traffic()["waiting"] == 49);
    let reply = get(&host, APP, "/");
    let start = "at=error code=H11 desc=\"Backlog too deep\"";
    let line = line(start, "GET /", APP, &nowhere(503, ""));
    check(&host, APP, &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h12_the_dyno_is_silent() {
    let host = start();
    let reply = get(&host, APP, "/slow");
    let start = "at=error code=H12 desc=\"Request timeout\"";
    let line = line(start, "GET /slow", APP, &at_dyno(503, "0"));
    check(&host, APP, &reply, 503, OUR_FAULT, &line);
    let got = last(&host, APP);
    let service = got
        .split("service=")
        .nth(1)
        .and_then(|s| s.split("ms").next());
    let service: u64 = service.and_then(|s| s.parse().ok()).expect("a time");
    assert!((1000..3000).contains(&service), "{got}");
}

#[test]
fn h13_the_dyno_closes_without_an_answer() {
    let host = start();
    let reply = get(&host, APP, "/close");
    let start = "at=error code=H13 desc=\"Connection closed without response\"";
    let line = line(start, "GET /close", APP, &at_dyno(503, "0"));
    check(&host, APP, &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h14_no_web_dyno_is_wanted() {
    let host = start();
    host.ok(&["ps:scale", "web=0", "-a", APP]);
    host.until("the router knows", || {
        last(&host, APP).contains("H14") || {
            get(&host, APP, "/");
            false
        }
    });
    let reply = get(&host, APP, "/");
    let start = "at=error code=H14 desc=\"No web processes running\"";
    let line = line(start, "GET /", APP, &nowhere(503, ""));
    check(&host, APP, &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h15_the_dyno_falls_silent_in_the_middle() {
    let host = start();
    // The head is out already: the connection is cut, so that nobody takes it for whole.
    let reply = get(&host, APP, "/silent");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n0123456789"), "{reply}");
    let start = "at=error code=H15 desc=\"Idle connection\"";
    await_line(&host, start, "GET /silent", &at_dyno(503, "10"));
}

#[test]
fn h17_the_dyno_speaks_no_http() {
    let host = start();
    let reply = get(&host, APP, "/garbage");
    let start = "at=error code=H17 desc=\"Poorly formatted HTTP response\"";
    let line = line(start, "GET /garbage", APP, &at_dyno(502, "0"));
    check(&host, APP, &reply, 502, OUR_FAULT, &line);
}

#[test]
fn h18_the_dyno_closes_in_the_middle() {
    let host = start();
    let reply = get(&host, APP, "/half");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n0123456789"), "{reply}");
    let start = "sock=backend at=error code=H18 desc=\"Server Request Interrupted\"";
    await_line(&host, start, "GET /half", &at_dyno(503, "10"));
    // Without a length only a reset tells the client that this is not all.
    let mut stream = open(&host, "GET", "/torn", "\r\n");
    let mut reply = Vec::new();
    let end = stream.read_to_end(&mut reply).expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(reply.ends_with(b"0123456789"), "{reply:?}");
    await_line(&host, start, "GET /torn", &at_dyno(503, "10"));
    // In the middle of its head nothing is out yet.
    let path = "/play?close=1&bytes=HTTP/1.1%20200%20OK%0d%0aX:";
    let reply = get(&host, APP, path);
    let line = line(start, &format!("GET {path}"), APP, &at_dyno(503, "0"));
    check(&host, APP, &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h19_the_dyno_does_not_take_the_connection() {
    let timings = Timings {
        connect_timeout: Duration::from_millis(300),
        ..short()
    };
    let host = Host::start(timings);
    host.web(APP, "odd", "python3 server.py");
    get(&host, APP, "/full");
    // The first one may still be taken, and is answered by nobody.
    let post = || {
        let close = "Connection: close\r\nContent-Length: 0\r\n\r\n";
        let mut reply = String::new();
        let mut stream = open(&host, "POST", "/", close);
        stream.read_to_string(&mut reply).expect("an answer");
        reply
    };
    let start = "at=error code=H19 desc=\"Backend connection timeout\"";
    let end = "dyno=web.1 connect=3#ms service= status=503 bytes= protocol=http queue=0ms";
    let line = line(start, "POST /", APP, end);
    host.until("H19", || {
        let reply = post();
        let is_it = last(&host, APP).starts_with(start);
        if is_it {
            check(&host, APP, &reply, 503, OUR_FAULT, &line);
        }
        is_it
    });
}

#[test]
fn h20_no_dyno_is_up_in_time() {
    let host = Host::start(short());
    host.ok(&["create", "late"]);
    host.release("late", "odd", &[("web", "sleep 100")]);
    host.until("the router knows", || {
        get(&host, "late", "/").starts_with("HTTP/1.1 503")
    });
    let reply = get(&host, "late", "/");
    let start = "at=error code=H20 desc=\"App boot timeout\"";
    // It waited as long as may be.
    let line = line(start, "GET /", "late", &nowhere(503, "20#ms"));
    check(&host, "late", &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h21_then_h99_the_dyno_does_not_listen_any_more() {
    let host = start();
    assert!(get(&host, APP, "/deaf").starts_with("HTTP/1.1 200 "));
    let start = "at=error code=H21 desc=\"Backend connection refused\"";
    let end = "dyno=web.1 connect=#ms service= status=503 bytes= protocol=http queue=0ms";
    let refused = line(start, "GET /close", APP, end);
    // The idle connection of the first request is still good: use it up.
    host.until("H21", || {
        let reply = get(&host, APP, "/close");
        let is_it = last(&host, APP).starts_with(start);
        if is_it {
            check(&host, APP, &reply, 503, OUR_FAULT, &refused);
        }
        is_it
    });
    // Now it is in quarantine, and there is no other: what comes tries on as long as may be.
    let reply = get(&host, APP, "/");
    let start = "at=error code=H99 desc=\"Platform error\"";
    let line = line(start, "GET /", APP, &nowhere(503, "20#ms"));
    check(&host, APP, &reply, 503, OUR_FAULT, &line);
}

#[test]
fn h24_the_router_ends_before_the_client_has_read() {
    let timings = Timings {
        stop_grace: Duration::from_secs(1),
        ..Timings::default()
    };
    let mut host = Host::start(timings);
    host.web(APP, "odd", "python3 server.py");
    let slow = open(&host, "GET", "/bytes?33554432", "\r\n");
    let mut first = [0; 12];
    (&slow).read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    host.stop();
    let cut = host.written("path=\"/bytes?33554432\"");
    let (_, cut) = cut.split_once("router").expect("its source");
    let cut = &cut[cut.find("at=").expect("its text")..];
    let start = "at=error code=H24 desc=\"Forced close\"";
    let end = "dyno=web.1 connect=#ms service= status= bytes= protocol=http queue=0ms";
    let pattern = line(start, "GET /bytes?33554432", APP, end);
    assert!(is_like(&pattern, cut), "{cut} is not like {pattern}");
}

#[test]
fn h25_the_dyno_breaks_a_limit() {
    let host = start();
    let two = "HTTP/1.1%20200%20OK%0d%0aContent-Length:%201%0d%0aContent-Length:%202%0d%0a%0d%0ax";
    for (path, cause) in [
        (format!("/play?bytes={two}"), "invalid content length"),
        ("/limits?cookie=9000".to_owned(), "oversized cookie"),
        ("/limits?header=600000".to_owned(), "oversized header"),
        ("/limits?status=9000".to_owned(), "oversized status line"),
    ] {
        let reply = get(&host, APP, &path);
        let start = format!("at=error code=H25 desc=\"HTTP restriction: {cause}\"");
        let line = line(&start, &format!("GET {path}"), APP, &at_dyno(502, "0"));
        check(&host, APP, &reply, 502, OUR_FAULT, &line);
    }
    // Just below them it is fine.
    for path in [
        "/limits?cookie=8000",
        "/limits?header=500000",
        "/limits?status=8000",
    ] {
        let reply = get(&host, APP, path);
        assert!(
            reply.starts_with("HTTP/1.1 200 OK"),
            "{path}: {}",
            reply.len()
        );
    }
}

#[test]
fn h26_the_client_breaks_a_rule() {
    let host = start();
    let title = "Bad request";
    let of = |cause: &str, end: &str| {
        let start = format!("at=error code=H26 desc=\"Request Error\" cause=\"{cause}\"");
        line(&start, "POST /", APP, end)
    };
    let send = |rest: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: close\r\n");
        host.raw(&format!("{head}{rest}"))
    };
    let reply = send("Expect: whatever\r\nContent-Length: 1\r\n\r\n");
    let line = of("unsupported expect header value", &nowhere(417, ""));
    check(&host, APP, &reply, 417, title, &line);
    let reply = send("X: a\r\n b\r\nContent-Length: 0\r\n\r\n");
    let line = of("bad header", &nowhere(400, ""));
    check(&host, APP, &reply, 400, title, &line);
    let reply = send("Transfer-Encoding: chunked\r\n\r\nzz\r\n");
    let line = of("bad chunk", &at_dyno(400, "0"));
    check(&host, APP, &reply, 400, title, &line);
}

#[test]
fn h27_the_client_leaves() {
    let host = start();
    let start = "sock=client at=warning code=H27 desc=\"Client Request Interrupted\"";
    // In the middle of what it sends.
    drop(open(
        &host,
        "POST",
        "/echo",
        "Content-Length: 100\r\n\r\nabc",
    ));
    await_line(&host, start, "POST /echo", &at_dyno(499, "0"));
    // In the middle of what it gets.
    let mut stream = open(&host, "GET", "/bytes?33554432", "\r\n");
    stream.read_exact(&mut [0; 12]).expect("an answer");
    drop(stream);
    await_line(&host, start, "GET /bytes?33554432", &at_dyno(499, "#"));
}

#[test]
fn h28_the_client_falls_silent() {
    let host = start();
    let start = "sock=client at=warning code=H28 desc=\"Client Connection Idle\"";
    // In the middle of what it sends.
    let mut stream = open(&host, "POST", "/echo", "Content-Length: 100\r\n\r\nabc");
    let mut reply = Vec::new();
    // It is closed, with no answer: 499 is not for the client.
    let _ = stream.read_to_end(&mut reply);
    assert_eq!(reply, b"");
    await_line(&host, start, "POST /echo", &at_dyno(499, "0"));
    // It reads no more of what it gets.
    let _stream = open(&host, "GET", "/bytes?33554432", "\r\n");
    await_line(&host, start, "GET /bytes?33554432", &at_dyno(499, "#"));
}

#[test]
fn h80_maintenance() {
    let host = start();
    let before = open(&host, "POST", "/echo", "Content-Length: 5\r\n\r\nhe");
    host.until("it is under way", || {
        host.json("GET", &format!("/apps/{APP}/traffic"), "")["in_flight"] == 1
    });
    host.ok(&["maintenance:on", "-a", APP]);
    host.until("the router knows", || {
        get(&host, APP, "/").starts_with("HTTP/1.1 503 ")
    });
    // What was under way ends as ever.
    (&before).write_all(b"llo").expect("written");
    let mut seen = [0; 4096];
    let count = (&before).read(&mut seen).expect("an answer");
    let seen = String::from_utf8_lossy(&seen[..count]).into_owned();
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    let reply = get(&host, APP, "/");
    let start = "at=info code=H80 desc=\"Maintenance mode\"";
    let line = line(start, "GET /", APP, &nowhere(503, ""));
    check(&host, APP, &reply, 503, "Offline for Maintenance", &line);
    host.ok(&["maintenance:off", "-a", APP]);
    host.until("it is served again", || {
        get(&host, APP, "/").starts_with("HTTP/1.1 200 ")
    });
}

#[test]
fn h81_nothing_was_deployed() {
    let host = Host::start(short());
    host.ok(&["create", "blank"]);
    let reply = get(&host, "blank", "/");
    let start = "at=info code=H81 desc=\"Blank app\"";
    let line = line(start, "GET /", "blank", &nowhere(502, ""));
    check(&host, "blank", &reply, 502, "Nothing here yet", &line);
}

#[test]
fn pages_of_ones_own_take_the_place_of_the_routers_but_not_of_the_apps() {
    let host = start();
    let error = "https://pages.example.com/error.html?a=\"b\"&c=<d>";
    let maintenance = "//pages.example.com/maintenance.html";
    let vars = [
        format!("ERROR_PAGE_URL={error}"),
        format!("MAINTENANCE_PAGE_URL={maintenance}"),
    ];
    host.ok(&["config:set", &vars[0], &vars[1], "-a", APP]);
    // A config change restarts the dynos; what follows is asked of the new ones.
    let frame =
        "<iframe src=\"https://pages.example.com/error.html?a=&quot;b&quot;&amp;c=&lt;d&gt;\"";
    host.until("the router knows", || {
        get(&host, APP, "/close").contains(frame)
    });
    let reply = get(&host, APP, "/close");
    let start = "at=error code=H13 desc=\"Connection closed without response\"";
    let closed = line(start, "GET /close", APP, &at_dyno(503, "0"));
    check(&host, APP, &reply, 503, OUR_FAULT, &closed);
    assert!(reply.contains(frame) && !reply.contains("<h1>"), "{reply}");
    // Errors of the client's are the router's to explain, and what the app says stands.
    let request = "POST / HTTP/1.1\r\nHost: odd.localhost\r\nExpect: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let reply = host.raw(request);
    assert!(
        reply.starts_with("HTTP/1.1 417 ") && !reply.contains("<iframe"),
        "{reply}"
    );
    let own = "/play?close=1&bytes=HTTP/1.1%20500%20Own%0d%0aContent-Length:%203%0d%0a%0d%0aown";
    let reply = get(&host, APP, own);
    assert!(reply.starts_with("HTTP/1.1 500 Own\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nown"), "{reply}");
    host.ok(&["maintenance:on", "-a", APP]);
    let frame = format!("<iframe src=\"{maintenance}\"");
    host.until("maintenance", || get(&host, APP, "/").contains(&frame));
    let reply = get(&host, APP, "/");
    let start = "at=info code=H80 desc=\"Maintenance mode\"";
    let maintained = line(start, "GET /", APP, &nowhere(503, ""));
    check(
        &host,
        APP,
        &reply,
        503,
        "Offline for Maintenance",
        &maintained,
    );
}

#[test]
fn a_client_that_only_sends_no_more_still_gets_its_answer() {
    let host = start();
    host.ok(&["routing:set", "--concurrency", "1", "-a", APP]);
    let traffic = || host.json("GET", &format!("/apps/{APP}/traffic"), "");
    host.until("the router knows", || traffic()["limit"] == 1);
    let upgrade = "Connection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let held = open(&host, "GET", "/ws", upgrade);
    host.until("it is held", || traffic()["in_flight"] == 1);
    let finish = |stream: &TcpStream| stream.shutdown(Shutdown::Write).expect("half closed");
    let mut new = open(&host, "POST", "/echo", "Content-Length: 5\r\n\r\nhello");
    finish(&new);
    let mut old = host.connect();
    old.write_all(b"GET / HTTP/1.0\r\nHost: odd.localhost\r\n\r\n")
        .expect("written");
    finish(&old);
    // One that has left, and one whose body is not all here, are gone for good.
    drop(open(&host, "GET", "/left", "\r\n"));
    let torn = open(&host, "POST", "/torn", "Content-Length: 5\r\n\r\nhe");
    finish(&torn);
    host.until("two have left", || traffic()["total"]["errors"]["H27"] == 2);
    assert_eq!(traffic()["waiting"], 2);
    drop(held);
    let mut reply = String::new();
    new.read_to_string(&mut reply).expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nhello"), "{reply}");
    let mut reply = String::new();
    old.read_to_string(&mut reply).expect("an answer");
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
}
