//! Numbers of processes are not trusted: not those in files, whoever wrote them, and not those
//! that were a dyno's and now are another process's.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use super::{As, Report};
use crate::certain::{children, firsts, groups, keeper, supervisor};
use crate::host::{Host, check};
use crate::support::{self, Leftovers};

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::numbers_of_processes";

const TAKE: &str = include_str!("take.py");

/// A process of the host that nobody may signal.
struct Canary {
    parent: Child,
    _output: BufReader<ChildStdout>,
    pid: u32,
}

impl Canary {
    /// With this number, which nobody has.
    fn take(pid: u32) -> Result<Self, Failed> {
        let mut parent = Command::new("python3")
            .args(["-c", TAKE, &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(parent.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim() != "taken" {
            parent.wait()?;
            return Err(format!("the number {pid} could not be taken: {line}").into());
        }
        Ok(Self {
            parent,
            _output: output,
            pid,
        })
    }

    /// With any.
    fn any() -> Result<Self, Failed> {
        // The number of a process that has ended just now.
        let mut other = Command::new("true").spawn()?;
        other.wait()?;
        Self::take(other.id())
    }

    fn lives(&mut self, after: &str) -> Result<(), Failed> {
        let ended = self.parent.try_wait()?;
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", self.pid));
        let lives = ended.is_none() && comm.is_ok_and(|name| name.trim() == "sleep");
        check(lives, format!("a foreign process was ended by {after}"))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        // Its parent waits for it, and goes with it.
        if self.parent.try_wait().is_ok_and(|ended| ended.is_none()) {
            support::signal(self.pid, Signal::SIGKILL);
            let _ = self.parent.wait();
        }
    }
}

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nstop_grace = 2\n")?;
    host.deploy_tiny("tiny")?;
    host.ok(&["ps:scale", "web=0", "worker=1", "-a", "tiny"])?;
    let mut report = Report::new(TEST);
    report.holds("L-07", As::User, || {
        planted(&mut host)?;
        adopted(&host)?;
        swept(&mut host)?;
        Ok("files with a foreign number, a dyno's number used again: nothing foreign was signalled".to_owned())
    });
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User])
}

fn up(host: &Host) -> Result<(), Failed> {
    host.eventually("worker.1 is up", || {
        host.all_up("tiny", &["worker.1"]) && firsts(host).len() == 1
    })
}

/// Kills the keeper, and waits until its supervisor is gone, too.
fn kill_keeper(host: &mut Host) -> Result<(), Failed> {
    let supervisor = supervisor(host).ok_or("no supervisor")?;
    support::signal(keeper(host), Signal::SIGKILL);
    host.process.take().map(|mut process| process.wait());
    gone(host, supervisor)
}

fn gone(host: &Host, pid: u32) -> Result<(), Failed> {
    let path = PathBuf::from(format!("/proc/{pid}"));
    host.eventually("its number is free", || !path.exists())
}

/// Wherever a program might look for one, in the state directory, in a dyno and in its group's name.
fn planted(host: &mut Host) -> Result<(), Failed> {
    let mut canary = Canary::any()?;
    up(host)?;
    let number = canary.pid;
    let script = format!(
        "for f in /app/web.1.pid /app/run.pid /app/.pid /tmp/manifold.pid /tmp/keeper.pid /app/status; do echo {number} > $f; done; sleep 1000"
    );
    let words = ["run:detached", "-a", "tiny", "--", "bash", "-c", &script];
    let dyno = host.ok(&words)?.trim().to_owned();
    let files = [
        "lock",
        "pid",
        "manifold.pid",
        "keeper.pid",
        "supervisor.pid",
        "status",
        "dynos/pid",
    ];
    let plant = |state: &Path| -> Result<(), Failed> {
        for file in files {
            std::fs::write(state.join(file), format!("{number}\n"))?;
        }
        let id = "00000000-0000-4000-8000-000000000000";
        let dir = state.join("dynos").join(id);
        std::fs::create_dir_all(&dir)?;
        for file in ["pid", "init.pid", "status"] {
            std::fs::write(dir.join(file), format!("{number}\n"))?;
        }
        Ok(())
    };
    let state = host.dir.path().join("state");
    plant(&state)?;
    host.ok(&["ps:stop", &dyno, "-a", "tiny"])?;
    host.ok(&["ps:restart", "-a", "tiny"])?;
    canary.lives("a stop and a restart")?;
    up(host)?;
    let old = supervisor(host).ok_or("no supervisor")?;
    support::signal(old, Signal::SIGKILL);
    host.eventually("another supervisor", || {
        supervisor(host).is_some_and(|new| new != old)
    })?;
    up(host)?;
    canary.lives("the next supervisor")?;
    plant(&state)?;
    kill_keeper(host)?;
    plant(&state)?;
    host.launch()?;
    up(host)?;
    canary.lives("the sweep of what a killed keeper left")?;
    for file in files {
        // `lock` is the supervisor's own, and was written anew.
        if file != "lock" && state.join(file).exists() {
            std::fs::remove_file(state.join(file))?;
        }
    }
    Ok(())
}

/// A dyno ends while no supervisor runs, and its PID 1's number is somebody else's when the next
/// one takes over.
fn adopted(host: &Host) -> Result<(), Failed> {
    let (dyno, old) = (firsts(host), supervisor(host).ok_or("no supervisor")?);
    let first = *dyno.first().ok_or("no dyno")?;
    let process = *children(first).first().ok_or("no process")?;
    support::signal(old, Signal::SIGSTOP);
    support::signal(process, Signal::SIGKILL);
    gone(host, first)?;
    let mut canaries = vec![Canary::take(first)?, Canary::take(process)?];
    support::signal(old, Signal::SIGKILL);
    host.eventually("worker.1 is another", || {
        host.all_up("tiny", &["worker.1"]) && firsts(host).iter().all(|pid| *pid != first)
    })?;
    host.ok(&["ps:restart", "-a", "tiny"])?;
    up(host)?;
    for canary in &mut canaries {
        canary.lives("a supervisor whose dyno had its number")?;
    }
    Ok(())
}

/// Nobody is left of what a killed keeper ran but its groups, and its numbers are used again.
fn swept(host: &mut Host) -> Result<(), Failed> {
    let first = *firsts(host).first().ok_or("no dyno")?;
    let process = *children(first).first().ok_or("no process")?;
    let (keeper, supervisor) = (keeper(host), supervisor(host).ok_or("no supervisor")?);
    kill_keeper(host)?;
    let left = groups(host);
    check(!left.is_empty(), "its group is left")?;
    support::signal(first, Signal::SIGKILL);
    gone(host, first)?;
    gone(host, process)?;
    let mut canaries = Vec::new();
    for pid in [first, process, keeper, supervisor] {
        canaries.push(Canary::take(pid)?);
    }
    host.launch()?;
    up(host)?;
    check(
        left.iter().all(|group| !group.exists()),
        "its group is swept",
    )?;
    for canary in &mut canaries {
        canary.lives("a sweep of groups whose members had its number")?;
    }
    Ok(())
}
