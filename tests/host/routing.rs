//! Routing policies, the line before the dynos, and what the operator sees of it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use manifold::settings::Timings;

use crate::host::Host;
use crate::tls::{Load, client, with_tls};

const APP: &str = "odd";

fn start() -> Host {
    let host = Host::start(Timings::default());
    host.web(APP, "odd", "python3 server.py");
    host
}

/// Router lines of the app that have all of these words.
fn lines(host: &Host, words: &[&str]) -> Vec<String> {
    let logs = host.ok(&["logs", "-a", APP, "-d", "router", "-n", "1500"]);
    let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
    logs.lines().filter(has_all).map(str::to_owned).collect()
}

/// Sends a request and leaves its answer alone.
fn send(host: &Host, path: &str) -> std::net::TcpStream {
    let mut stream = host.connect();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {APP}.localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    stream
}

fn traffic(host: &Host) -> serde_json::Value {
    host.json("GET", &format!("/apps/{APP}/traffic"), "")
}

#[test]
fn a_policy_is_set_shown_and_refused() {
    let host = start();
    let shown = || host.ok(&["routing", "-a", APP]);
    assert!(shown().ends_with("Policy:      least-in-flight\nConcurrency: unlimited\n"));
    host.ok(&["config:set", "WEB_CONCURRENCY=3", "-a", APP]);
    assert!(shown().ends_with("Concurrency: 3 (WEB_CONCURRENCY)\n"));
    host.ok(&["routing:set", "--concurrency", "7", "-a", APP]);
    assert!(shown().ends_with("Policy:      least-in-flight\nConcurrency: 7\n"));
    host.ok(&["routing:set", "random", "-a", APP]);
    assert!(shown().ends_with("Policy:      random\nConcurrency: unlimited\n"));
    let (status, said) = host.fails(&["routing:set", "fastest", "-a", APP]);
    assert!(status == 2 && said.contains("round-robin"), "{said}");
    let (status, said) = host.fails(&["routing:set", "random", "--concurrency", "2", "-a", APP]);
    assert!(status == 5 && said.contains("no concurrency"), "{said}");
    let line = "app[api]: Routing set to least-in-flight, concurrency 7 by user ";
    assert!(host.logs(APP).contains(line));
}

#[test]
fn the_global_queue_tells_the_dyno_its_depth_and_no_client_can() {
    let host = start();
    let head = |words: &str| {
        host.raw(&format!(
            "GET /head HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: close\r\n{words}\r\n"
        ))
    };
    let forged = "X-Heroku-Queue-Depth: 99\r\nX-Heroku-Queue-Wait-Time: 99\r\n";
    let plain = head(forged);
    assert!(plain.contains("\r\nX-Heroku-Queue-Wait-Time: 0"), "{plain}");
    assert!(!plain.contains("Queue-Depth"), "{plain}");
    host.ok(&["routing:set", "global-queue", "-a", APP]);
    host.until("the router knows", || head(forged).contains("Queue-Depth"));
    let bamboo = head(forged);
    for line in [
        "X-Heroku-Dynos-In-Use: 1",
        "X-Heroku-Queue-Depth: 0",
        "X-Heroku-Queue-Wait-Time: 0",
    ] {
        assert!(bamboo.contains(line), "{line} in {bamboo}");
    }
    assert!(!bamboo.contains(": 99\r\n"), "{bamboo}");
}

#[test]
fn a_dyno_that_has_too_much_to_do_is_spared_as_long_as_it_says() {
    let host = start();
    host.ok(&["ps:scale", "web=2", "-a", APP]);
    host.until_up(APP, &["web.1", "web.2"]);
    let answer = "HTTP/1.1%20503%20Busy%0d%0aRetry-After:%208%0d%0aContent-Length:%200%0d%0a%0d%0a";
    let begin = Instant::now();
    assert_eq!(
        host.get("odd.localhost", &format!("/play?bytes={answer}"))
            .0,
        503
    );
    host.until("its line", || !lines(&host, &["status=503"]).is_empty());
    let line = lines(&host, &["status=503"]).remove(0);
    let busy = if line.contains(" dyno=web.1 ") {
        "dyno=web.1 "
    } else {
        "dyno=web.2 "
    };
    for _ in 0..30 {
        assert_eq!(host.get("odd.localhost", "/head").0, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "too late to tell");
    host.until("all lines", || {
        lines(&host, &["path=\"/head\""]).len() == 30
    });
    assert_eq!(lines(&host, &["path=\"/head\"", busy]).len(), 0);
    host.until("it is used again", || {
        host.get("odd.localhost", "/later");
        !lines(&host, &["path=\"/later\"", busy]).is_empty()
    });
    assert!(begin.elapsed() >= Duration::from_secs(8));
}

#[test]
fn a_request_waits_its_turn_and_leaves_the_line_with_its_client() {
    let host = start();
    host.ok(&["routing:set", "--concurrency", "1", "-a", APP]);
    host.until("the router knows", || traffic(&host)["limit"] == 1);
    // A connection that is upgraded holds its dyno until it ends.
    let mut held = host.connect();
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    );
    held.write_all(upgrade.as_bytes()).expect("written");
    host.until("it is held", || traffic(&host)["in_flight"] == 1);
    let leaves = send(&host, "/leaves");
    let stays = send(&host, "/head");
    host.until("two wait", || traffic(&host)["waiting"] == 2);
    drop(leaves);
    host.until("one left", || traffic(&host)["waiting"] == 1);
    let gone = "sock=client at=warning code=H27 desc=\"Client Request Interrupted\"";
    host.until("its line", || {
        lines(
            &host,
            &[gone, "path=\"/leaves\"", "dyno= connect= service="],
        )
        .len()
            == 1
    });
    drop(held);
    host.until("the other is served", || {
        !lines(&host, &["path=\"/head\"", "dyno=web.1", "status=200"]).is_empty()
    });
    drop(stays);
    let line = lines(&host, &["path=\"/head\""]).remove(0);
    let queue = line.rsplit_once("queue=").map(|(_, queue)| queue);
    let queue: u64 = queue
        .and_then(|q| q.strip_suffix("ms"))
        .and_then(|q| q.parse().ok())
        .expect("a time");
    assert!(queue > 0, "{line}");
    let seen = traffic(&host);
    assert_eq!(
        (&seen["waiting"], &seen["in_flight"]),
        (&0.into(), &0.into())
    );
    assert_eq!(seen["total"]["errors"]["H27"], 1, "{seen}");
    assert_eq!(seen["total"]["classes"]["2xx"], 1, "{seen}");
    assert_eq!(seen["dynos"][0]["total"]["requests"], 2, "{seen}");
}

#[test]
fn what_the_operator_sees_is_well_formed() {
    let host = Host::start(Timings {
        metrics_period: Duration::from_secs(1),
        ..Timings::default()
    });
    host.web(APP, "odd", "python3 server.py");
    assert_eq!(host.get("odd.localhost", "/").0, 200);
    assert_eq!(host.get("odd.localhost", "/close").0, 503);
    host.until("both are counted", || {
        traffic(&host)["total"]["requests"] == 2
    });
    let page = || {
        let (status, text) = host.api("GET", "/metrics", b"");
        assert_eq!(status, 200);
        text.replace("\r\n", "\n")
    };
    host.until("it was looked at", || {
        page().contains("manifold_dyno_memory_bytes{")
    });
    let text = page();
    for line in [
        "manifold_app_requests_total{app=\"odd\",class=\"2xx\"} 1\n",
        "manifold_app_errors_total{app=\"odd\",code=\"H13\"} 1\n",
        "manifold_app_service_seconds_count{app=\"odd\"} 2\n",
        "manifold_app_dynos{app=\"odd\",state=\"up\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let dynos = host.json("GET", &format!("/apps/{APP}/dynos"), "");
    let id = dynos[0]["id"].as_str().expect("an id");
    let figure = |name: &str, more: &str| {
        let start = format!("{name}{{app=\"odd\",dyno=\"web.1\",id=\"{id}\"{more}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        let figure = line.unwrap_or_else(|| panic!("{start} in {text}"));
        figure.parse::<f64>().expect("a number")
    };
    let rss = figure("manifold_dyno_memory_bytes", ",kind=\"rss\"");
    let quota = figure("manifold_dyno_memory_quota_bytes", "");
    // A Python process, in a dyno of the default size.
    assert!(rss > 1e6 && rss < quota, "{rss}");
    assert!((quota - 512.0 * 1024.0 * 1024.0).abs() < 0.5, "{quota}");
    assert!(figure("manifold_dyno_tasks", "") >= 1.0);
    for minutes in [1, 5, 15] {
        let load = figure("manifold_dyno_load", &format!(",minutes=\"{minutes}\""));
        assert!(load.abs() < f64::EPSILON, "nothing runs: {load}");
    }
    let started = figure("manifold_dyno_start_time_seconds", "");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.expect("past 1970").as_secs_f64() - started;
    assert!((0.0..600.0).contains(&age), "{age}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian package `prometheus`)");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("written");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
    let top = host.ok(&["top"]);
    assert!(top.contains("odd") && top.contains("web.1"), "{top}");
    let one = host.ok(&["metrics", "-a", "odd"]);
    assert!(one.contains("2 requests (2xx 1, 5xx 1, H13 1)"), "{one}");
}

/// One change of every kind that makes the router another table.
fn changes(round: usize) -> Vec<Vec<String>> {
    let domain = format!("www{round}.example.test");
    let other = format!("other-{round}");
    let of = |app: &str, words: &str| {
        let words = format!("{words} -a {app}");
        words.split(' ').map(str::to_owned).collect()
    };
    vec![
        of(APP, "routing:set random"),
        of(APP, &format!("domains:add {domain}")),
        of(APP, "routing:set global-queue"),
        of(APP, "features:enable http-session-affinity"),
        of(APP, "routing:set round-robin"),
        vec!["create".to_owned(), other.clone()],
        of(&other, "maintenance:on"),
        of(APP, "features:disable http-session-affinity"),
        of(APP, "routing:set least-in-flight --concurrency 3"),
        of(APP, "features:enable http-disable-keepalive-to-dyno"),
        of(&other, &format!("domains:add {other}.test")),
        of(APP, "features:disable http-disable-keepalive-to-dyno"),
        of(APP, &format!("domains:remove {domain}")),
        of(&other, &format!("apps:destroy --confirm {other}")),
        of(APP, "routing:set least-in-flight"),
    ]
}

#[test]
fn router_changes_under_load_drop_nothing() {
    const ROUNDS: usize = 3;
    let host = Host::start_with(Timings::default(), with_tls);
    host.ok(&["create", APP]);
    host.release(APP, "odd", &[("web", "python3 server.py")]);
    host.ok(&["ps:scale", "web=2", "-a", APP]);
    host.until_up(APP, &["web.1", "web.2"]);
    let name = "odd.localhost";
    let config = client(&host.ok(&["certs:ca"]), &[]);
    let load = Load {
        host: &host,
        config: &config,
        name,
        path: "/who?x",
        clients: 2,
        pause: Duration::ZERO,
    };
    let served = load.run(
        || host.get(name, "/who?x").1,
        |go_on| {
            for change in (0..ROUNDS).flat_map(changes) {
                let words: Vec<&str> = change.iter().map(String::as_str).collect();
                host.ok(&words);
                go_on();
            }
        },
    );
    let count = ROUNDS * changes(0).len();
    eprintln!("0 of {served} requests failed in {count} changes");
    assert!(served >= 20 * count, "{served}");
    let failed = lines(&host, &["at=error"]);
    assert_eq!(failed, Vec::<String>::new());
}
