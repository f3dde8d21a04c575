//! `WebSocket`s through the router, by a real library at both ends (Debian's `python3-websockets`).

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
