//! `WebSocket`s through the router, by a real library at both ends (Debian's `python3-websockets`).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use manifold::settings::Timings;

use crate::host::{Host, short};

const APP: &str = "chat";

fn start(timings: Timings) -> Host {
    let host = Host::start(timings);
    host.web(APP, "websocket", "exec /usr/bin/python3 server.py");
    host
}

/// The client, doing one thing.
fn client(host: &Host, act: &str) -> Child {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/apps/websocket/client.py"
    );
    let mut command = Command::new("/usr/bin/python3");
    command.args([script, &host.http.port().to_string(), "chat.localhost", act]);
    command
        .stdout(Stdio::piped())
        .spawn()
        .expect("Debian's python3 runs (package `python3-websockets`)")
}

fn run(host: &Host, act: &str) {
    let output = client(host, act).wait_with_output().expect("it ends");
    assert!(output.status.success(), "{act}");
    assert_eq!(output.stdout, b"done\n", "{act}");
}

/// The router's lines, once there are so many.
fn lines(host: &Host, count: usize) -> Vec<String> {
    let lines = || {
        let logs = host.ok(&["logs", "-a", APP, "-d", "router", "-n", "1500"]);
        logs.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    host.until("the lines", || lines().len() == count);
    lines()
}

#[test]
fn messages_pass_whole_and_in_order_and_many_at_once() {
    let host = start(Timings::default());
    run(&host, "messages");
    let line = lines(&host, 1).remove(0);
    assert!(
        line.contains("at=info method=GET path=\"/chat?x=1\" host=chat.localhost ")
            && line.contains(" dyno=web.1 ")
            && line.contains(" status=101 ")
            && line.ends_with(" closed_by=dyno"),
        "{line}"
    );
    run(&host, "many");
    // After both have said goodbye the server closes first. Source: RFC 6455 section 7.1.1.
    for line in lines(&host, 101) {
        assert!(
            line.contains("at=info ") && line.contains(" status=101 "),
            "{line}"
        );
        assert!(line.ends_with(" closed_by=dyno"), "{line}");
    }
}

#[test]
fn silence_of_both_sides_is_h15() {
    let host = start(short());
    run(&host, "idle");
    let line = lines(&host, 1).remove(0);
    assert!(
        line.contains("at=error code=H15 desc=\"Idle connection\" method=GET path=\"/chat?x=1\"")
            && line.contains(" status=101 ")
            && line.ends_with(" closed_by=router"),
        "{line}"
    );
}

#[test]
fn a_dyno_that_must_go_closes_its_sockets_itself() {
    let host = start(Timings {
        stop_grace: short().stop_grace,
        ..Timings::default()
    });
    let mut child = client(&host, "drain");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    host.ok(&["ps:scale", "web=0", "-a", APP]);
    line.clear();
    out.read_to_string(&mut line).expect("the rest");
    assert!(
        child.wait().expect("it ends").success(),
        "{}",
        host.logs(APP)
    );
    assert_eq!(line, "done\n");
    let line = lines(&host, 1).remove(0);
    assert!(
        line.contains("at=info ") && line.ends_with(" closed_by=dyno"),
        "{line}"
    );
}

/// As an upgrade does it.
#[test]
fn a_router_that_makes_way_says_goodbye_to_every_client() {
    let mut host = start(Timings::default());
    let mut child = client(&host, "restart");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line");
    assert_eq!(line, "open\n");
    host.leave();
    line.clear();
    out.read_to_string(&mut line).expect("the rest");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(line, "done\n");
    let line = host.written("path=\"/chat?x=1\"");
    assert!(
        line.contains("at=info ") && line.ends_with(" closed_by=router"),
        "{line}"
    );
}

/// Set where the network reaches the package indexes.
const NETWORK: &str = "MANIFOLD_TEST_NETWORK";

/// What judges: Autobahn's cases, and the version whose cases were counted.
const KOSOKU: &str = "kosoku==0.1.0";

/// Those that take seconds: all of framing, pings, reserved bits, opcodes, fragments, UTF-8 and ends;
/// large messages and compression by examples.
const SOME: [&str; 28] = [
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.*", "9.2.*", "9.3.1", "9.4.1", "9.5.*",
    "9.6.*", "9.7.1", "9.8.1", "10.*", "12.1.1", "12.2.1", "12.3.1", "12.4.1", "12.5.1", "13.1.1",
    "13.2.1", "13.3.1", "13.4.1", "13.5.1", "13.6.1", "13.7.1",
];

/// How a case ended: its verdict, that on the end of the connection, the code of the end.
type Verdict = (String, String, Option<u16>);

/// Whether both ends of a case are the dyno's own. In reserved bits and opcodes (3 and 4) a fault comes
/// right behind a message: whether that is answered first depends on how the bytes come together at the
/// dyno, and Autobahn passes both (`OK` or `NON-STRICT`).
fn same(case: &str, one: &Verdict, other: &Verdict) -> bool {
    let passed = |(verdict, ..): &Verdict| matches!(verdict.as_str(), "OK" | "NON-STRICT");
    let by_chance = case.starts_with("3.") || case.starts_with("4.");
    let ends = (&one.1, one.2) == (&other.1, other.2);
    one == other || (by_chance && ends && passed(one) && passed(other))
}

#[test]
fn autobahns_verdicts_are_those_of_the_dyno_itself() {
    same_verdicts(&SOME, 287);
}

#[test]
#[ignore = "takes ten minutes; the one above runs 287 of them"]
fn all_of_autobahns_verdicts_are_those_of_the_dyno_itself() {
    same_verdicts(&["*"], 517);
}

fn same_verdicts(cases: &[&str], count: usize) {
    if std::env::var_os(NETWORK).is_none() {
        eprintln!("{NETWORK} is not set: Autobahn's cases are left out");
        return;
    }
    let host = start(Timings::default());
    // Its client takes the name in `Host` from the address.
    host.ok(&["domains:add", "127.0.0.1", "-a", APP]);
    host.until("the router knows", || host.get("127.0.0.1", "/").0 == 426);
    let packages = host.dir.path().join("packages");
    let mut pip = Command::new("/usr/bin/python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-cache-dir"]);
    // A directory of its own harms nobody.
    pip.arg("--root-user-action=ignore");
    let installed = pip.arg("--target").arg(&packages).arg(KOSOKU).status();
    assert!(
        installed
            .expect("pip runs (package `python3-pip`)")
            .success()
    );
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/apps/websocket/verdicts.py"
    );
    let verdicts = |port: u16| -> BTreeMap<String, Verdict> {
        let output = Command::new("/usr/bin/python3")
            .args([script, &format!("ws://127.0.0.1:{port}/echo")])
            .args(cases)
            .env("PYTHONPATH", &packages)
            .output()
            .expect("python3 runs");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("verdicts")
    };
    let logs = host.logs(APP);
    let port = logs.lines().find_map(|l| l.split_once("listening on "));
    let port = port.and_then(|(_, port)| port.trim().parse().ok());
    let straight = verdicts(port.expect("the dyno's own port"));
    let routed = verdicts(host.http.port());
    assert_eq!(straight.len(), count);
    let differing: Vec<_> = straight
        .iter()
        .filter(|(case, verdict)| !routed.get(*case).is_some_and(|r| same(case, verdict, r)))
        .map(|(case, verdict)| format!("{case}: {verdict:?}, routed {:?}", routed.get(case)))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_eq!(routed.len(), count);
}
