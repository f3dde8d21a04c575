//! The router, between raw clients and a web process that misbehaves on demand.

use std::io::{Read as _, Write as _};

use manifold::settings::Timings;

use crate::host::Host;

/// The last router line of an app's log.
fn line(host: &Host, app: &str) -> String {
    let logs = host.ok(&["logs", "-a", app, "-d", "router", "-n", "1"]);
    logs.split_once("heroku[router]: ")
        .map(|(_, line)| line.trim_end().to_owned())
        .unwrap_or_default()
}

#[test]
fn a_request_finds_its_app_and_leaves_one_line() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    let (status, head, body) = host.get("ODD.localhost:1234", "/head?a=\"b");
    assert_eq!(status, 200, "{head}");
    assert!(
        head.contains("\r\nVia: 1.1 vegur\r\nConnection: close"),
        "{head}"
    );
    for wanted in [
        "GET /head?a=\"b HTTP/1.1",
        "Host: ODD.localhost:1234",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Request-Start: 1",
        "Via: 1.1 vegur",
    ] {
        assert!(body.contains(wanted), "{wanted} in {body}");
    }
    let id = body
        .lines()
        .find_map(|line| line.strip_prefix("X-Request-ID: "))
        .expect("an id")
        .trim();
    let line = line(&host, "odd");
    let start = format!(
        "at=info method=GET path=\"/head?a=\\\"b\" host=ODD.localhost:1234 request_id={id} fwd=\"127.0.0.1\" dyno=web.1 connect="
    );
    assert!(line.starts_with(&start), "{line}");
    let end = format!("status=200 bytes={} protocol=http queue=0ms", body.len());
    assert!(line.ends_with(&end), "{line}");
    assert_eq!(host.get("nobody.localhost", "/").0, 404);
}

#[test]
fn bodies_keep_their_length_in_every_framing() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    let send = |request: &str| {
        host.raw(&request.replace("{h}", "Host: odd.localhost\r\nConnection: close"))
    };
    let reply = send("POST /echo HTTP/1.1\r\n{h}\r\nContent-Length: 5\r\n\r\nhello");
    assert!(reply.ends_with("\r\n\r\nhello"), "{reply}");
    let reply = send("GET /chunks HTTP/1.1\r\n{h}\r\n\r\n");
    assert!(
        reply.contains("\r\nTransfer-Encoding: chunked\r\n"),
        "{reply}"
    );
    assert!(reply.ends_with("\r\n0\r\n\r\n"), "{reply}");
    let reply = send("GET /chunks HTTP/1.0\r\n{h}\r\n\r\n");
    assert!(
        !reply.contains("chunked") && reply.ends_with("\r\n\r\nhello world"),
        "{reply}"
    );
    let reply = send("HEAD / HTTP/1.1\r\n{h}\r\n\r\n");
    assert!(
        reply.contains("\r\nContent-Length: 5\r\n") && reply.ends_with("\r\n\r\n"),
        "{reply}"
    );
    let reply =
        send("POST /echo HTTP/1.1\r\n{h}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok");
    assert!(
        reply.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{reply}"
    );
    // Two requests in one go are answered one after the other.
    let one = "GET / HTTP/1.1\r\nHost: odd.localhost\r\n\r\n";
    let two = "GET / HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n\r\n";
    let reply = host.raw(&format!("{one}{two}"));
    assert_eq!(reply.matches("HTTP/1.1 200 OK").count(), 2, "{reply}");
}

#[test]
fn what_could_be_smuggled_never_reaches_a_dyno() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "X: a\r\n b\r\n",
        "X: a\nY: b\r\n",
        "X: a\0b\r\n",
        "Host: odd.localhost\r\n",
    ] {
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: odd.localhost\r\n\r\n";
        let reply = host.raw(&format!(
            "POST / HTTP/1.1\r\nHost: odd.localhost\r\n{lines}\r\n{smuggled}"
        ));
        assert!(reply.starts_with("HTTP/1.1 400 "), "{lines:?}: {reply}");
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{lines:?}: {reply}");
    }
    // Its app hears of it where the head still names one, and no dyno does.
    let logs = host.logs("odd");
    for line in logs.lines().filter(|l| l.contains("heroku[router]")) {
        let code = "at=error code=H26 desc=\"Request Error\" cause=\"bad header\" method=POST path=\"/\" host=odd.localhost request_id=";
        assert!(line.contains(code), "{line}");
        let end = " dyno= connect= service= status=400 bytes= protocol=http queue=";
        assert!(line.ends_with(end), "{line}");
    }
    assert!(logs.contains("code=H26"), "{logs}");
}

#[test]
fn an_upgrade_becomes_a_pipe_and_one_line_at_its_end() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    let mut stream = host.connect();
    let head = "GET /ws HTTP/1.1\r\nHost: odd.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    // Bytes right behind the head belong to the pipe.
    stream
        .write_all(format!("{head}first").as_bytes())
        .expect("written");
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.ends_with("first") {
        let count = stream.read(&mut buffer).expect("read");
        assert!(count > 0, "closed after {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(
        seen.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{seen}"
    );
    stream.write_all(b"second").expect("written");
    let count = stream.read(&mut buffer).expect("read");
    assert_eq!(&buffer[..count], b"second");
    drop(stream);
    host.until("the line", || {
        let line = line(&host, "odd");
        line.contains("status=101 bytes=11 ") && line.ends_with(" closed_by=client")
    });
}

#[test]
fn a_stopped_dyno_gets_no_request_and_the_next_one_is_waited_for() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    for _ in 0..3 {
        host.ok(&["ps:restart", "-a", "odd"]);
        // No dyno is up now: the request waits for the new one.
        let (status, head, _) = host.get("odd.localhost", "/");
        assert_eq!(status, 200, "{head}\n{}", host.logs("odd"));
    }
}

/// Milliseconds, behind such a word.
fn number(text: &str, word: &str) -> u32 {
    let rest = text.split_once(word).expect(word).1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A request that comes while no dyno is up is held, and served by the first one: its line, its dyno
/// and the app's figures tell the same time.
fn held(host: &Host, app: &str) {
    let reply = host.get(&format!("{app}.localhost"), "/head?held");
    assert_eq!(reply.0, 200, "{}", reply.1);
    host.until("its line", || {
        line(host, app).contains("path=\"/head?held\"")
    });
    let line = line(host, app);
    let told = number(&line, " queue=");
    assert!((300..30_000).contains(&told), "{line}");
    let heard = number(&reply.2, "X-Heroku-Queue-Wait-Time: ");
    assert_eq!(heard, told, "{line}\n{}", reply.2);
    let traffic = host.json("GET", &format!("/apps/{app}/traffic"), "");
    let slowest = traffic["total"]["queue"]["p99"].as_f64().expect("in ms");
    // Counted by size, not one by one.
    let ratio = slowest / f64::from(told);
    assert!((0.8..1.25).contains(&ratio), "{traffic}\n{line}");
}

/// An app without preboot whose dyno takes its time to boot.
fn slow(seconds: u32) -> Host {
    let host = Host::start(Timings::default());
    host.ok(&["create", "odd"]);
    host.ok(&["features:disable", "preboot", "-a", "odd"]);
    let command = format!("sleep {seconds}; exec python3 server.py");
    host.release("odd", "odd", &[("web", &command)]);
    host.until_up("odd", &["web.1"]);
    host
}

#[test]
fn a_request_that_comes_between_two_dynos_is_held_for_the_next() {
    let host = slow(2);
    host.ok(&["ps:restart", "-a", "odd"]);
    host.until("it is stopped", || {
        host.states("odd") != [("web.1".to_owned(), "up".to_owned())]
    });
    held(&host, "odd");
}

#[test]
fn a_request_that_comes_while_the_first_dyno_boots_is_held_for_it() {
    let host = slow(2);
    host.ok(&["ps:scale", "web=0", "-a", "odd"]);
    host.until("nobody serves", || host.get("odd.localhost", "/").0 == 503);
    host.until("it is gone", || host.states("odd").is_empty());
    host.ok(&["ps:scale", "web=1", "-a", "odd"]);
    host.until("it boots", || !host.states("odd").is_empty());
    held(&host, "odd");
}

#[test]
fn a_request_under_way_ends_before_its_dyno_is_told_to() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    let mut late = host.connect();
    // Longer than a dyno takes to boot here.
    let head = "GET /late?6000 HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n\r\n";
    late.write_all(head.as_bytes()).expect("written");
    host.until("it is under way", || {
        host.json("GET", "/apps/odd/traffic", "")["in_flight"] == 1
    });
    host.ok(&["ps:restart", "-a", "odd"]);
    let up = "State changed from starting to up";
    host.until("the next one is up", || {
        host.logs("odd").matches(up).count() == 2
    });
    assert_eq!(host.get("odd.localhost", "/").2, "hello");
    let stopped = "Stopping all processes with SIGTERM";
    let logs = host.logs("odd");
    assert!(!logs.contains(stopped), "{logs}");
    assert!(!logs.contains("path=\"/late"), "{logs}");
    let mut reply = String::new();
    late.read_to_string(&mut reply).expect("an answer");
    assert!(reply.ends_with("\r\n\r\nat last"), "{reply}");
    host.until("it is stopped", || host.logs("odd").contains(stopped));
    let logs = host.logs("odd");
    assert!(!logs.contains("code="), "{logs}");
}
