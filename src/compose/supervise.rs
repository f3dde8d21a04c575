//! The role `supervise`, in its two lives: first it checks the settings and becomes the keeper;
//! the keeper then starts it again with `--keeper-fd`, and that one is the supervisor.
//!
//! Start: settings → state directory (lock) → doors → sweep → machine → driver → store, releases, API,
//! router → ready. Stop is the same backwards; a keeper that is gone means that every dyno
//! is, so the supervisor ends too, and the service manager starts both again. One that crashes, or
//! makes way for another version, leaves dynos and doors to the next.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use super::{Doors, Kept, Platform, StateDir, upgrade};
use crate::api::{UpgradeRequest, Upgrades};
use crate::cgroup::Manager;
use crate::disk::Disks;
use crate::keeper::{Greeting, Inheritance};
use crate::logs::Hub;
use crate::model::DynoSize;
use crate::settings::{Flags, Settings};
use crate::supervisor::{Estate, LinuxMachine, Supervisor, sweep};
use crate::{keeper, sys};

/// Run the platform in the foreground (needs root).
#[derive(Debug, Parser)]
#[command(name = "manifold supervise", bin_name = "manifold supervise", version)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) flags: Flags,
    /// Our end of the keeper's socket pair.
    #[arg(long, hide = true)]
    keeper_fd: Option<RawFd>,
}

/// Runs the role to its end.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    // The program's name, then what follows `supervise`.
    let parsed = match Arguments::try_parse_from(arguments.iter().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    super::journal::start();
    match run(&parsed, arguments.get(2..).unwrap_or_default()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, words: &[OsString]) -> anyhow::Result<u8> {
    let settings = Settings::load(&arguments.flags)?;
    DynoSize::define(settings.sizes.clone());
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "supervise must run as root: it makes namespaces, cgroups and mounts for its dynos. Run: sudo manifold supervise"
    );
    // Stacks and slugs are for every dyno to read, whatever mask we were started with; what is
    // private gets its mode when it is made.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let Some(socket) = arguments.keeper_fd else {
        // Refuse here what would else be refused by a child of a keeper.
        drop(StateDir::open(&settings.paths())?);
        let scratch = settings.state.join("mnt");
        return Err(keeper::start(&scratch, words.iter().cloned()).into());
    };
    // The keeper blocks signals, and a child inherits that.
    sys::swap_signal_mask(false).context("cannot unblock signals")?;
    // Config vars are in our memory: no core file, no debugger but root's.
    sys::not_dumpable().context("cannot become undumpable")?;
    let socket = sys::adopt(socket);
    let left = match keeper::greet(&socket).context("cannot talk to the keeper")? {
        Greeting::Welcome(left) => left,
        Greeting::Stranger(theirs) => {
            tracing::error!(
                "the keeper that runs is of another version (it speaks {theirs}, this one {}): everything starts anew, dynos included",
                keeper::protocol_version()
            );
            return Ok(keeper::RENEW);
        }
    };
    // Behind `--keeper-fd N`, as the keeper was given them.
    let words = words.get(2..).unwrap_or_default();
    sys::bound_heaps();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("manifold")
        .build()
        .context("cannot start the async runtime")?;
    let served = runtime.block_on(serve(Arc::new(settings), socket, left, words));
    // Nothing that still runs there may hold up the next supervisor.
    runtime.shutdown_background();
    served
}

/// Memory that only takes up room, for the measurement of launches by a big supervisor.
fn ballast() -> Vec<u8> {
    let text = std::env::var("MANIFOLD_TEST_BALLAST_MB").unwrap_or_default();
    let megabytes: usize = text.parse().unwrap_or(0);
    // Not zero: zeroed memory would not be there until it is touched.
    vec![1; megabytes << 20]
}

async fn serve(
    settings: Arc<Settings>,
    socket: OwnedFd,
    left: Inheritance,
    words: &[OsString],
) -> anyhow::Result<u8> {
    let _ballast = ballast();
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot watch SIGHUP")?;
    let paths = settings.paths();
    let state = StateDir::open(&paths)?;
    // Before anything is made in the kernel: a taken port must leave nothing behind.
    let mut kept = Kept::read(left.doors.as_ref());
    let estate = Estate::read(left.dynos, kept.block());
    let doors = Doors::open_with(&settings, kept).await?;
    let hub = Hub::open(&paths.logs())?;
    let cgroups = Manager::open(&format!("manifold-{}", state.instance), paths.state())?;
    sweep(&paths, &cgroups, &estate.groups());
    // Without it dynos are still bounded each, so the platform may go on.
    match cgroups.keep_for_host(|total| settings.reserve.memory(total)) {
        Ok(limit) => tracing::debug!(?limit, "memory of all dynos together"),
        Err(error) => tracing::warn!(%error, "no memory is kept from all dynos together"),
    }
    let keeper = nix::unistd::getppid().as_raw().unsigned_abs();
    if let Err(error) = cgroups.reserve_for(&[keeper, std::process::id()]) {
        tracing::warn!(%error, "supervisor and keeper have no share of the CPU of their own");
    }
    let disks = Disks::open(&paths, settings.disk);
    let opened = LinuxMachine::open(
        &paths,
        &state.instance,
        cgroups.clone(),
        disks.clone(),
        socket,
        &settings.network,
        estate,
    );
    let opened = opened.await;
    let (machine, mut events) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            cgroups.close().context("the parent cgroup stays")?;
            return Err(error.into());
        }
    };
    let (bytes, sockets) = doors.kept(&settings, machine.block());
    if let Err(error) = machine.keep_doors(&bytes, &sockets) {
        tracing::warn!(%error, "our sockets would be closed with this supervisor");
    }
    let supervisor = Supervisor::start_with(
        Arc::new(machine.clone()),
        events.exits,
        hub.clone(),
        settings.timings,
        events.adopted,
    );
    let (upgrades, mut requests) = Upgrades::channel();
    machine.follow(supervisor.watch());
    let started = Platform::start(
        Arc::clone(&settings),
        doors,
        hub.clone(),
        supervisor.clone(),
        upgrades,
    );
    let platform = match started.await {
        Ok(platform) => platform,
        Err(error) => {
            supervisor.shutdown().await;
            machine.close().await.context("something of ours stays")?;
            return Err(error.into());
        }
    };
    tracing::info!(
        state = %settings.state.display(),
        socket = %settings.socket.display(),
        "ready"
    );
    notify(&[sd_notify::NotifyState::Ready]);
    let mut is_renewal = false;
    loop {
        let end = tokio::select! {
            _ = terminate.recv() => End::Stop,
            _ = interrupt.recv() => End::Stop,
            _ = hang_up.recv() => End::Stop,
            _ = &mut events.keeper_gone => End::KeeperGone,
            Some(request) = requests.recv() => End::Upgrade(request),
        };
        match end {
            End::Upgrade(request) => match upgrade::ask(words).await {
                Ok(installed) if installed.is_like_ours() => {
                    let version = installed.version;
                    tracing::info!("making way for version {version}");
                    let _ = request.send(Ok(format!("version {version} takes over, dynos go on")));
                    platform.leave().await;
                    hub.flush();
                    anyhow::ensure!(machine.flush().await, "the keeper does not listen");
                    return Ok(keeper::HAND_OVER);
                }
                Ok(installed) => {
                    let version = installed.version;
                    let _ = request.send(Ok(format!("version {version} cannot take over what runs: everything restarts, dynos included")));
                    is_renewal = true;
                    break;
                }
                Err(error) => {
                    tracing::error!("no upgrade: {error:#}");
                    let _ = request.send(Err(format!("{error:#}")));
                }
            },
            End::Stop => break,
            End::KeeperGone => {
                notify(&[sd_notify::NotifyState::Stopping]);
                platform.abandon().await;
                hub.flush();
                anyhow::bail!(
                    "the keeper is gone, and every dyno with it; what is left is swept at the next start"
                );
            }
        }
    }
    if !is_renewal {
        notify(&[sd_notify::NotifyState::Stopping]);
    }
    tracing::info!("stopping every dyno");
    platform.stop().await;
    hub.flush();
    machine
        .close()
        .await
        .context("something of ours stays until the next start")?;
    tracing::info!("stopped");
    Ok(if is_renewal { keeper::RENEW } else { 0 })
}

/// Why a supervisor ends.
enum End {
    Stop,
    KeeperGone,
    Upgrade(UpgradeRequest),
}

/// Outside of systemd there is nobody to tell.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd was not told");
    }
}
