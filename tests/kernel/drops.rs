//! An open-loop load of every kind of request while everything that replaces dynos happens: none may
//! fail.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, check, contains, copy_app, deployed};
use crate::load::Load;
use crate::support;

/// Requests a second, and deploys under them, at least; there are as many other events that replace
/// dynos.
const RATE: u32 = 300;
const DEPLOYS: usize = 20;

/// Each ends with one of every other event.
const ROUNDS: usize = 4;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "drops::no_request_fails_while_dynos_are_replaced",
        no_request_fails,
    )]
}

/// Waits until exactly these dynos are up and of the release that is current.
fn settled(host: &Host, names: &[&str]) -> Result<(), Failed> {
    host.eventually("the dynos of the current release serve", || {
        let releases = host.cli(&["releases", "-a", "tiny", "--json", "-n", "1"]);
        let releases: serde_json::Value =
            serde_json::from_slice(&releases.stdout).unwrap_or_default();
        let dynos = host.cli(&["ps", "-a", "tiny", "--json"]);
        let dynos: serde_json::Value = serde_json::from_slice(&dynos.stdout).unwrap_or_default();
        let dynos = dynos.as_array().cloned().unwrap_or_default();
        dynos.len() == names.len()
            && dynos.iter().all(|dyno| {
                dyno["state"] == "up" && dyno["release"]["version"] == releases[0]["version"]
            })
    })
}

/// Commands under load, each awaited until the dynos that it wants serve.
struct Events<'a> {
    host: &'a Host,
    count: usize,
}

impl Events<'_> {
    fn then(&mut self, args: &[&str], names: &[&str]) -> Result<(), Failed> {
        self.host.ok(&[args, &["-a", "tiny"]].concat())?;
        self.count += 1;
        settled(self.host, names)
    }
}

/// Serves no more at once when it is told to stop, as one that dies of it, but stays long enough to
/// be told again.
const SERVER: &str = r#"
import http.server, os, signal, threading, time, uuid

INSTANCE = uuid.uuid4().hex
told = 0

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/files":
            data = "\n".join(os.listdir("/app"))
        elif self.path.startswith("/slow/"):
            time.sleep(int(os.path.basename(self.path)) / 1000)
            data = "at last\n"
        else:
            data = f"hello from {os.environ['DYNO']}\n"
        self.answer(data.encode())
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))
    def answer(self, data):
        if told:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, format, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

def stop(signum, frame):
    global told
    told += 1
    os.write(1, f"{INSTANCE} got SIGTERM\n".encode())
    if told == 1:
        server.socket.close()
        threading.Thread(target=server.shutdown).start()

server = Server(("0.0.0.0", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, stop)
os.write(1, f"{INSTANCE} begins\n".encode())
server.serve_forever()
time.sleep(0.5)
"#;

/// A copy of the tiny app whose versions differ.
fn versions() -> Result<tempfile::TempDir, Failed> {
    let dir = tempfile::tempdir()?;
    copy_app("tiny", dir.path())?;
    std::fs::write(dir.path().join("server.py"), SERVER)?;
    Ok(dir)
}

/// Follows what the app says, into a file. Ended when dropped.
struct Tail(Child);

impl Tail {
    fn start(host: &Host) -> Result<Self, Failed> {
        let file = std::fs::File::create(host.dir.path().join("tail"))?;
        let args = ["logs", "--tail", "-s", "app", "-a", "tiny"];
        let mut command = host.command(&args);
        let command = command.current_dir(host.dir.path()).stdin(Stdio::null());
        Ok(Self(command.stdout(file).spawn()?))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        support::signal(self.0.id(), nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// How often each instance that began was told to stop; two of them still run.
fn stops(host: &Host) -> Result<BTreeMap<String, usize>, Failed> {
    let text = std::fs::read_to_string(host.dir.path().join("tail"))?;
    let mut told = BTreeMap::new();
    for line in text.lines() {
        let Some((_, said)) = line.split_once("]: ") else {
            continue;
        };
        match said.split_once(' ') {
            Some((instance, "begins")) => {
                told.entry(instance.to_owned()).or_default();
            }
            Some((instance, "got SIGTERM")) => {
                *told.entry(instance.to_owned()).or_default() += 1;
            }
            _ => {}
        }
    }
    Ok(told)
}

fn each_is_stopped_once(host: &Host) -> Result<(), Failed> {
    host.eventually("all but two were told to stop", || {
        let told = stops(host).unwrap_or_default();
        told.values().filter(|count| **count == 0).count() == 2
    })?;
    let told = stops(host)?;
    let (twice, once): (Vec<_>, Vec<_>) = told.iter().partition(|(_, count)| **count > 1);
    eprintln!(
        "{} dynos began, two of them run; {} got SIGTERM twice",
        told.len(),
        twice.len()
    );
    check(
        twice.is_empty(),
        format!("SIGTERM more than once: {twice:?}"),
    )?;
    // Each deploy replaces two.
    check(
        once.len() > 2 * DEPLOYS,
        format!("only {} dynos", once.len()),
    )
}

fn no_request_fails() -> Result<(), Failed> {
    let host = deployed()?;
    host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
    let two = ["web.1", "web.2"];
    settled(&host, &two)?;
    let source = versions()?;
    let dir = source.path().display().to_string();
    let _tail = Tail::start(&host)?;
    let load = Load::mixed(host.http, "tiny.localhost", RATE);
    let mut events = Events {
        host: &host,
        count: 0,
    };
    for round in 0..ROUNDS {
        for number in 0..DEPLOYS / ROUNDS {
            let version = format!("version-{round}-{number}");
            std::fs::write(source.path().join(&version), "")?;
            events.then(&["deploy", &dir], &two)?;
            let files = host.get("tiny.localhost", "/files").ok_or("no answer")?;
            contains(&files.1, &version)?;
        }
        events.then(&["ps:restart"], &two)?;
        events.then(&["ps:scale", "web=3"], &["web.1", "web.2", "web.3"])?;
        events.then(&["ps:scale", "web=1"], &["web.1"])?;
        events.then(&["ps:scale", "web=2"], &two)?;
        events.then(&["config:set", &format!("ROUND={round}")], &two)?;
        events.then(&["rollback"], &two)?;
    }
    // A release whose dynos do not start leaves the old ones alone.
    host.ok(&["config:set", "PYTHONHOME=/nowhere", "-a", "tiny"])?;
    host.eventually("the roll is aborted", || {
        host.logs("tiny").contains("aborted: web.")
    })?;
    events.then(&["config:unset", "PYTHONHOME"], &two)?;
    let count = events.count;
    let outcome = load.end();
    let (sent, failed) = (outcome.sent, outcome.failed);
    let rate = f64::from(u32::try_from(sent)?) / outcome.took.as_secs_f64();
    let sum = format!(
        "{} of {sent} requests failed, at {rate:.0} a second over {DEPLOYS} deploys and {} other events (slowest answer {} ms)",
        failed.len(),
        count - DEPLOYS,
        outcome.longest.as_millis()
    );
    eprintln!("{sum}");
    check(
        failed.is_empty(),
        format!(
            "{sum}: {}\n{}",
            crate::load::told(&failed),
            host.logs("tiny")
        ),
    )?;
    check(count >= 2 * DEPLOYS, format!("only {count} events"))?;
    // The load kept its time, except in an emulated machine.
    let wanted = if support::is_guest() { 1.0 } else { 299.0 };
    check(rate >= wanted, sum)?;
    each_is_stopped_once(&host)?;
    shown(&host, sent)
}

/// The same requests, as the operator sees them.
fn shown(host: &Host, sent: usize) -> Result<(), Failed> {
    contains(&host.ok(&["top"])?, "tiny")?;
    contains(&host.ok(&["metrics", "-a", "tiny"])?, "least-in-flight")?;
    let metrics = host.ok(&["metrics", "-a", "tiny", "--json"])?;
    let metrics: serde_json::Value = serde_json::from_str(&metrics)?;
    let served = metrics["total"]["classes"]["2xx"].as_u64().unwrap_or(0);
    check(
        served >= sent as u64,
        format!("{served} of {sent} requests were counted"),
    )?;
    let errors = metrics["total"]["errors"]
        .as_object()
        .map(serde_json::Map::len);
    check(errors == Some(0), format!("no H code: {metrics}"))
}
