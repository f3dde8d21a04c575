//! The role `uninstall`: takes back what a supervisor leaves on its host, orderly stopped or not.
//!
//! Groups with whatever still runs in them, mounts, the firewall table, IP forwarding if we turned
//! it on, the socket, and on request the state directory. The program makes no users and no files
//! elsewhere.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use super::StateDir;
use crate::cgroup::Manager;
use crate::settings::{Flags, Settings, UninstallFlags};
use crate::{disk, network, supervisor};

/// Remove what manifold made on this host (needs root; stop it first).
#[derive(Debug, Parser)]
#[command(name = "manifold uninstall", bin_name = "manifold uninstall", version)]
struct Arguments {
    #[command(flatten)]
    flags: UninstallFlags,
}

/// Runs the role to its end.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let parsed = match Arguments::try_parse_from(arguments.iter().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    super::journal::start();
    match run(parsed.flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: UninstallFlags) -> anyhow::Result<()> {
    let settings = Settings::load(&Flags {
        place: flags.place,
        ..Flags::default()
    })?;
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "uninstall must run as root. Run: sudo manifold uninstall"
    );
    let paths = settings.paths();
    anyhow::ensure!(
        paths.instance().is_file(),
        "{} is no state directory of manifold: name it with --state or --config",
        settings.state.display()
    );
    let state =
        StateDir::open(&paths).context("stop manifold first (systemctl disable --now manifold)")?;
    let cgroups = Manager::open(&format!("manifold-{}", state.instance), paths.state())?;
    supervisor::sweep(&paths, &cgroups, &std::collections::BTreeSet::new());
    cgroups.close().context("a cgroup stays")?;
    disk::sweep(&paths);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(network::uninstall(&state.instance))?;
    tracing::info!(
        "removed the cgroups, mounts and firewall table of {}",
        state.instance
    );
    if paths.forwarding().exists() {
        runtime.block_on(network::stop_forwarding())?;
        std::fs::remove_file(paths.forwarding()).context("the mark of IP forwarding stays")?;
    }
    remove_socket(&settings.socket)?;
    if flags.purge {
        purge(&settings.state)?;
        tracing::info!("removed {} with every app", settings.state.display());
    } else {
        tracing::info!(
            "kept {}: apps, slugs, logs and certificates (--purge removes them)",
            settings.state.display()
        );
    }
    Ok(())
}

fn remove_socket(socket: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket =
        std::fs::symlink_metadata(socket).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket {
        std::fs::remove_file(socket)
            .with_context(|| format!("cannot remove {}", socket.display()))?;
    }
    Ok(())
}

/// Removes a tree that is ours, if nothing is mounted in it: what is mounted is somebody else's.
fn purge(state: &Path) -> anyhow::Result<()> {
    let state =
        std::fs::canonicalize(state).with_context(|| format!("cannot find {}", state.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read mounts")?;
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|at| Path::new(at).starts_with(&state) && Path::new(at) != state);
    if let Some(mount) = below {
        anyhow::bail!("{mount} is mounted in the state directory: unmount it, then purge again");
    }
    for entry in std::fs::read_dir(&state).context("cannot read the state directory")? {
        let path = entry.context("cannot read the state directory")?.path();
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    match std::fs::remove_dir(&state) {
        // A file system of its own: its mount point is the operator's.
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(()),
        other => other.with_context(|| format!("cannot remove {}", state.display())),
    }
}
