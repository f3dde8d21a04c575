//! The steps that close a dyno, and those of the process that becomes the app.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};

use crate::dyno::{AppStep, BY_BASH, Exec, PROFILE, PROFILE_DIRS, Resource};
use crate::sys;

/// What the steps need beside the plan.
pub(super) struct AppContext<'a> {
    /// The dyno's user namespace.
    pub(super) user: BorrowedFd<'a>,
    /// stdin, stdout, stderr.
    pub(super) streams: [BorrowedFd<'a>; 3],
    /// The pty slave, when there is one.
    pub(super) terminal: Option<BorrowedFd<'a>>,
    /// The compiled filter.
    pub(super) filter: &'a [libc::sock_filter],
}

/// Applies one step.
pub(super) fn apply(step: &AppStep, context: &AppContext<'_>) -> io::Result<()> {
    match step {
        AppStep::NewSession => nix::unistd::setsid().map(drop).map_err(io::Error::from),
        AppStep::Streams => streams(context),
        AppStep::Limit {
            resource,
            soft,
            hard,
        } => limit(*resource, *soft, *hard),
        AppStep::Umask(mask) => {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(*mask));
            Ok(())
        }
        AppStep::EnterUser => Ok(setns(context.user, CloneFlags::CLONE_NEWUSER)?),
        AppStep::BoundCapabilities => {
            sys::set_securebits()?;
            sys::bounding_drop()?;
            sys::clear_ambient()
        }
        AppStep::Ids { uid, gid } => sys::set_ids(*uid, *gid),
        AppStep::NoCapabilities => sys::set_capabilities_none(),
        AppStep::SessionKeyring => sys::new_session_keyring(),
        AppStep::DefaultSignals => {
            sys::reset_signals();
            sys::swap_signal_mask(false)
        }
        AppStep::NoNewPrivileges => sys::no_new_privileges(),
        AppStep::Directory(path) => {
            nix::unistd::chdir(path)?;
            // An unreachable working directory would lead out of the root (CVE-2024-21626).
            let here = nix::unistd::getcwd()?;
            if here.is_absolute() {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::EXDEV))
            }
        }
        AppStep::Seccomp => sys::install_filter(context.filter),
        // The keeper's code does it: it is no call but two lives.
        AppStep::Fork => Ok(()),
        AppStep::CloseFds => close_on_exec(),
    }
}

/// The failure channel must survive until exec, so nothing is closed here: everything above 2 is
/// marked to be closed by exec itself.
fn close_on_exec() -> io::Result<()> {
    sys::close_on_exec_from(3)
}

fn streams(context: &AppContext<'_>) -> io::Result<()> {
    let [stdin, stdout, stderr] = context.streams;
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    match context.terminal {
        Some(terminal) => sys::make_controlling(terminal),
        None => Ok(()),
    }
}

fn limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let resource = match resource {
        Resource::Nofile => Rlimit::RLIMIT_NOFILE,
        Resource::Nproc => Rlimit::RLIMIT_NPROC,
        Resource::Core => Rlimit::RLIMIT_CORE,
        Resource::Cpu => Rlimit::RLIMIT_CPU,
        Resource::Fsize => Rlimit::RLIMIT_FSIZE,
        Resource::Data => Rlimit::RLIMIT_DATA,
        Resource::Stack => Rlimit::RLIMIT_STACK,
        Resource::Rss => Rlimit::RLIMIT_RSS,
        Resource::Memlock => Rlimit::RLIMIT_MEMLOCK,
        Resource::As => Rlimit::RLIMIT_AS,
        Resource::Locks => Rlimit::RLIMIT_LOCKS,
        Resource::Sigpending => Rlimit::RLIMIT_SIGPENDING,
        Resource::Msgqueue => Rlimit::RLIMIT_MSGQUEUE,
        Resource::Nice => Rlimit::RLIMIT_NICE,
        Resource::Rtprio => Rlimit::RLIMIT_RTPRIO,
        Resource::Rttime => Rlimit::RLIMIT_RTTIME,
    };
    match setrlimit(resource, soft, hard) {
        // Raising a hard limit needs CAP_SYS_RESOURCE, which not every host grants.
        Err(nix::errno::Errno::EPERM) => {
            let (_, inherited) = getrlimit(resource)?;
            let hard = hard.min(inherited);
            Ok(setrlimit(resource, soft.min(hard), hard)?)
        }
        other => Ok(other?),
    }
}

/// A command as exec takes it.
pub(super) struct Prepared {
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Where the program may lie that needs no shell, its words and its environment.
    plain: Option<(Vec<CString>, Vec<CString>, Vec<CString>)>,
}

impl Prepared {
    /// Inside the dyno's root, as its user: looks for profile scripts.
    ///
    /// # Errors
    /// `EINVAL` for no program, or a NUL byte.
    pub(super) fn new(exec: &Exec) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let text = |t: &str| CString::new(t).map_err(|_| invalid());
        let texts = |all: &[String]| all.iter().map(|a| text(a)).collect::<io::Result<Vec<_>>>();
        let env = exec.env.iter().map(|(k, v)| text(&format!("{k}={v}")));
        let env = env.collect::<io::Result<Vec<_>>>()?;
        let argv = texts(&exec.argv)?;
        if argv.is_empty() {
            return Err(invalid());
        }
        let plain = match exec.plain.first() {
            Some(program) if !has_profile() => {
                let names = texts(&places(program, &exec.env))?;
                let mut env = env.clone();
                for variable in BY_BASH {
                    env.push(text(variable)?);
                }
                env.push(text(&format!("_={program}"))?);
                Some((names, texts(&exec.plain)?, env))
            }
            _ => None,
        };
        Ok(Self { argv, env, plain })
    }

    /// Replaces the process; returns only on failure.
    pub(super) fn exec(&self) -> io::Error {
        if let Some((names, words, env)) = &self.plain {
            for name in names {
                // Not there, or nothing that the kernel can execute: bash knows what to say.
                let _ = nix::unistd::execve(name, words, env);
            }
        }
        match nix::unistd::execve(&self.argv[0], &self.argv, &self.env) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        }
    }
}

/// Where a shell would look for a program.
fn places(program: &str, env: &[(String, String)]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH");
    let dirs = path.map_or("", |(_, path)| path).split(':');
    // An empty part is the working directory.
    let dirs = dirs.map(|dir| if dir.is_empty() { "." } else { dir });
    dirs.map(|dir| format!("{dir}/{program}")).collect()
}

/// True if the wrapper could have anything to read, or this cannot be told.
fn has_profile() -> bool {
    let is_script = |entry: io::Result<std::fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name());
        name.is_ok_and(|name| name.as_encoded_bytes().ends_with(b".sh"))
    };
    let has_scripts = |dir: &str| match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.any(is_script),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    let is_missing = |path: &str| {
        let found = std::fs::symlink_metadata(path);
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    PROFILE_DIRS.into_iter().any(has_scripts) || !is_missing(PROFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_a_shell_does() {
        let env = [("PATH".to_owned(), "/a::/b".to_owned())];
        assert_eq!(places("x", &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(places("./x", &env), ["./x"]);
        assert_eq!(places("x", &[]), ["./x"]);
    }
}
