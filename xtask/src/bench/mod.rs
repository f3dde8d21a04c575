//! `cargo xtask bench launch`: how long a launch takes, beside the two common launchers.
//!
//! All are asked to run `/bin/true` with new namespaces, a read-only root on the host's `/usr` and
//! a private `/tmp`, in interleaved rounds of one run: only the ratios mean something elsewhere.

mod ours;
mod peers;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use crate::leftovers::Leftovers;
use crate::{packages, process};

/// Rounds that are not counted: caches get warm.
const WARM_UP: usize = 3;

/// Options of `cargo xtask bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Launch of one isolated process: crun, bubblewrap, manifold
    Launch {
        /// Rounds
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..))]
        count: u16,
        /// Leave manifold out
        #[arg(long)]
        peers_only: bool,
    },
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let What::Launch { count, peers_only } = &options.what;
    packages::install(packages::ALL)?;
    let before = Leftovers::count();
    let measured = launch(usize::from(*count), *peers_only);
    let left = Leftovers::since(&before);
    print(&measured?);
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(ExitCode::SUCCESS)
}

/// Times of one way to launch.
struct Series {
    name: &'static str,
    times: Vec<Duration>,
}

impl Series {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            times: Vec::new(),
        }
    }
}

fn launch(count: usize, peers_only: bool) -> Result<Vec<Series>> {
    let peers = peers::Peers::prepare()?;
    let ours = if peers_only {
        None
    } else {
        Some(ours::Ours::start()?)
    };
    let mut crun = Series::new("crun run, spawn to exit");
    let mut bwrap = Series::new("bwrap, spawn to exit");
    let mut client = Series::new("manifold run, client start to exit");
    for round in 0..WARM_UP + count {
        process::keep_going()?;
        let keep = |series: &mut Series, time| {
            if round >= WARM_UP {
                series.times.push(time);
            }
        };
        keep(&mut crun, peers.crun(round)?);
        keep(&mut bwrap, peers.bwrap()?);
        if let Some(ours) = &ours {
            keep(&mut client, ours.run()?);
        }
    }
    let mut all = vec![crun, bwrap];
    if let Some(ours) = ours {
        let mut inner = Series::new("manifold, launch decided to exec");
        inner.times = ours.stop(count)?;
        all.extend([inner, client]);
    }
    Ok(all)
}

fn print(all: &[Series]) {
    let base = all.first().map_or(0.0, |crun| quantile(&crun.times, 0.5));
    println!(
        "{:<36} {:>5} {:>10} {:>10} {:>10}",
        "", "runs", "median ms", "p95 ms", "of crun"
    );
    for Series { name, times } in all {
        let median = quantile(times, 0.5);
        println!(
            "{name:<36} {:>5} {median:>10.2} {:>10.2} {:>10.2}",
            times.len(),
            quantile(times, 0.95),
            median / base
        );
    }
}

/// In milliseconds, by the nearest rank.
fn quantile(times: &[Duration], part: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among a few thousand"
    )]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    let time = sorted.get(rank.saturating_sub(1));
    time.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let times: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        for (part, wanted) in [(0.5, 10.0), (0.95, 19.0), (1.0, 20.0)] {
            assert!((quantile(&times, part) - wanted).abs() < 1e-9, "{part}");
        }
        assert!(quantile(&[], 0.5).is_nan());
    }
}
