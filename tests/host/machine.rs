//! A machine that runs dynos as plain processes: no namespaces, no root. What is above the driver
//! cannot tell the difference.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use manifold::cgroup::{Glance, Memory};
use manifold::model::{Digest, DynoId, ExitStatus, StackRef};
use manifold::settings::Paths;
use manifold::supervisor::{
    Backend, Exited, Failure, LaunchOrder, Launched, LaunchedStdio, Machine, Sample, StdioOrder,
    StopSignal, Task, WindowSize,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::mpsc;

/// Dynos are process groups.
#[derive(Clone)]
pub(crate) struct Processes {
    paths: Paths,
    exits: mpsc::UnboundedSender<Exited>,
    live: Arc<Mutex<HashMap<DynoId, Pid>>>,
}

impl Processes {
    pub(crate) fn new(paths: Paths, exits: mpsc::UnboundedSender<Exited>) -> Self {
        Self {
            paths,
            exits,
            live: Arc::default(),
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<DynoId, Pid>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unpacked slug's `app` directory.
    fn tree(&self, digest: Option<Digest>) -> io::Result<PathBuf> {
        let Some(digest) = digest else {
            return Ok(self.paths.state().to_owned());
        };
        let tree = self.paths.tree(&digest);
        if !tree.exists() {
            std::fs::create_dir_all(&tree)?;
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(self.paths.slug(&digest));
            let status = tar.arg("-C").arg(&tree).status()?;
            if !status.success() {
                return Err(io::Error::other(format!("tar ended with {status}")));
            }
        }
        Ok(tree.join("app"))
    }

    fn start(&self, order: &LaunchOrder) -> io::Result<Launched> {
        let started = Instant::now();
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
        let (out_read, out_write) = pipe()?;
        nonblocking(&out_read)?;
        let mut command = Command::new("/bin/bash");
        command
            .args(["-c", &order.command])
            .env_clear()
            .envs(order.env.iter().map(|(key, value)| (key, value)))
            .current_dir(self.tree(order.slug)?)
            .process_group(0);
        let stdio = match order.stdio {
            StdioOrder::Pipes => {
                let (in_read, in_write) = pipe()?;
                let (err_read, err_write) = pipe()?;
                nonblocking(&in_write)?;
                nonblocking(&err_read)?;
                command.stdin(in_read).stdout(out_write).stderr(err_write);
                LaunchedStdio::Pipes {
                    stdin: in_write,
                    stdout: out_read,
                    stderr: err_read,
                }
            }
            StdioOrder::Logged => {
                let error = out_write.try_clone()?;
                command.stdin(Stdio::null()).stdout(out_write).stderr(error);
                LaunchedStdio::Logged(out_read)
            }
            StdioOrder::Terminal(_) => {
                return Err(io::Error::other("no terminals without a kernel of ours"));
            }
        };
        let mut child = command.spawn()?;
        // Our copies of the dyno's ends go with the command.
        drop(command);
        let pid = child.id();
        let group = Pid::from_raw(i32::try_from(pid).expect("a pid fits"));
        self.live().insert(order.id, group);
        let (machine, id) = (self.clone(), order.id);
        std::thread::spawn(move || {
            use std::os::unix::process::ExitStatusExt as _;
            let status = child.wait().expect("a child of ours");
            machine.live().remove(&id);
            // What the command left behind goes with it, as in a pid namespace.
            let _ = killpg(group, Signal::SIGKILL);
            let code = status.code().or(status.signal().map(|s| 128 + s));
            let code = code.and_then(|c| u8::try_from(c).ok()).unwrap_or(u8::MAX);
            let at = Instant::now();
            let status = ExitStatus(code);
            // A driver that is gone needs no news.
            let _ = machine.exits.send(Exited { id, status, at });
        });
        Ok(Launched {
            pid,
            backend: Backend::default(),
            stdio,
            took: started.elapsed(),
        })
    }
}

impl Processes {
    /// Ends whatever runs.
    pub(crate) fn end(&self) {
        for group in self.live().values() {
            // It may have ended this very moment.
            let _ = killpg(*group, Signal::SIGKILL);
        }
    }

    /// A number of the first process's `/proc/PID/status`.
    fn figure(&self, id: DynoId, name: &str) -> Option<u64> {
        let pid = *self.live().get(&id)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Machine for Processes {
    fn launch(&self, order: LaunchOrder) -> Task<'_, Result<Launched, Failure>> {
        Box::pin(async move {
            self.start(&order).map_err(|error| Failure {
                step: "start the process".to_owned(),
                reason: error.to_string(),
                checksum: None,
            })
        })
    }

    fn signal(&self, id: DynoId, signal: StopSignal) {
        let signal = match signal {
            StopSignal::Term => Signal::SIGTERM,
            StopSignal::Hup => Signal::SIGHUP,
            StopSignal::Kill => Signal::SIGKILL,
        };
        if let Some(group) = self.live().get(&id) {
            // It may have ended this very moment.
            let _ = killpg(*group, signal);
        }
    }

    fn resize(&self, _: DynoId, _: WindowSize) {}

    fn teardown(&self, _: DynoId) -> Task<'_, ()> {
        Box::pin(async {})
    }

    fn glance(&self, id: DynoId) -> Option<Glance> {
        Some(Glance {
            charged_bytes: self.figure(id, "VmRSS:")? << 10,
            oom_kills: 0,
        })
    }

    fn sample(&self, id: DynoId) -> Option<Sample> {
        Some(Sample {
            memory: Memory {
                rss: self.figure(id, "VmRSS:")? << 10,
                ..Memory::default()
            },
            tasks: self.figure(id, "Threads:")?,
            ..Sample::default()
        })
    }

    fn prepare(&self, _: &StackRef, slug: Option<Digest>) -> Task<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.tree(slug).map(drop).map_err(|error| Failure {
                step: "unpack the slug".to_owned(),
                reason: error.to_string(),
                checksum: None,
            })
        })
    }
}
