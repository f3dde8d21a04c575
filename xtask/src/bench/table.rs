//! What is printed: series of times, single figures, and targets met or missed.

use std::time::Duration;

/// Times of one way to do something.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) times: Vec<Duration>,
}

impl Series {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            times: Vec::new(),
        }
    }

    /// In milliseconds.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.times, part)
    }
}

/// In milliseconds, by the nearest rank.
pub(super) fn quantile(times: &[Duration], part: f64) -> f64 {
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

/// A figure beside the one it may not pass.
#[derive(Debug)]
struct Target {
    name: String,
    value: f64,
    limit: f64,
    /// True: the figure has to be at least the limit.
    is_floor: bool,
}

/// All that one run found.
#[derive(Debug, Default)]
pub(super) struct Report {
    series: Vec<Series>,
    figures: Vec<(String, String)>,
    targets: Vec<Target>,
}

impl Report {
    pub(super) fn series(&mut self, series: Series) {
        self.series.push(series);
    }

    pub(super) fn figure(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.figures.push((name.into(), value.into()));
    }

    pub(super) fn at_most(&mut self, name: impl Into<String>, value: f64, limit: f64) {
        self.target(name.into(), value, limit, false);
    }

    pub(super) fn at_least(&mut self, name: impl Into<String>, value: f64, limit: f64) {
        self.target(name.into(), value, limit, true);
    }

    fn target(&mut self, name: String, value: f64, limit: f64, is_floor: bool) {
        self.targets.push(Target {
            name,
            value,
            limit,
            is_floor,
        });
    }

    /// Prints all, the series beside the median of the first one.
    pub(super) fn print(&self) {
        self.print_series();
        println!();
        for (name, value) in &self.figures {
            println!("{name:<44} {value}");
        }
        println!();
        for target in &self.targets {
            let (word, is_met) = if target.is_floor {
                ("at least", target.value >= target.limit)
            } else {
                ("at most", target.value <= target.limit)
            };
            println!(
                "{:<6} {:<60} {:>9.2}, {word} {}",
                if is_met { "met" } else { "MISSED" },
                target.name,
                target.value,
                target.limit
            );
        }
    }

    fn print_series(&self) {
        if self.series.is_empty() {
            return;
        }
        let base = self.series.first().map_or(f64::NAN, |s| s.quantile(0.5));
        println!(
            "\n{:<44} {:>5} {:>9} {:>9} {:>9} {:>9} {:>8}",
            "times in ms", "runs", "min", "median", "p95", "p99", "of crun"
        );
        for series in &self.series {
            println!(
                "{:<44} {:>5} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>8.2}",
                series.name,
                series.times.len(),
                series.quantile(0.0),
                series.quantile(0.5),
                series.quantile(0.95),
                series.quantile(0.99),
                series.quantile(0.5) / base
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let times: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        for (part, wanted) in [(0.0, 1.0), (0.5, 10.0), (0.95, 19.0), (1.0, 20.0)] {
            assert!((quantile(&times, part) - wanted).abs() < 1e-9, "{part}");
        }
        assert!(quantile(&[], 0.5).is_nan());
    }
}
