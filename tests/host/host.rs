//! The whole platform above the driver, in this process: API, releases, router, logs, and the real
//! CLI against it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold::compose::{Doors, Platform, StateDir};
use manifold::logs::Hub;
use manifold::settings::{Settings, Timings};
use manifold::supervisor::Supervisor;
use tokio::sync::mpsc;

use crate::machine::Processes;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Host {
    runtime: tokio::runtime::Runtime,
    platform: Option<Platform>,
    settings: Settings,
    machine: Processes,
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) dir: tempfile::TempDir,
    _state: StateDir,
}

/// Deadlines a test can wait for.
pub(crate) fn short() -> Timings {
    Timings {
        request_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        hold_timeout: Duration::from_secs(2),
        stop_grace: Duration::from_secs(2),
        ..Timings::default()
    }
}

/// Starts a platform; where its router listens is in the settings then.
async fn platform(settings: &mut Settings) -> (Platform, Processes) {
    let doors = Doors::open(settings).await.expect("doors");
    settings.http = doors.http();
    settings.https = doors.https();
    let hub = Hub::open(&settings.paths().logs()).expect("a hub");
    let (sender, exits) = mpsc::unbounded_channel();
    let machine = Processes::new(settings.paths(), sender);
    let shared = Arc::new(machine.clone());
    let supervisor = Supervisor::start(shared, exits, hub.clone(), settings.timings);
    let upgrades = manifold::api::Upgrades::default();
    let settings = Arc::new(settings.clone());
    let started = Platform::start(settings, doors, hub, supervisor, upgrades).await;
    (started.expect("a platform"), machine)
}

impl Host {
    pub(crate) fn start(timings: Timings) -> Self {
        Self::start_with(timings, |_| {})
    }

    /// With settings of one's own.
    pub(crate) fn start_with(timings: Timings, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings {
            state: dir.path().join("state"),
            socket: dir.path().join("manifold.sock"),
            http: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            timings,
            ..Settings::default()
        };
        change(&mut settings);
        let state = StateDir::open(&settings.paths()).expect("a state directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (platform, machine) = runtime.block_on(platform(&mut settings));
        let (http, https) = (settings.http[0], settings.https.first().copied());
        Self {
            runtime,
            platform: Some(platform),
            settings,
            machine,
            http,
            https,
            dir,
            _state: state,
        }
    }

    /// Another platform over the same files, at the same addresses.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let started = self.runtime.block_on(platform(&mut self.settings));
        self.platform = Some(started.0);
        self.machine = started.1;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("manifold.sock")
    }

    /// The real CLI.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.cli_with(args, b"")
    }

    pub(crate) fn cli_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_manifold"))
            .args(args)
            // Not in a repository, whose remotes it would read and add to.
            .current_dir(self.dir.path())
            .env("MANIFOLD_SOCKET", self.socket())
            .env_remove("MANIFOLD_APP")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the CLI starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // Beside the reading below: neither side may wait for the other.
        let writer = std::thread::spawn(move || {
            // A CLI that does not read its stdin closes it: that is fine.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("the CLI ends");
        writer.join().expect("no panic");
        output
    }

    /// stdout of a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Exit status and stderr of a command that must fail.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.cli(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{args:?} succeeds");
        (output.status.code().expect("a status"), said)
    }

    /// A call of the API: status and body.
    pub(crate) fn api(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).expect("the socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.heroku+json; version=3\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("written");
        stream.write_all(body).expect("written");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("read");
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    pub(crate) fn json(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let (status, text) = self.api(method, path, body.as_bytes());
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {text}"
        );
        serde_json::from_str(&text).expect("JSON")
    }

    /// Releases a folder of `tests/apps` without a build (builds need the kernel).
    pub(crate) fn release(&self, app: &str, folder: &str, processes: &[(&str, &str)]) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/apps")
            .join(folder);
        let archive = self.dir.path().join("slug.tgz");
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(&source);
        tar.args(["--transform", "s,^\\.,./app,", "."]);
        assert!(tar.status().expect("tar runs").success());
        let types: std::collections::BTreeMap<_, _> = processes.iter().copied().collect();
        let types = serde_json::json!({ "process_types": types }).to_string();
        let slug = self.json("POST", &format!("/apps/{app}/slugs"), &types);
        let url = slug["blob"]["url"].as_str().expect("a url");
        let bytes = std::fs::read(&archive).expect("an archive");
        assert_eq!(self.api("PUT", url, &bytes).0, 200);
        let release = serde_json::json!({ "slug": slug["id"] }).to_string();
        self.json("POST", &format!("/apps/{app}/releases"), &release);
    }

    /// An app of one folder with that web command, up.
    pub(crate) fn web(&self, app: &str, folder: &str, command: &str) {
        self.ok(&["create", app]);
        self.release(app, folder, &[("web", command)]);
        self.until_up(app, &["web.1"]);
    }

    pub(crate) fn states(&self, app: &str) -> Vec<(String, String)> {
        let dynos = self.json("GET", &format!("/apps/{app}/dynos"), "");
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let dynos = dynos.as_array().cloned().unwrap_or_default();
        dynos
            .iter()
            .map(|dyno| (text(&dyno["name"]), text(&dyno["state"])))
            .collect()
    }

    pub(crate) fn until_up(&self, app: &str, names: &[&str]) {
        self.until(&format!("{names:?} are up"), || {
            let states = self.states(app);
            states.len() == names.len()
                && names
                    .iter()
                    .all(|n| states.contains(&((*n).to_owned(), "up".to_owned())))
        });
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        self.until_said(what, || holds().to_string(), |said| said == "true");
    }

    /// Waits until what is said is what is wanted.
    pub(crate) fn until_said(
        &self,
        what: &str,
        said: impl Fn() -> String,
        is_it: impl Fn(&str) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = said();
            if is_it(&last) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "not in time: {what}; at last: {last}; files: {}",
                self.dir.path().display()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub(crate) fn logs(&self, app: &str) -> String {
        self.ok(&["logs", "-a", app, "-n", "1500"])
    }

    /// Sends raw bytes to the router and reads until it closes.
    pub(crate) fn raw(&self, bytes: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes.as_bytes()).expect("written");
        let mut reply = Vec::new();
        // A reset is an end too: what came before it counts.
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).expect("the router");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
    }

    /// Status, head and body of one request.
    pub(crate) fn get(&self, host: &str, path: &str) -> (u16, String, String) {
        let reply = self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ));
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        (status.unwrap_or(0), head.to_owned(), body.to_owned())
    }
}

impl Host {
    /// Ends the platform; its files stay.
    pub(crate) fn stop(&mut self) {
        if let Some(platform) = self.platform.take() {
            self.runtime.block_on(platform.stop());
        }
    }

    /// Ends it as for an upgrade: the dynos would go on, if there were another one to have them.
    pub(crate) fn leave(&mut self) {
        if let Some(platform) = self.platform.take() {
            self.runtime.block_on(platform.leave());
            self.machine.end();
        }
    }

    /// A line of the only app's log as it is on the disk.
    pub(crate) fn written(&self, words: &str) -> String {
        let logs = self.dir.path().join("state/logs");
        let find = || {
            let mut apps = std::fs::read_dir(&logs).expect("logs").flatten();
            apps.find_map(|app| {
                let file = std::fs::read_to_string(app.path().join("current")).ok()?;
                let mut lines = file.lines();
                lines.find(|line| line.contains(words)).map(str::to_owned)
            })
        };
        self.until("it is on the disk", || find().is_some());
        find().expect("a line")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}
