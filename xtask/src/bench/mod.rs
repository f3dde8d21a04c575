//! `cargo xtask bench`. `launch`: how long a launch takes, beside other launchers and beside the
//! bare system calls; how the cost grows with many dynos; what each costs.
//!
//! Latencies are taken in interleaved rounds of one run: only the ratios mean something elsewhere.
//! The peers run `/bin/true` with new namespaces, a read-only root on the host's `/usr` and a
//! private `/tmp`; manifold runs a shell that reads its profile, then the command.

mod deploy;
mod filter;
mod floor;
mod ours;
mod peers;
mod router;
mod routing;
mod scale;
mod slug;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::leftovers::Leftovers;
use crate::vm::Binaries;
use crate::{packages, process};
use table::{Report, Series};

/// Rounds that are not counted: caches get warm.
const WARM_UP: usize = 3;

/// Podman takes a hundred times longer than the rest: fewer rounds.
const PODMAN_ROUNDS: usize = 10;

/// Memory of the big supervisor.
const BALLAST_MB: u32 = 1024;

/// Options of `cargo xtask bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Launch of one isolated process, of many, and what they cost
    Launch(Launch),
    /// From `git push` to a running release: how long, and what of it is ours
    Deploy(deploy::Options),
    /// Queue times under each routing policy: dynos that serve one request at a time
    Routing(routing::Options),
    /// CPU, latency and memory of the router: manifold, nginx, `HAProxy`
    Router(router::Options),
    /// A web process for `router`
    #[command(hide = true)]
    Backend(router::Backend),
}

#[derive(Args, Clone, Debug)]
struct Launch {
    /// Rounds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Fewer rounds and at most 50 dynos; no slug, no big supervisor
    #[arg(long)]
    quick: bool,
    /// Leave manifold out
    #[arg(long)]
    peers_only: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let options = match &options.what {
        What::Launch(options) => options,
        What::Routing(options) => {
            packages::install(packages::ALL)?;
            return routing::run(options).map(|()| ExitCode::SUCCESS);
        }
        What::Deploy(options) => return deploy::run(options).map(|()| ExitCode::SUCCESS),
        What::Router(options) => return router::run(options).map(|()| ExitCode::SUCCESS),
        What::Backend(backend) => return router::backend(backend).map(|()| ExitCode::SUCCESS),
    };
    packages::install(packages::ALL)?;
    packages::install(packages::BENCH_LAUNCH)?;
    let before = Leftovers::count();
    let mut report = Report::default();
    let measured = launch(options, &mut report);
    let left = Leftovers::since(&before);
    report.print();
    measured?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(ExitCode::SUCCESS)
}

/// A program of `tests/bench`, optimised.
fn built(name: &str) -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["bench", "--package", "manifold", "--bench", name]);
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let text = process::read(&mut command)?;
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if message["target"]["name"] == name
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo built no bench `{name}`")
}

fn launch(options: &Launch, report: &mut Report) -> Result<()> {
    let count = if options.quick {
        usize::from(options.count).min(50)
    } else {
        usize::from(options.count)
    };
    let peers = peers::Peers::prepare()?;
    if options.peers_only {
        return latencies(count, &peers, None, None, report).map(drop);
    }
    filter::filter(report)?;
    println!("building manifold");
    let program = Binaries::program(true)?;
    let ours = ours::Ours::start(&program, 0)?;
    let big = if options.quick {
        None
    } else {
        Some(ours::Ours::start(&program, BALLAST_MB)?)
    };
    latencies(count, &peers, Some(&ours), big.as_ref(), report)?;
    if let Some(big) = big {
        big.stop()?;
    }
    rates(options.quick, &peers, &ours, report)?;
    let counts: &[usize] = if options.quick {
        &[1, 10, 50]
    } else {
        &[1, 10, 100, 200, 500]
    };
    scale::scale(&ours, counts, report)?;
    scale::dirty(&ours, report)?;
    ours.stop()?;
    if !options.quick {
        let (tar, unpack) = slug::unpack(&program)?;
        let ratio = unpack.quantile(0.5) / tar.quantile(0.5);
        report.series(tar);
        report.series(unpack);
        report.at_most("unpack, of GNU tar's time", ratio, 0.6);
    }
    Ok(())
}

fn rates(quick: bool, peers: &peers::Peers, ours: &ours::Ours, report: &mut Report) -> Result<()> {
    let crun = peers.crun_rate(if quick { 60 } else { 200 })?;
    let mine = scale::rate(ours)?;
    report.figure("crun run to exit, per second", format!("{crun:.0}"));
    report.figure(
        "manifold launches to exit, per second",
        format!("{mine:.0}"),
    );
    report.at_least("launches run to exit per second", mine, 250.0);
    report.at_least("the same, of crun's", mine / crun, 2.0);
    Ok(())
}

/// Interleaved rounds of everything that launches one process.
fn latencies(
    count: usize,
    peers: &peers::Peers,
    ours: Option<&ours::Ours>,
    big: Option<&ours::Ours>,
    report: &mut Report,
) -> Result<()> {
    let floor = floor::Floor::prepare()?;
    let mut crun = Series::new("crun run, spawn to exit");
    let mut second = Series::new("runc run, spawn to exit");
    let mut bwrap = Series::new("bwrap, spawn to exit");
    let mut podman = Series::new("podman run, spawn to exit");
    let mut client = Series::new("manifold run true, client start to exit");
    let mut floor_exec = Series::new("bare system calls, to exec");
    let mut floor_whole = Series::new("bare system calls, run to exit");
    let mut podman_fails = peers.podman().err();
    for round in 0..WARM_UP + count {
        process::keep_going()?;
        let keep = |series: &mut Series, time| {
            if round >= WARM_UP {
                series.times.push(time);
            }
        };
        keep(&mut crun, peers.crun(round)?);
        keep(&mut second, peers.runc(round)?);
        keep(&mut bwrap, peers.bwrap()?);
        if podman_fails.is_none() && round < PODMAN_ROUNDS {
            match peers.podman() {
                Ok(time) => keep(&mut podman, time),
                Err(error) => podman_fails = Some(error),
            }
        }
        for (exec, whole) in floor.run(1)? {
            keep(&mut floor_exec, exec);
            keep(&mut floor_whole, whole);
        }
        for ours in [ours, big].into_iter().flatten() {
            ours.cycle()?;
        }
        if let Some(ours) = ours {
            keep(&mut client, ours.client()?);
            ours.await_gone()?;
        }
    }
    if let Some(error) = podman_fails {
        let reason = format!("{error:#}");
        report.figure(
            "podman run",
            format!("does not run here: {}", reason.trim()),
        );
    }
    let (base, bare_exec) = (crun.quantile(0.5), floor_exec.quantile(0.5));
    let mut series = vec![crun, second, bwrap, podman, floor_exec, floor_whole];
    if let Some(ours) = ours {
        // Each round launched twice: by the API, and by the client.
        let mut inner = Series::new("manifold, launch decided to exec");
        inner.times = ours.launches(2 * count)?;
        report.at_most("launch, median ms", inner.quantile(0.5), 1.3);
        report.at_most("launch, p99 ms", inner.quantile(0.99), 5.0);
        report.at_most("launch, of crun run", inner.quantile(0.5) / base, 0.2);
        report.at_most(
            "launch, of the bare system calls",
            inner.quantile(0.5) / bare_exec,
            1.5,
        );
        report.at_most(
            "manifold run true, of crun run",
            client.quantile(0.5) / base,
            1.0,
        );
        if let Some(big) = big {
            let mut other = Series::new("the same, supervisor of 1 GB");
            other.times = big.launches(count)?;
            let ratio = other.quantile(0.5) / inner.quantile(0.5);
            report.at_most("launch with 1 GB, of that without", ratio, 1.1);
            series.push(other);
        }
        series.extend([inner, client]);
    }
    for series in series {
        report.series(series);
    }
    Ok(())
}
