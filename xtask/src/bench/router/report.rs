//! Medians, ratios and verdicts.
#![expect(
    clippy::cast_precision_loss,
    reason = "counts and nanoseconds of seconds fit"
)]

use std::time::Duration;

use super::cpu::Used;
use super::proxies::Kind;

/// What the bodies of a measurement are like, and their bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Small(usize),
    Large(usize),
    /// Small, with TLS.
    Tls(usize),
}

impl Size {
    fn bytes(self) -> usize {
        let (Self::Small(bytes) | Self::Large(bytes) | Self::Tls(bytes)) = self;
        bytes
    }
}

/// CPU of ours over that of the better of the others, 1 KB.
const SMALL_RATIO: f64 = 0.8;

/// The same per byte of large bodies, and with TLS.
const LARGE_RATIO: f64 = 1.0;

/// User time per request.
const USER_MICROS: f64 = 3.0;

/// Per idle connection.
const IDLE_BYTES: f64 = 4096.0;

/// One round of one proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) worker: Used,
    pub(super) whole: Used,
    pub(super) requests: usize,
}

#[derive(Debug)]
struct Costs {
    title: &'static str,
    size: Size,
    kind: Kind,
    rounds: Vec<Cost>,
}

#[derive(Debug)]
struct Latencies {
    kind: Option<Kind>,
    /// Median, 99th percentile, CPU per request in microseconds, of each round.
    rounds: Vec<(f64, f64, f64)>,
}

/// All results.
#[derive(Debug, Default)]
pub(super) struct Report {
    costs: Vec<Costs>,
    latencies: Vec<Latencies>,
    idle: Vec<(Kind, f64)>,
}

/// `sum / count`.
pub(super) fn per(sum: u64, count: usize) -> f64 {
    sum as f64 / count.max(1) as f64
}

impl Report {
    pub(super) fn cost(&mut self, title: &'static str, size: Size, kind: Kind, cost: Cost) {
        let found = self
            .costs
            .iter_mut()
            .find(|c| c.title == title && c.kind == kind);
        match found {
            Some(costs) => costs.rounds.push(cost),
            None => self.costs.push(Costs {
                title,
                size,
                kind,
                rounds: vec![cost],
            }),
        }
    }

    pub(super) fn latency(&mut self, kind: Option<Kind>, times: &[Duration], used: Used) {
        let mut sorted: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e6).collect();
        sorted.sort_by(f64::total_cmp);
        let round = (
            quantile(&sorted, 50),
            quantile(&sorted, 99),
            per(used.nanos, times.len()) / 1e3,
        );
        match self.latencies.iter_mut().find(|l| l.kind == kind) {
            Some(latencies) => latencies.rounds.push(round),
            None => self.latencies.push(Latencies {
                kind,
                rounds: vec![round],
            }),
        }
    }

    pub(super) fn idle(&mut self, kind: Kind, bytes: f64) {
        self.idle.push((kind, bytes));
    }

    pub(super) fn print(&self) {
        self.print_costs();
        self.print_latencies();
        self.print_idle();
    }

    fn print_costs(&self) {
        let mut titles: Vec<&str> = self.costs.iter().map(|c| c.title).collect();
        titles.dedup();
        for title in titles {
            println!("\n{title}: CPU per request in microseconds, medians");
            println!(
                "{:<12}{:>7}{:>9}{:>9}{:>9}{:>9}{:>10}{:>12}",
                "", "rounds", "worker", "user", "system", "process", "of best", "ns per KB"
            );
            let costs: Vec<&Costs> = self.costs.iter().filter(|c| c.title == title).collect();
            let best = best(costs.iter().map(|c| (c.kind, c.whole())));
            for costs in &costs {
                let (user, system) = costs.split();
                println!(
                    "{:<12}{:>7}{:>9.2}{user:>9.2}{system:>9.2}{:>9.2}{:>10.2}{:>12.1}",
                    costs.kind.name(),
                    costs.rounds.len(),
                    costs.worker(),
                    costs.whole(),
                    costs.whole() / best,
                    costs.whole() * 1e3 / (costs.size.bytes() as f64 / 1024.0),
                );
            }
            let Some(ours) = costs.iter().find(|c| c.kind == Kind::Manifold) else {
                continue;
            };
            let ratio = ours.whole() / best;
            if let Size::Small(_) = ours.size {
                verdict("CPU of the better other", ratio, SMALL_RATIO);
                verdict("user microseconds", ours.split().0, USER_MICROS);
            } else {
                verdict("CPU of the better other", ratio, LARGE_RATIO);
            }
        }
    }

    fn print_latencies(&self) {
        if self.latencies.is_empty() {
            return;
        }
        println!("\nlatency at a fixed rate in microseconds, medians over the rounds");
        println!(
            "{:<12}{:>7}{:>9}{:>9}{:>11}{:>11}{:>9}",
            "", "rounds", "p50", "p99", "added p50", "added p99", "process"
        );
        let middle = |l: &Latencies| {
            (
                median(l.rounds.iter().map(|r| r.0)),
                median(l.rounds.iter().map(|r| r.1)),
                median(l.rounds.iter().map(|r| r.2)),
            )
        };
        let direct = self.latencies.iter().find(|l| l.kind.is_none());
        let (base, base_high, _) = direct.map_or((0.0, 0.0, 0.0), middle);
        let mut added = Vec::new();
        for one in &self.latencies {
            let (low, high, used) = middle(one);
            println!(
                "{:<12}{:>7}{low:>9.0}{high:>9.0}{:>11.0}{:>11.0}{used:>9.1}",
                one.kind.map_or("direct", Kind::name),
                one.rounds.len(),
                low - base,
                high - base_high
            );
            if let Some(kind) = one.kind {
                added.push((kind, high - base_high));
            }
        }
        if let Some((_, ours)) = added.iter().find(|(kind, _)| *kind == Kind::Manifold) {
            let best = best(added.iter().copied());
            verdict("added p99 of the better other", ours / best, 1.0);
        }
    }

    fn print_idle(&self) {
        if self.idle.is_empty() {
            return;
        }
        println!("\nresident bytes per idle connection");
        for (kind, bytes) in &self.idle {
            println!("{:<12}{bytes:>9.0}", kind.name());
            if *kind == Kind::Manifold {
                verdict("bytes", *bytes, IDLE_BYTES);
            }
        }
    }
}

impl Costs {
    fn worker(&self) -> f64 {
        median(
            self.rounds
                .iter()
                .map(|r| per(r.worker.nanos, r.requests) / 1e3),
        )
    }

    fn whole(&self) -> f64 {
        median(
            self.rounds
                .iter()
                .map(|r| per(r.whole.nanos, r.requests) / 1e3),
        )
    }

    /// User and system part of the worker's time: ticks are coarse, so those of all rounds.
    fn split(&self) -> (f64, f64) {
        let user: u64 = self.rounds.iter().map(|r| r.worker.user_ticks).sum();
        let system: u64 = self.rounds.iter().map(|r| r.worker.system_ticks).sum();
        let part = user as f64 / (user + system).max(1) as f64;
        (self.worker() * part, self.worker() * (1.0 - part))
    }
}

/// The least of the others.
fn best(all: impl Iterator<Item = (Kind, f64)>) -> f64 {
    all.filter(|(kind, _)| *kind != Kind::Manifold)
        .map(|(_, value)| value)
        .fold(f64::INFINITY, f64::min)
}

fn verdict(what: &str, value: f64, most: f64) {
    let word = if value <= most { "met" } else { "MISSED" };
    println!("  target {word}: {value:.2} {what}, at most {most:.2}");
}

/// By the nearest rank, of sorted values.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_never_ours() {
        let all = [
            (Kind::Manifold, 1.0),
            (Kind::Nginx, 3.0),
            (Kind::Haproxy, 2.0),
        ];
        assert!((best(all.into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([5.0, 1.0, 3.0].into_iter()) - 3.0).abs() < 1e-9);
    }
}
