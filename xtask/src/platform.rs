//! A platform of our own: the real program on a state directory that goes away with it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{self, Group};

/// Longest start, and longest stop (a dyno may take its 30 s).
const START: Duration = Duration::from_mins(1);
const STOP: Duration = Duration::from_mins(1);

/// Longest single command.
const COMMAND: Duration = Duration::from_mins(20);

/// Longest answer of an app.
const ANSWER: Duration = Duration::from_mins(1);

/// A running supervisor. Stopped, with everything it made, when dropped.
pub(crate) struct Platform {
    group: Option<Group>,
    dir: tempfile::TempDir,
    program: PathBuf,
    /// Where its router listens.
    pub(crate) http: SocketAddr,
}

impl Platform {
    /// Starts `program supervise` and waits until it answers. `log` is its journal's filter.
    pub(crate) fn start(program: &Path, log: &str) -> Result<Self> {
        Self::start_with(program, log, &[])
    }

    /// As [`Platform::start`], with these variables in its environment.
    pub(crate) fn start_with(program: &Path, log: &str, env: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("manifold-xtask-")
            .tempdir_in("/var/tmp")?;
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let journal = File::create(dir.path().join("journal"))?;
        let mut command = Command::new(program);
        command
            .arg("supervise")
            .arg("--state")
            .arg(dir.path().join("state"))
            .arg("--socket")
            .arg(dir.path().join("manifold.sock"))
            .args(["--http", &http.to_string()])
            .env("MANIFOLD_LOG", log)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(journal.try_clone()?)
            .stderr(journal);
        let group = Group::spawn(&mut command)?;
        let mut platform = Self {
            group: Some(group),
            dir,
            program: program.to_owned(),
            http,
        };
        let answers = |platform: &Self| {
            let output = platform.command(&["apps"]).stderr(Stdio::null()).output();
            output.is_ok_and(|output| output.status.success())
        };
        let mut ended = None;
        process::wait_for(START, || {
            ended = platform
                .group
                .as_mut()
                .and_then(|g| g.poll().ok().flatten());
            ended.is_some() || answers(&platform)
        });
        process::keep_going()?;
        if ended.is_some() || !answers(&platform) {
            bail!("the supervisor did not start:\n{}", platform.journal());
        }
        Ok(platform)
    }

    /// A command of the CLI against this platform.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env("MANIFOLD_SOCKET", self.dir.path().join("manifold.sock"))
            .env_remove("MANIFOLD_APP")
            .current_dir(crate::root());
        command
    }

    /// Shows a command and what it prints; it must succeed.
    pub(crate) fn show(&self, args: &[&str]) -> Result<()> {
        println!("\n$ manifold {}", args.join(" "));
        let ended = process::stream(&mut self.command(args), COMMAND, |line| {
            println!("{line}");
            process::Next::GoOn
        })?;
        ensure!(
            ended.success(),
            "`manifold {}`: {ended}\n{}",
            args.join(" "),
            self.journal()
        );
        Ok(())
    }

    /// What a command prints; it must succeed.
    pub(crate) fn read(&self, args: &[&str]) -> Result<String> {
        process::read(&mut self.command(args))
    }

    /// Status and body of a request through the router.
    pub(crate) fn get(&self, host: &str, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).context("cannot reach the router")?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the router's answer has no head")?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Ok((status.context("the answer has no status")?, body.to_owned()))
    }

    /// Names and states of an app's dynos.
    pub(crate) fn states(&self, app: &str) -> Result<Vec<(String, String)>> {
        let text = self.read(&["ps", "--app", app, "--json"])?;
        let dynos: serde_json::Value = serde_json::from_str(&text)?;
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let dynos = dynos.as_array().cloned().unwrap_or_default();
        Ok(dynos
            .iter()
            .map(|dyno| (text(&dyno["name"]), text(&dyno["state"])))
            .collect())
    }

    /// Waits until exactly these dynos are up.
    pub(crate) fn await_up(&self, app: &str, names: &[&str], limit: Duration) -> Result<()> {
        let mut last = Vec::new();
        let is_up = process::wait_for(limit, || {
            last = self.states(app).unwrap_or_default();
            last.len() == names.len()
                && last
                    .iter()
                    .all(|(name, state)| names.contains(&name.as_str()) && state == "up")
        });
        process::keep_going()?;
        ensure!(
            is_up,
            "{names:?} of {app} are not up: {last:?}\n{}",
            self.logs(app)
        );
        Ok(())
    }

    /// An app's log.
    pub(crate) fn logs(&self, app: &str) -> String {
        self.read(&["logs", "--app", app, "--num", "1500"])
            .unwrap_or_default()
    }

    /// What the supervisor said.
    pub(crate) fn journal(&self) -> String {
        fs::read_to_string(self.dir.path().join("journal")).unwrap_or_default()
    }

    /// The keeper's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.group.as_ref().map_or(0, Group::pid)
    }

    /// Where its API listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("manifold.sock")
    }

    /// The most memory that the supervisor had, in MB.
    pub(crate) fn peak_mb(&self) -> Result<f64> {
        let keeper = self.pid();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        for pid in children.split_whitespace() {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !words.split(|b| *b == 0).any(|word| word == b"--keeper-fd") {
                continue;
            }
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = peak.and_then(|text| text.trim().strip_suffix(" kB"));
            let kib: f64 = kib.context("the kernel tells no peak")?.trim().parse()?;
            return Ok(kib / 1024.0);
        }
        bail!("there is no supervisor")
    }

    /// The state directory's parent: processes of this platform carry it in their arguments.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it in order; its status must be 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        let Some(mut group) = self.group.take() else {
            return Ok(());
        };
        let status = group.end(STOP)?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "the supervisor ended with {status:?}:\n{}",
            self.journal()
        );
        Ok(())
    }
}
