//! A dyno's PID 1 from its clone to the exec of the command.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::init;
use super::privileges::{self, AppContext, Prepared};
use super::protocol::{self, StepFailure};
use super::scratch::Scratch;
use super::steps::{self, SetUp};
use crate::dyno::{AppStep, LaunchPlan};
use crate::sys::{self, Fault};

/// What a dyno's PID 1 says on its channel, once.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Said {
    /// The command was exec'd; a terminal's master beside.
    Launched,
    /// A step failed.
    Failed(StepFailure),
}

/// The child between clone and exec.
pub(super) struct DynoChild<'a> {
    pub(super) plan: &'a LaunchPlan,
    pub(super) scratch: &'a Scratch,
    /// The mount namespace of one that was made ahead.
    pub(super) ahead: Option<BorrowedFd<'a>>,
    pub(super) user: BorrowedFd<'a>,
    pub(super) network: BorrowedFd<'a>,
    pub(super) writable: BorrowedFd<'a>,
    pub(super) streams: [BorrowedFd<'a>; 3],
    pub(super) tasks: &'a [OwnedFd],
    pub(super) filter: &'a [libc::sock_filter],
    pub(super) channel: OwnedFd,
    pub(super) fault: Fault,
}

/// The points at which a launch by this plan may be made to fail.
pub(super) fn points(plan: &LaunchPlan) -> impl Iterator<Item = String> {
    let ours = ["make a user namespace", "make a channel", "clone"];
    let set_up = plan.set_up.iter().map(steps::name);
    let app = plan.app.iter().map(|step| format!("{step:?}"));
    let ours = ours.map(str::to_owned).into_iter().chain(set_up);
    ours.chain(app).chain(["exec".to_owned()])
}

impl DynoChild<'_> {
    fn fail(&self, step: &str, error: &io::Error) -> ! {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let said = Said::Failed(StepFailure {
            step: step.to_owned(),
            errno,
        });
        let _ = protocol::send(self.channel.as_fd(), &said, &[]);
        std::process::exit(127)
    }

    pub(super) fn run(self) -> ! {
        let or_fail = |step: &str, result: io::Result<()>| {
            if let Err(error) = result {
                self.fail(step, &error);
            }
        };
        if self.ahead.is_some() {
            or_fail("show its name", sys::show_own_name());
        } else {
            or_fail("let go of the keeper", begin(&self.descriptors()));
        }
        let mut set_up = SetUp::new(&self);
        for step in &self.plan.set_up {
            let fault = self.fault.at_lazily(|| steps::name(step));
            if let Err(error) = fault.and_then(|()| set_up.apply(step)) {
                self.fail(&steps::name(step), &error);
            }
        }
        let terminal = match (self.plan.terminal, &set_up.terminals) {
            (Some(size), Some(devpts)) => {
                match steps::open_terminal(devpts, self.plan.user, size) {
                    Ok(pair) => Some(pair),
                    Err(error) => self.fail("open a terminal", &error),
                }
            }
            _ => None,
        };
        drop(set_up);
        // Before the fork: the app may look at its PID 1 as soon as it runs.
        or_fail("erase the arguments", sys::erase_arguments());
        or_fail("let go of our streams", quiet());
        let slave = terminal.as_ref().map(|(_, slave)| slave.as_fd());
        let context = AppContext {
            user: self.user,
            streams: slave.map_or(self.streams, |slave| [slave; 3]),
            terminal: slave,
            filter: self.filter,
        };
        let is_fork = |step: &AppStep| *step == AppStep::Fork;
        let fork = self.plan.app.iter().position(is_fork);
        let (shared, own) = self.plan.app.split_at(fork.unwrap_or_default());
        if let Err((step, error)) = self.apply(shared, &context) {
            self.fail(&step, &error);
        }
        // Changed ids made it dumpable again, as far as the kernel's settings go.
        or_fail("be undumpable", sys::not_dumpable());
        // A keeper that is gone already hears no report, which ends this process, too.
        or_fail("end with the keeper", sys::die_with_parent());
        let exec = Prepared::new(&self.plan.exec);
        let exec = exec.unwrap_or_else(|error| self.fail("exec", &error));
        let mut failure = None;
        let app = sys::vfork(|| {
            failure = self.apply(own, &context).err().or_else(|| {
                let fault = self.fault.at("exec").err();
                Some(("exec".to_owned(), fault.unwrap_or_else(|| exec.exec())))
            });
        });
        let app = app.unwrap_or_else(|error| self.fail("Fork", &error));
        if let Some((step, error)) = failure {
            self.fail(&step, &error);
        }
        drop(exec);
        let master: Vec<BorrowedFd<'_>> = terminal.iter().map(|(m, _)| m.as_fd()).collect();
        if let Err(error) = protocol::send(self.channel.as_fd(), &Said::Launched, &master) {
            self.fail("report", &error);
        }
        let grace = Duration::from_millis(self.plan.stop_grace_ms);
        // A PID 1 that keeps what is not its own must not live: its end ends the dyno.
        let status = match sys::close_from(3) {
            Ok(()) => init::run(app, grace),
            Err(_) => 127,
        };
        // Everything above 2 was closed under our feet: skip destructors.
        sys::exit_now(status)
    }

    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let ours = [self.user, self.network, self.writable, self.channel.as_fd()];
        let ours = ours.into_iter().chain(self.streams);
        ours.chain(self.tasks.iter().map(AsFd::as_fd)).collect()
    }

    /// The steps in order; the first that failed by name.
    fn apply(
        &self,
        steps: &[AppStep],
        context: &AppContext<'_>,
    ) -> Result<(), (String, io::Error)> {
        for step in steps {
            let done = self.fault.at_lazily(|| format!("{step:?}"));
            let done = done.and_then(|()| privileges::apply(step, context));
            done.map_err(|error| (format!("{step:?}"), error))?;
        }
        Ok(())
    }
}

/// From a copy of the keeper to a process of its own, with these descriptors. The keeper has one for
/// every dyno and every range of ids: closed here once, and not again by PID 1 and by the app's exec.
/// Their owners in this copy of the keeper are never dropped.
pub(super) fn begin(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<i32> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    sys::close_all_but(libc::STDERR_FILENO + 1, &kept)?;
    sys::swap_signal_mask(true)?;
    // A Ctrl-C on the supervisor's terminal is for the supervisor only.
    nix::unistd::setsid()?;
    Ok(())
}

/// PID 1 has no streams: those of the keeper lead to the host's journal.
fn quiet() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(nix::unistd::dup2_stderr(&null)?)
}
