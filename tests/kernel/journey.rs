//! The main job, end to end: the real binary, a real supervisor, the real CLI, a real app.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::support::{self, Leftovers};

/// Longest wait for anything in these tests (an emulated machine is slow).
const PATIENCE: Duration = Duration::from_secs(180);

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("journey::an_app_goes_from_folder_to_router_and_back", main_job),
        Trial::test("journey::a_killed_app_is_seen_crash_and_restart", crash),
        Trial::test("journey::one_off_dynos_pass_streams_status_and_a_pristine_tree", one_off),
        Trial::test("journey::bad_input_changes_nothing_and_says_what_to_do", bad_input),
        Trial::test("journey::a_supervisor_restart_keeps_state_and_sweeps_the_rest", restart),
    ]
}

/// A supervisor of our own on a state directory of our own.
struct Host {
    dir: tempfile::TempDir,
    http: SocketAddr,
    process: Option<Child>,
}

impl Host {
    fn start() -> Result<Self, Failed> {
        // Not /tmp: it may be a tmpfs, which cannot carry id-mapped layers on older kernels.
        let dir = tempfile::Builder::new().prefix("manifold-test-").tempdir_in("/var/tmp")?;
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut host = Self { dir, http, process: None };
        host.launch()?;
        Ok(host)
    }

    fn launch(&mut self) -> Result<(), Failed> {
        let log = std::fs::File::options().create(true).append(true).open(self.journal())?;
        let child = Command::new(support::manifold())
            .arg("supervise")
            .arg("--state")
            .arg(self.dir.path().join("state"))
            .arg("--socket")
            .arg(self.socket())
            .args(["--http", &self.http.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        self.eventually("the API answers", || self.cli(&["apps"]).status.success())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("manifold.sock")
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn cli(&self, args: &[&str]) -> Output {
        self.cli_with_input(args, b"")
    }

    fn cli_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(support::manifold())
            .args(args)
            .env("MANIFOLD_SOCKET", self.socket())
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the CLI starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A CLI that does not read its stdin closes it: that is fine.
        let _ = stdin.write_all(input);
        drop(stdin);
        child.wait_with_output().expect("the CLI ends")
    }

    /// Runs a command that must succeed and returns its stdout.
    fn ok(&self, args: &[&str]) -> Result<String, Failed> {
        let output = self.cli(args);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("manifold {args:?} failed: {output:?}\n{}", self.story()).into())
        }
    }

    /// What the supervisor said, for failure messages.
    fn story(&self) -> String {
        let journal = std::fs::read_to_string(self.journal()).unwrap_or_default();
        let tail: Vec<_> = journal.lines().rev().take(40).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn logs(&self, app: &str) -> String {
        let output = self.cli(&["logs", "-a", app, "-n", "1500"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One request through the router.
    fn get(&self, host: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let status = reply.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = reply.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    }

    /// Waits for a condition, or fails with the supervisor's story.
    fn eventually(&self, what: &str, check: impl Fn() -> bool) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        while !check() {
            if Instant::now() > deadline {
                return Err(format!("not in time: {what}\n{}", self.story()).into());
            }
            support::pause();
        }
        Ok(())
    }

    fn states(&self, app: &str) -> Vec<(String, String)> {
        let output = self.cli(&["ps", "-a", app, "--json"]);
        let dynos: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        let list = dynos.as_array().cloned().unwrap_or_default();
        list.iter().map(|d| (text(&d["name"]), text(&d["state"]))).collect()
    }

    fn all_up(&self, app: &str, names: &[&str]) -> bool {
        let states = self.states(app);
        states.len() == names.len()
            && names.iter().all(|n| states.contains(&((*n).to_owned(), "up".to_owned())))
    }

    /// Orderly stop; the exit status must be 0.
    fn stop(&mut self) -> Result<(), Failed> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        support::signal(process.id(), nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait()? {
                return check(status.success(), format!("supervise ended with {status}"));
            }
            if Instant::now() > deadline {
                support::signal(process.id(), nix::sys::signal::Signal::SIGKILL);
                return Err(format!("supervise did not stop\n{}", self.story()).into());
            }
            support::pause();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // After a failed test: the next start of this state directory is what sweeps; here the
        // orderly stop is enough.
        let _ = self.stop();
    }
}

fn check(holds: bool, otherwise: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(otherwise.into().into()) }
}

fn contains(text: &str, needle: &str) -> Result<(), Failed> {
    check(text.contains(needle), format!("expected {needle:?} in:\n{text}"))
}

fn app_dir(name: &str) -> String {
    let dir = std::env::var_os("MANIFOLD_TEST_APPS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps"),
        PathBuf::from,
    );
    dir.join(name).display().to_string()
}

/// A host with the tiny app deployed and `web.1` up.
fn deployed() -> Result<Host, Failed> {
    let host = Host::start()?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    Ok(host)
}

fn main_job() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::start()?;
    host.ok(&["create", "tiny"])?;
    let output = host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    contains(&output, "-----> Python app detected")?;
    contains(&output, "Procfile declares types -> stubborn, web, worker")?;
    contains(&output, "Released v3")?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;

    host.ok(&["ps:scale", "web=2", "worker=1", "-a", "tiny"])?;
    let names = ["web.1", "web.2", "worker.1"];
    host.eventually("web=2 worker=1", || host.all_up("tiny", &names))?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let (status, body) = host.get("tiny.localhost", "/").ok_or("no answer")?;
        check(status == 200, format!("{status}: {body}"))?;
        seen.insert(body);
    }
    check(seen.len() == 2, format!("both dynos answer: {seen:?}"))?;

    host.ok(&["config:set", "COLOUR=teal", "-a", "tiny"])?;
    host.eventually("the new config arrives", || {
        host.get("tiny.localhost", "/env").is_some_and(|(_, body)| body.contains("COLOUR=teal"))
    })?;
    contains(&host.ok(&["releases", "-a", "tiny"])?, "Set COLOUR config vars")?;
    host.ok(&["rollback", "v3", "-a", "tiny"])?;
    host.eventually("the rollback arrives", || {
        host.get("tiny.localhost", "/env").is_some_and(|(_, body)| !body.contains("COLOUR"))
    })?;

    host.ok(&["domains:add", "www.example.com", "-a", "tiny"])?;
    host.eventually("the domain routes", || {
        host.get("www.example.com", "/").is_some_and(|(status, _)| status == 200)
    })?;
    host.ok(&["maintenance:on", "-a", "tiny"])?;
    host.eventually("H80", || host.get("tiny.localhost", "/").is_some_and(|(s, _)| s == 503))?;
    host.ok(&["maintenance:off", "-a", "tiny"])?;
    host.eventually("no H80", || host.get("tiny.localhost", "/").is_some_and(|(s, _)| s == 200))?;
    check(host.get("nobody.localhost", "/").is_some_and(|(s, _)| s == 404), "unknown host: 404")?;

    let logs = host.logs("tiny");
    contains(&logs, "heroku[web.1]: State changed from starting to up")?;
    contains(&logs, "app[worker.1]: worker works")?;
    contains(&logs, "heroku[router]: at=info method=GET path=\"/\" host=tiny.localhost")?;
    contains(&logs, "code=H80 desc=\"Maintenance mode\"")?;
    contains(&logs, "app[api]: Scaled to")?;

    host.ok(&["ps:scale", "web=0", "worker=0", "-a", "tiny"])?;
    host.eventually("all are gone", || host.states("tiny").is_empty())?;
    check(host.get("tiny.localhost", "/").is_some_and(|(s, _)| s == 503), "H14 is a 503")?;
    contains(&host.logs("tiny"), "code=H14 desc=\"No web processes running\"")?;
    host.ok(&["destroy", "-a", "tiny", "--confirm", "tiny"])?;
    host.stop()?;
    Leftovers::none_since(&before)
}

fn crash() -> Result<(), Failed> {
    let host = deployed()?;
    // `kill -9` from outside, by a pid found through the process's own environment.
    let pid = support::find_process(|environ| environ.iter().any(|v| v == "DYNO=web.1"), host.dir.path())
        .ok_or("the app's process was not found")?;
    support::signal(pid, nix::sys::signal::Signal::SIGKILL);
    host.eventually("the crash is logged", || {
        host.logs("tiny").contains("heroku[web.1]: State changed from up to crashed")
    })?;
    host.eventually("web.1 is up again", || host.all_up("tiny", &["web.1"]))?;
    let logs = host.logs("tiny");
    let lines = [
        "heroku[web.1]: Process exited with status 137",
        "heroku[web.1]: State changed from up to crashed",
        "heroku[web.1]: State changed from crashed to starting",
    ];
    for line in lines {
        contains(&logs, line)?;
    }
    host.eventually("it serves again", || {
        host.get("tiny.localhost", "/").is_some_and(|(status, _)| status == 200)
    })
}

fn one_off() -> Result<(), Failed> {
    let host = deployed()?;
    let run = |command: &str, input: &[u8]| {
        host.cli_with_input(&["run", "-a", "tiny", "--", "bash", "-c", command], input)
    };
    let output = run("cat; echo err >&2; exit 7", b"through stdin");
    check(output.status.code() == Some(7), format!("status: {output:?}"))?;
    check(output.stdout == b"through stdin", format!("stdout: {output:?}"))?;
    contains(&String::from_utf8_lossy(&output.stderr), "err")?;

    let output = run("touch /app/mark; ls /app", b"");
    contains(&String::from_utf8_lossy(&output.stdout), "mark")?;
    let output = run("ls /app", b"");
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&listing, "server.py")?;
    check(!listing.contains("mark"), format!("a pristine tree each time: {listing}"))?;

    let output = run("kill -TERM $$", b"");
    check(output.status.code() == Some(143), format!("killed by TERM is 143: {output:?}"))?;
    let status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; id -u";
    let text = String::from_utf8_lossy(&run(status, b"").stdout).into_owned();
    contains(&text, "CapEff:\t0000000000000000")?;
    contains(&text, "CapBnd:\t0000000000000000")?;
    contains(&text, "NoNewPrivs:\t1")?;
    contains(&text, "Seccomp:\t2")?;
    contains(&text, "1000")?;

    host.ok(&["run:detached", "-a", "tiny", "--", "echo", "from afar"])?;
    host.eventually("the detached run is logged", || host.logs("tiny").contains(": from afar"))?;
    host.eventually("only web.1 is left", || host.all_up("tiny", &["web.1"]))
}

fn bad_input() -> Result<(), Failed> {
    let host = deployed()?;
    let refused = |args: &[&str], needle: &str| -> Result<i32, Failed> {
        let output = host.cli(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        check(!output.status.success(), format!("{args:?} must fail: {text}"))?;
        contains(&text, needle)?;
        Ok(output.status.code().unwrap_or(-1))
    };
    let unknown = refused(&["ps", "-a", "nobody"], "find that app")?;
    let usage = refused(&["ps:scale", "web=x", "-a", "tiny"], "web=x")?;
    check(unknown != usage, "an unknown app and a bad word end with different statuses")?;
    refused(&["ps:scale", "nosuch=1", "-a", "tiny"], "nosuch")?;
    refused(&["create", "Bad_Name"], "Name must")?;
    refused(&["create", "tiny"], "taken")?;
    refused(&["destroy", "-a", "tiny", "--confirm", "other"], "tiny")?;
    let empty = tempfile::tempdir()?;
    std::fs::write(empty.path().join("README"), "nothing to run")?;
    let dir = empty.path().display().to_string();
    let output = host.cli(&["deploy", &dir, "-a", "tiny"]);
    check(!output.status.success(), "a folder that no buildpack detects is refused")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&text, "No default language could be detected for this app.")?;
    host.ok(&["releases", "-a", "tiny"]).and_then(|text| {
        check(!text.contains("v4"), format!("nothing was released: {text}"))
    })?;

    let nowhere = Command::new(support::manifold())
        .args(["apps"])
        .env("MANIFOLD_SOCKET", host.dir.path().join("nowhere.sock"))
        .output()?;
    contains(&String::from_utf8_lossy(&nowhere.stderr), "manifold supervise")?;

    let second = Command::new(support::manifold())
        .args(["supervise", "--http", "127.0.0.1:0", "--state"])
        .arg(host.dir.path().join("state"))
        .arg("--socket")
        .arg(host.dir.path().join("second.sock"))
        .output()?;
    check(!second.status.success(), "the second supervisor of a state directory refuses")?;
    contains(&String::from_utf8_lossy(&second.stderr), "another supervisor")?;
    check(host.all_up("tiny", &["web.1"]), "nothing of the first was touched")
}

fn restart() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = deployed()?;
    host.ok(&["config:set", "KEPT=yes", "-a", "tiny"])?;
    // The worst case: the keeper is killed, nothing is said to anybody.
    let keeper = host.process.take().ok_or("no process")?;
    support::signal(keeper.id(), nix::sys::signal::Signal::SIGKILL);
    let mut keeper = keeper;
    keeper.wait()?;
    host.eventually("the supervisor notices", || !host.cli(&["apps"]).status.success())?;
    host.launch()?;
    host.eventually("web.1 is up again", || host.all_up("tiny", &["web.1"]))?;
    contains(&host.ok(&["config:get", "KEPT", "-a", "tiny"])?, "yes")?;
    contains(&host.logs("tiny"), "Set KEPT config vars")?;
    host.stop()?;
    Leftovers::none_since(&before)
}
