//! The confined process that becomes git.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};

use super::session::{Exchange, Service};
use crate::sys;

/// Where the repository is, for git. Nothing else of this host's `/tmp` is.
const HOME: &str = "/tmp";

/// The descriptor over which the hook talks to the supervisor.
const CONTROL: i32 = 9;

/// Address space of git in bytes: packs of the largest size are mapped.
const MEMORY_MAX: u64 = 4 << 30;

/// Largest file git may write in bytes.
const FILE_MAX: u64 = 2 << 30;

/// Processor seconds of one git process.
const CPU_MAX: u64 = 600;

/// Entry point of the role `__git`: `DIR SERVICE EXCHANGE PUSH`, the supervisor's line as stderr.
/// Becomes git; exit status 70 if it cannot.
pub fn git_main(args: &[OsString]) -> ExitCode {
    let error = match git(args) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Nobody reads it but the journal of a supervisor that asked for no push.
    let _ = writeln!(io::stderr(), "git does not start: {error}");
    ExitCode::from(70)
}

fn git(args: &[OsString]) -> io::Result<std::convert::Infallible> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let [dir, service, exchange, push] = args else {
        return Err(invalid());
    };
    let text = |word: &OsString| word.to_str().map(str::to_owned).ok_or_else(invalid);
    let service: Service = text(service)?.parse().map_err(|_| invalid())?;
    let exchange = Exchange::parse(&text(exchange)?).ok_or_else(invalid)?;
    let home = confine(Path::new(dir))?;
    let mut command = Command::new("git");
    command
        .arg(service.as_str().trim_start_matches("git-"))
        .args(exchange.flags())
        .arg(&home)
        .current_dir(&home)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", &home)
        .env("LANG", "C.UTF-8")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("MANIFOLD_PUSH", home.join("push").join(push));
    if let Some(protocol) = std::env::var_os("GIT_PROTOCOL") {
        command.env("GIT_PROTOCOL", protocol);
    }
    // The hook inherits it from git, which knows nothing of it.
    sys::move_to(io::stderr().as_fd(), CONTROL)?;
    let nothing = std::fs::File::options().write(true).open("/dev/null")?;
    sys::move_to(nothing.as_fd(), 2)?;
    Err(command.exec())
}

/// The `dyno` user, no capability, no network, the repository at `/tmp`. Without root (tests) only
/// what an ordinary user can give up. Returns where the repository is then.
fn confine(dir: &Path) -> io::Result<PathBuf> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    setrlimit(Resource::RLIMIT_AS, MEMORY_MAX, MEMORY_MAX)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_FSIZE, FILE_MAX, FILE_MAX)?;
    setrlimit(Resource::RLIMIT_CPU, CPU_MAX, CPU_MAX)?;
    let home = if nix::unistd::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)?;
        let none: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none)?;
        mount(Some(dir), HOME, none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(none, HOME, none, flags, none)?;
        nix::unistd::chdir(HOME)?;
        sys::bounding_drop()?;
        sys::set_ids(sys::APP_ID, sys::APP_ID)?;
        sys::set_capabilities_none()?;
        PathBuf::from(HOME)
    } else {
        dir.to_owned()
    };
    sys::no_new_privileges()?;
    Ok(home)
}
