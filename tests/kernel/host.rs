//! A supervisor of our own, driven as a person would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::attack::As;
use crate::support;

/// Longest wait for anything in these tests (an emulated machine is slow).
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// The switch of the supervisor's test builds.
const WEAKEN: &str = "MANIFOLD_TEST_ONLY_WEAKEN_DYNOS";

/// A supervisor of our own on a state directory of our own.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) process: Option<Child>,
    /// Extra environment of the next `launch`.
    pub(crate) env: Vec<(String, String)>,
    /// Words in front of the next `launch`: a program that execs its arguments.
    pub(crate) wrapper: Vec<String>,
}

impl Host {
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::with("")
    }

    /// With this text in its settings file.
    pub(crate) fn with(settings: &str) -> Result<Self, Failed> {
        let mut host = Self::unlaunched(settings)?;
        host.launch()?;
        Ok(host)
    }

    /// In a network namespace of its own.
    pub(crate) fn within(netns: &Path, settings: &str) -> Result<Self, Failed> {
        let mut host = Self::unlaunched(settings)?;
        let netns = format!("--net={}", netns.display());
        // nsenter(1) becomes the program: the pid is the supervisor's.
        host.wrapper = vec!["nsenter".to_owned(), netns, "--".to_owned()];
        host.launch()?;
        Ok(host)
    }

    /// All is ready for `launch`.
    pub(crate) fn unlaunched(settings: &str) -> Result<Self, Failed> {
        // Not /tmp: it may be a tmpfs, which cannot carry id-mapped layers on older kernels.
        let dir = tempfile::Builder::new()
            .prefix(&support::dir_prefix())
            .tempdir_in("/var/tmp")?;
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        std::fs::write(dir.path().join("manifold.toml"), settings)?;
        support::prepare_state(&dir.path().join("state"))?;
        Ok(Self {
            dir,
            http,
            process: None,
            env: Vec::new(),
            wrapper: Vec::new(),
        })
    }

    pub(crate) fn launch(&mut self) -> Result<(), Failed> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.journal())?;
        let program = support::manifold().display().to_string();
        let mut words = self.wrapper.iter().chain(std::iter::once(&program));
        let child = Command::new(words.next().unwrap_or(&program))
            .args(words)
            .arg("supervise")
            .arg("--state")
            .arg(self.dir.path().join("state"))
            .arg("--socket")
            .arg(self.socket())
            .args(["--http", &self.http.to_string()])
            .arg("--config")
            .arg(self.dir.path().join("manifold.toml"))
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.cli(&["apps"]).status.success() {
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?;
            if let Some(Some(status)) = ended {
                self.process = None;
                return Err(format!("supervise ended with {status}\n{}", self.story()).into());
            }
            if Instant::now() > deadline {
                return Err(format!("no answer from the API\n{}", self.story()).into());
            }
            support::pause();
        }
        Ok(())
    }

    /// Restarts so that dynos have root, and `bare` ones no filter: see `supervisor::weaken`.
    pub(crate) fn weaken(&mut self, attacker: As) -> Result<(), Failed> {
        self.stop()?;
        self.env.retain(|(name, _)| name != WEAKEN);
        if attacker != As::User {
            self.env
                .push((WEAKEN.to_owned(), attacker.word().to_owned()));
        }
        self.launch()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("manifold.sock")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.cli_with_input(args, b"")
    }

    /// A CLI that talks to this supervisor.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(support::manifold());
        command
            .args(args)
            .env("MANIFOLD_SOCKET", self.socket())
            .env("NO_COLOR", "1");
        command
    }

    pub(crate) fn cli_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(support::manifold())
            .args(args)
            // Not in a repository, whose remotes it would read and add to.
            .current_dir(self.dir.path())
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
    pub(crate) fn ok(&self, args: &[&str]) -> Result<String, Failed> {
        let output = self.cli(args);
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("manifold {args:?} failed: {output:?}\n{}", self.story()).into())
        }
    }

    /// The tiny app under this name, with `web.1` up.
    pub(crate) fn deploy_tiny(&self, name: &str) -> Result<(), Failed> {
        self.ok(&["create", name])?;
        self.ok(&["deploy", &app_dir("tiny"), "-a", name])?;
        self.eventually("web.1 is up", || self.all_up(name, &["web.1"]))
    }

    /// What the supervisor said, for failure messages.
    pub(crate) fn story(&self) -> String {
        let journal = std::fs::read_to_string(self.journal()).unwrap_or_default();
        let tail: Vec<_> = journal.lines().rev().take(40).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn logs(&self, app: &str) -> String {
        let output = self.cli(&["logs", "-a", app, "-n", "1500"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// One request through the router.
    pub(crate) fn get(&self, host: &str, path: &str) -> Option<(u16, String)> {
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
    pub(crate) fn eventually(&self, what: &str, check: impl Fn() -> bool) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        while !check() {
            if Instant::now() > deadline {
                return Err(format!("not in time: {what}\n{}", self.story()).into());
            }
            support::pause();
        }
        Ok(())
    }

    pub(crate) fn states(&self, app: &str) -> Vec<(String, String)> {
        let output = self.cli(&["ps", "-a", app, "--json"]);
        let dynos: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or(serde_json::Value::Null);
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        let list = dynos.as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|d| (text(&d["name"]), text(&d["state"])))
            .collect()
    }

    pub(crate) fn all_up(&self, app: &str, names: &[&str]) -> bool {
        let states = self.states(app);
        states.len() == names.len()
            && names
                .iter()
                .all(|n| states.contains(&((*n).to_owned(), "up".to_owned())))
    }

    /// Orderly stop; the exit status must be 0.
    pub(crate) fn stop(&mut self) -> Result<(), Failed> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
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
        // A panic here would hide what the test itself has to say.
        if let Err(error) = self.stop() {
            support::not_stopped(error.message().unwrap_or_default());
        }
    }
}

pub(crate) fn check(holds: bool, otherwise: impl Into<String>) -> Result<(), Failed> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.into().into())
    }
}

pub(crate) fn contains(text: &str, needle: &str) -> Result<(), Failed> {
    check(
        text.contains(needle),
        format!("expected {needle:?} in:\n{text}"),
    )
}

pub(crate) fn app_dir(name: &str) -> String {
    let dir = std::env::var_os("MANIFOLD_TEST_APPS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps"),
        PathBuf::from,
    );
    dir.join(name).display().to_string()
}

/// Copies an app's files into a directory that is there.
pub(crate) fn copy_app(name: &str, to: &Path) -> Result<(), Failed> {
    let mut copy = Command::new("cp");
    copy.args(["-a", &format!("{}/.", app_dir(name))]).arg(to);
    check(copy.status()?.success(), "cp")
}

/// A host with the tiny app deployed and `web.1` up.
pub(crate) fn deployed() -> Result<Host, Failed> {
    let host = Host::start()?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    Ok(host)
}
