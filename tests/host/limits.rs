//! The router's limits as long as nobody sets others. Elsewhere they are short, so that tests need
//! not wait; here they are waited for.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use manifold::settings::Timings;

use crate::host::Host;

/// Sends bytes, and reads to the end: what came, and how long it took.
fn talk(host: &Host, bytes: &str) -> (String, f64) {
    let mut stream = host.connect();
    let patience = Some(Duration::from_mins(2));
    stream.set_read_timeout(patience).expect("set");
    let begin = Instant::now();
    stream.write_all(bytes.as_bytes()).expect("written");
    let mut reply = Vec::new();
    // A cut is an end, too.
    let _ = stream.read_to_end(&mut reply);
    let reply = String::from_utf8_lossy(&reply).into_owned();
    (reply, begin.elapsed().as_secs_f64())
}

#[test]
#[ignore = "takes 77 seconds"]
fn silence_ends_after_30_or_55_or_75_seconds() {
    let host = Host::start(Timings {
        // Longer than anybody waits for it.
        boot_timeout: Duration::from_mins(3),
        ..Timings::default()
    });
    host.web("odd", "odd", "python3 server.py");
    host.ok(&["create", "late"]);
    host.release("late", "odd", &[("web", "sleep 1000")]);
    host.until("it is known", || {
        host.json("GET", "/apps/late/dynos", "")[0]["state"] == "starting"
    });
    let check = |app: &str, bytes: &str, start: &str, line: &str, seconds: f64| {
        let (reply, took) = talk(&host, bytes);
        assert!(reply.starts_with(start), "{line}: {reply}");
        assert!((seconds..seconds + 5.0).contains(&took), "{line}: {took} s");
        let logs = host.ok(&["logs", "-a", app, "-d", "router", "-n", "100"]);
        assert!(logs.contains(line), "{line} in {logs}");
    };
    let get = |app: &str, path: &str, lines: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {app}.localhost\r\n{lines}\r\n")
    };
    let cut = "HTTP/1.1 200 OK\r\n";
    // A connection that nobody uses: neither is it an error, nor has it a line.
    let idle = |bytes: &str| {
        let (reply, took) = talk(&host, bytes);
        assert_eq!(
            reply.matches("HTTP/1.1").count(),
            usize::from(!bytes.is_empty())
        );
        assert!((60.0..65.0).contains(&took), "{took} s");
    };
    let cases = [
        // The dyno says nothing.
        (
            "odd",
            get("odd", "/watch?a", "Connection: close\r\n"),
            "HTTP/1.1 503 ",
            "code=H12 desc=\"Request timeout\" method=GET path=\"/watch?a\"",
            30.0,
        ),
        // It falls silent.
        (
            "odd",
            get("odd", "/silent", ""),
            cut,
            "code=H15 desc=\"Idle connection\" method=GET path=\"/silent\"",
            55.0,
        ),
        // So do both.
        (
            "odd",
            get("odd", "/ws", "Connection: Upgrade\r\nUpgrade: x\r\n"),
            "HTTP/1.1 101 ",
            "code=H15 desc=\"Idle connection\" method=GET path=\"/ws\"",
            55.0,
        ),
        // The client does.
        (
            "odd",
            get("odd", "/echo", "Content-Length: 9\r\n"),
            "",
            "code=H28 desc=\"Client Connection Idle\" method=GET path=\"/echo\"",
            55.0,
        ),
        // No dyno is up.
        (
            "late",
            get("late", "/", "Connection: close\r\n"),
            "HTTP/1.1 503 ",
            "code=H20 desc=\"App boot timeout\" method=GET path=\"/\"",
            75.0,
        ),
    ];
    let check = &check;
    std::thread::scope(|scope| {
        for (app, bytes, start, line, seconds) in &cases {
            scope.spawn(move || check(app, bytes, start, line, *seconds));
        }
        scope.spawn(|| idle(""));
        scope.spawn(|| idle(&get("odd", "/", "")));
    });
}

/// Source: RFC 6585 section 5.
#[test]
fn a_head_of_more_than_256_kib_is_431() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    let head = |count: usize| {
        // Lines of 4 KiB, each with a name of its own.
        let values = "a".repeat(4089);
        let lines = (0..count).map(|number| format!("X-{number:03}: {values}\r\n"));
        let lines = lines.collect::<Vec<_>>().concat();
        format!("GET /head HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n{lines}\r\n")
    };
    let (reply, _) = talk(&host, &head(63));
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply:.200}");
    let (reply, _) = talk(&host, &head(65));
    assert!(
        reply.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        "{reply:.200}"
    );
    // Nor may it begin with more than that of nothing.
    let empty = "\r\n".repeat(100 << 10);
    let (reply, _) = talk(&host, &format!("{empty}{}", head(1)));
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply:.200}");
    let (reply, _) = talk(&host, &"\r\n".repeat(129 << 10));
    assert!(reply.starts_with("HTTP/1.1 431 "), "{reply:.200}");
}

#[test]
#[ignore = "takes a minute"]
fn a_minute_of_long_queues_has_a_line() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    host.ok(&["routing:set", "global-queue", "-a", "odd"]);
    let late = "GET /late?300 HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n\r\n";
    let begin = Instant::now();
    let told = || host.ok(&["logs", "-a", "odd", "-d", "router", "-n", "5"]);
    // Two at a time for one dyno: one of them waits.
    while !told().contains("at=warning desc=\"Requests wait for a dyno\"") {
        assert!(begin.elapsed() < Duration::from_secs(90), "{}", told());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (reply, _) = talk(&host, late);
                    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
                });
            }
        });
    }
    let took = begin.elapsed().as_secs_f64();
    assert!((60.0..80.0).contains(&took), "{took} s");
    let line = told();
    let average = line.split_once("queue_average=").expect("told").1;
    let average: u64 = average
        .split_once("ms")
        .expect("in ms")
        .0
        .parse()
        .expect("a number");
    // Every other one waited for 300 ms.
    assert!((100..300).contains(&average), "{line}");
}

#[test]
#[ignore = "takes a minute"]
fn an_automatic_certificate_that_failed_is_tried_again_after_a_minute() {
    crate::acme::a_domain_that_failed_is_tried_again();
}
