//! Child processes: each in a process group of its own, ended with all it started.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Between SIGTERM and SIGKILL: a supervisor gives its dynos 30 s.
const GRACE: Duration = Duration::from_secs(45);

/// What a normally ended child may leave running in its group, for this long.
const AFTERMATH: Duration = Duration::from_secs(5);

const TICK: Duration = Duration::from_millis(50);

/// The signal that asked us to stop, 0 before.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending us at once: children
/// are ended and everything is cleaned up first.
pub(crate) fn catch_signals() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let number = usize::try_from(signal as i32).context("a signal number is positive")?;
        signal_hook::flag::register_usize(signal as i32, Arc::clone(&SIGNAL), number)
            .with_context(|| format!("cannot catch {signal}"))?;
    }
    Ok(())
}

/// The signal that asked us to stop.
pub(crate) fn signal() -> Option<i32> {
    let number = SIGNAL.load(Ordering::Relaxed);
    i32::try_from(number).ok().filter(|number| *number != 0)
}

/// Fails when we were asked to stop.
pub(crate) fn keep_going() -> Result<()> {
    match signal() {
        Some(number) => bail!("stopped by signal {number}"),
        None => Ok(()),
    }
}

/// Waits until `ready`, the deadline or a signal. True when ready.
pub(crate) fn wait_for(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() > deadline || signal().is_some() {
            return false;
        }
        std::thread::park_timeout(TICK);
    }
}

/// Waits until `ready` or the deadline, even when we were asked to stop: for cleaning up.
pub(crate) fn settle(limit: Duration, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !ready() && Instant::now() <= deadline {
        std::thread::park_timeout(TICK);
    }
}

/// Why a child is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Status(ExitStatus),
    /// By us, past its deadline.
    Late,
    /// By us, because the watcher of its lines said so.
    Stopped,
    /// By us, because we were asked to stop.
    Interrupted,
}

impl Ended {
    /// Whether it ended by itself with status 0.
    pub(crate) fn success(self) -> bool {
        matches!(self, Self::Status(status) if status.success())
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Late => f.write_str("ended at its deadline"),
            Self::Stopped => f.write_str("stopped"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What a watcher of lines wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    GoOn,
    /// End the child.
    Stop,
}

/// A child in a process group of its own. Dropped, the group is ended.
pub(crate) struct Group {
    child: Child,
    /// Set once the leader was waited for.
    status: Option<ExitStatus>,
}

impl Group {
    /// Starts a command as the leader of a new group, without a stdin unless one was given.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            child,
            status: None,
        })
    }

    /// The leader.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    /// The leader's status, once it ended.
    pub(crate) fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("cannot wait for a child")?;
        }
        Ok(self.status)
    }

    /// Whether anything of the group is left. Call [`Group::poll`] before: a zombie counts.
    fn is_empty(&self) -> bool {
        killpg(self.group(), None) == Err(Errno::ESRCH)
    }

    /// Asks the group to end, then makes it.
    pub(crate) fn end(&mut self, grace: Duration) -> Result<Option<ExitStatus>> {
        if self.poll()?.is_some() && self.is_empty() {
            return Ok(self.status);
        }
        // ESRCH: gone in this moment.
        let _ = killpg(self.group(), Signal::SIGTERM);
        let deadline = Instant::now() + grace;
        while !(self.poll()?.is_some() && self.is_empty()) {
            if Instant::now() > deadline {
                let _ = killpg(self.group(), Signal::SIGKILL);
                self.status = Some(self.child.wait().context("cannot wait for a child")?);
                break;
            }
            std::thread::park_timeout(TICK);
        }
        Ok(self.status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.end(GRACE) {
            eprintln!("error: {error:#}");
        }
    }
}

/// Runs a command to its end, handing each line of its stdout to `watch`.
pub(crate) fn stream(
    command: &mut Command,
    limit: Duration,
    mut watch: impl FnMut(&str) -> Next,
) -> Result<Ended> {
    stream_ticking(command, limit, |line| line.map_or(Next::GoOn, &mut watch))
}

/// The same for a watcher that also looks at the time: without a line it gets `None` now and then.
pub(crate) fn stream_ticking(
    command: &mut Command,
    limit: Duration,
    mut watch: impl FnMut(Option<&str>) -> Next,
) -> Result<Ended> {
    let mut group = Group::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let stdout = group.child.stdout.take().context("stdout is piped")?;
    let (sender, lines) = mpsc::sync_channel(1024);
    // Not joined: a grandchild may hold the pipe open after its parent is gone.
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']).to_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut gone_at = None;
    loop {
        let next = lines.recv_timeout(TICK);
        if watch(next.as_ref().ok().map(String::as_str)) == Next::Stop {
            group.end(Duration::from_secs(2))?;
            return Ok(Ended::Stopped);
        }
        match next {
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // EOF: all lines were seen; the status follows.
                std::thread::park_timeout(Duration::from_millis(5));
                if let Some(status) = group.poll()? {
                    finish(&mut group)?;
                    return Ok(Ended::Status(status));
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(status) = group.poll()? {
                    let since = gone_at.get_or_insert_with(Instant::now);
                    if since.elapsed() > AFTERMATH {
                        finish(&mut group)?;
                        return Ok(Ended::Status(status));
                    }
                }
            }
        }
        if signal().is_some() {
            group.end(GRACE)?;
            return Ok(Ended::Interrupted);
        }
        if Instant::now() > deadline {
            group.end(GRACE)?;
            return Ok(Ended::Late);
        }
    }
}

/// The leader has ended: what it left in its group gets a moment, then is ended.
fn finish(group: &mut Group) -> Result<()> {
    wait_for(AFTERMATH, || group.is_empty());
    group.end(Duration::ZERO).map(drop)
}

/// Runs a command with our stdout; it must succeed.
pub(crate) fn check(command: &mut Command, limit: Duration) -> Result<()> {
    let name = name(command);
    let ended = stream(command, limit, |line| {
        println!("{line}");
        Next::GoOn
    })?;
    ensure!(ended.success(), "{name}: {ended}");
    Ok(())
}

/// Runs a command that must succeed and returns its stdout.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    read_within(command, Duration::from_mins(10))
}

/// The same for one that may take long.
pub(crate) fn read_within(command: &mut Command, limit: Duration) -> Result<String> {
    let name = name(command);
    let mut text = String::new();
    let ended = stream(command, limit, |line| {
        text.push_str(line);
        text.push('\n');
        Next::GoOn
    })?;
    ensure!(ended.success(), "{name}: {ended}");
    Ok(text)
}

/// The command as one would type it, shortened to the program and its first words.
fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .take(3)
            .map(|a| a.to_string_lossy().into_owned()),
    );
    format!("`{}`", words.join(" "))
}

/// Cargo as it called us, on this workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    // What cargo told this program of its own package: a build script that looks at it would run
    // again for each of the two ways to call cargo, and half of the crates be built again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn lines_arrive_and_the_status_follows() {
        let mut seen = Vec::new();
        let limit = Duration::from_secs(30);
        let ended = stream(&mut shell("echo a; printf b; exit 3"), limit, |line| {
            seen.push(line.to_owned());
            Next::GoOn
        })
        .expect("it runs");
        assert!(matches!(ended, Ended::Status(status) if status.code() == Some(3)));
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        let mut pid = String::new();
        let limit = Duration::from_millis(300);
        let ended = stream(&mut shell("sleep 60 & echo $!; wait"), limit, |line| {
            line.clone_into(&mut pid);
            Next::GoOn
        })
        .expect("it runs");
        assert_eq!(ended, Ended::Late);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}
