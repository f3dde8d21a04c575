//! manifold's part: a supervisor of our own, an app of one tiny server, one-off dynos.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::floor;
use crate::platform::Platform;
use crate::process;

pub(super) const APP: &str = "bench";

/// Ranges of ids of one supervisor (`network::SLOTS`).
const RANGES: usize = 1024;

/// One-offs ordered at once.
const BATCH: usize = 64;

/// Longest wait for dynos to come up or to be gone.
const PATIENCE: Duration = Duration::from_mins(3);

/// Between two looks at the host: small beside what is measured in whole milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// A platform with one app and no dynos of it.
pub(super) struct Ours {
    platform: Platform,
    _app: tempfile::TempDir,
}

impl Ours {
    /// `ballast_mb`: memory that the supervisor allocates and touches at its start.
    pub(super) fn start(program: &Path, ballast_mb: u32) -> Result<Self> {
        let ballast = ballast_mb.to_string();
        let mut settings = vec![];
        if ballast_mb > 0 {
            settings.push(("MANIFOLD_TEST_BALLAST_MB", ballast.as_str()));
        }
        // The launches' lines are below the default level.
        let log = "info,manifold::supervisor=debug";
        let platform = Platform::start_with(program, log, &settings)?;
        let app = tempfile::Builder::new()
            .prefix("manifold-bench-app-")
            .tempdir_in("/var/tmp")?;
        floor::server(app.path())?;
        fs::set_permissions(app.path().join("serve"), fs::Permissions::from_mode(0o755))?;
        fs::write(app.path().join("Procfile"), "web: exec ./serve\n")?;
        platform.read(&["create", APP, "--no-remote"])?;
        let pack = buildpack()?;
        let dir = pack.path().display().to_string();
        platform.read(&["buildpacks:set", &dir, "--app", APP])?;
        let dir = app.path().display().to_string();
        platform.read(&["deploy", &dir, "--app", APP])?;
        platform.await_up(APP, &["web.1"], PATIENCE)?;
        let ours = Self {
            platform,
            _app: app,
        };
        ours.scale(0)?;
        ours.await_gone()?;
        ours.warm()?;
        Ok(ours)
    }

    /// Every range of ids has had a dyno once, as on a platform that runs for a while: the first
    /// dyno of a range also makes its user namespace.
    fn warm(&self) -> Result<()> {
        for _ in 0..RANGES.div_ceil(BATCH) {
            (0..BATCH).try_for_each(|_| self.order("true"))?;
            self.await_gone()?;
        }
        Ok(())
    }

    /// One one-off dyno, from the client's start to its end.
    pub(super) fn client(&self) -> Result<Duration> {
        let mut command = self.platform.command(&["run", "--app", APP, "--", "true"]);
        command.stdin(Stdio::piped());
        let start = Instant::now();
        let status = command.output().context("cannot run manifold")?.status;
        let time = start.elapsed();
        ensure!(
            status.success(),
            "manifold run: {status}\n{}",
            self.platform.journal()
        );
        Ok(time)
    }

    /// Orders a one-off and does not wait for it.
    pub(super) fn order(&self, command: &str) -> Result<()> {
        let body = serde_json::json!({ "command": command, "attach": false }).to_string();
        let (status, answer) = self.api("POST", &format!("/apps/{APP}/dynos"), &body)?;
        ensure!(status == 201, "{status}: {answer}");
        Ok(())
    }

    /// One one-off, until it is gone and torn down.
    pub(super) fn cycle(&self) -> Result<()> {
        self.order("true")?;
        self.await_gone().map(drop)
    }

    /// Waits until the app has printed a line.
    pub(super) fn await_line(&self, line: &str) -> Result<()> {
        self.await_(&format!("the line {line}"), || {
            let logs = self.platform.read(&["logs", "--num", "50", "--app", APP])?;
            Ok(logs.lines().any(|text| text.ends_with(line)))
        })
    }

    /// Stops every one-off.
    pub(super) fn stop_one_offs(&self) -> Result<()> {
        let path = format!("/apps/{APP}/formations/run/actions/stop");
        let (status, answer) = self.api("POST", &path, "")?;
        ensure!(status == 202, "{status}: {answer}");
        Ok(())
    }

    /// Sets the number of web dynos and does not wait for them.
    pub(super) fn scale(&self, quantity: usize) -> Result<()> {
        let body = serde_json::json!({ "quantity": quantity }).to_string();
        let (status, answer) = self.api("PATCH", &format!("/apps/{APP}/formation/web"), &body)?;
        ensure!(status == 200, "{status}: {answer}");
        Ok(())
    }

    /// Waits until that many dynos are up.
    pub(super) fn await_up(&self, count: usize) -> Result<()> {
        let up = || -> Result<usize> {
            let (_, text) = self.api("GET", &format!("/apps/{APP}/dynos"), "")?;
            Ok(text.matches(r#""state":"up""#).count())
        };
        self.await_(&format!("{count} dynos up"), || Ok(up()? == count))
    }

    /// Waits until no dyno is left: none that is still to start, no process, cgroup or directory.
    pub(super) fn await_gone(&self) -> Result<()> {
        let groups = self.groups();
        self.await_("no dyno left", || {
            let is_left = groups.iter().any(|group| group_of_a_dyno(group));
            if is_left || has_directory(&self.dynos()) {
                return Ok(false);
            }
            let (status, text) = self.api("GET", &format!("/apps/{APP}/dynos"), "")?;
            ensure!(status == 200, "{status}: {text}");
            Ok(text.trim() == "[]")
        })
    }

    fn await_(&self, what: &str, ready: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready()? {
            process::keep_going()?;
            let journal = || self.platform.journal();
            ensure!(
                Instant::now() < deadline,
                "not in time: {what}\n{}",
                journal()
            );
            std::thread::park_timeout(LOOK);
        }
        Ok(())
    }

    /// Where the writable layers lie.
    pub(super) fn dynos(&self) -> PathBuf {
        self.platform.dir().join("state/dynos")
    }

    /// The parent cgroups of all dynos, of the controller that has their bounds.
    fn groups(&self) -> Vec<PathBuf> {
        let instance = fs::read_to_string(self.platform.dir().join("state/instance"));
        let name = format!("manifold-{}", instance.unwrap_or_default().trim());
        let top = Path::new("/sys/fs/cgroup");
        let tops = ["", "memory"].map(|c| top.join(c).join(&name));
        tops.into_iter().filter(|dir| dir.is_dir()).collect()
    }

    /// Processes: the supervisor, and every dyno's first.
    pub(super) fn processes(&self) -> Result<(u32, Vec<u32>)> {
        let keeper = self.platform.pid();
        let file = format!("/proc/{keeper}/task/{keeper}/children");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let children: Vec<u32> = text.split_whitespace().flat_map(str::parse).collect();
        let is_supervisor = |pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|b| *b == 0).any(|word| word == b"--keeper-fd") && !is_first(*pid)
        };
        // Those that wait for a launch are no dynos yet.
        let is_spare = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "manifold-spare"
        };
        let others = children.into_iter().filter(|pid| !is_spare(pid));
        let (supervisors, dynos): (Vec<u32>, Vec<u32>) = others.partition(is_supervisor);
        let supervisor = supervisors.first().context("no supervisor")?;
        Ok((*supervisor, dynos))
    }

    /// One request; the status and the body.
    fn api(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let socket = self.platform.dir().join("manifold.sock");
        let mut stream = UnixStream::connect(socket).context("cannot reach the API")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/vnd.heroku+json; version=3\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        Ok((status.context("no status")?, body.to_owned()))
    }

    /// The last `count` launches of one-offs, as the supervisor timed them.
    pub(super) fn launches(&self, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        process::settle(Duration::from_secs(5), || {
            times = launches(&self.platform.journal());
            times.len() >= count
        });
        let journal = || self.platform.journal();
        ensure!(
            times.len() >= count,
            "the journal tells {} of {count} launches:\n{}",
            times.len(),
            journal()
        );
        Ok(times.split_off(times.len() - count))
    }

    pub(super) fn stop(self) -> Result<()> {
        self.platform.stop()
    }
}

/// A buildpack that adds nothing: no language's scripts run at a dyno's start.
fn buildpack() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("bin"))?;
    for (name, text) in [("detect", "echo Bench"), ("compile", ":")] {
        let path = dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(dir)
}

/// The first process of a pid namespace below ours.
fn is_first(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.is_some_and(|pids| pids.split_whitespace().count() > 1 && pids.ends_with("\t1"))
}

/// True if a group below this one has a bound on memory: those for launches to come have none yet.
fn group_of_a_dyno(parent: &Path) -> bool {
    let mut entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.any(|entry| {
        ["memory.max", "memory.limit_in_bytes"].iter().any(|file| {
            let bound = fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            bound.trim().parse().is_ok_and(|bytes: u64| bytes < 1 << 60)
        })
    })
}

fn has_directory(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

/// The times in lines like `dyno launched dyno=run.1 ... took_us=1234`.
fn launches(journal: &str) -> Vec<Duration> {
    journal
        .lines()
        .filter(|line| line.contains("launched") && line.contains("dyno=run."))
        .filter_map(|line| {
            let (_, after) = line.split_once("took_us=")?;
            let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok().map(Duration::from_micros)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_read_off_the_journal() {
        let journal = "DEBUG dyno launched dyno=web.1 id=1 pid=7 took_us=9\n\
                       DEBUG dyno launched dyno=run.4711 id=2 pid=8 took_us=1234\n\
                       INFO something else took_us=5\n";
        assert_eq!(launches(journal), [Duration::from_micros(1234)]);
    }
}
