//! The role `supervise`, in its two lives: first it checks the settings and becomes the keeper;
//! the keeper then starts it again with `--keeper-fd`, and that one is the supervisor.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::process::ExitCode;

use clap::Parser;

use crate::settings::{Flags, Settings};

/// Run the platform in the foreground (needs root).
#[derive(Debug, Parser)]
#[command(name = "manifold supervise", bin_name = "manifold supervise", version)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// Our end of the keeper's socket pair.
    #[arg(long, hide = true)]
    keeper_fd: Option<RawFd>,
}

/// Runs the role to its end.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    // The program's name, then what follows `supervise`.
    let arguments = match Arguments::try_parse_from(arguments.iter().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    super::journal::start();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let settings = Settings::load(&arguments.flags)?;
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "supervise must run as root: it makes namespaces, cgroups and mounts for its dynos. Run: sudo manifold supervise"
    );
    let _ = (settings, arguments.keeper_fd);
    anyhow::bail!("not wired yet")
}
