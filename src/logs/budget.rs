//! How much of its dynos' output an app may have in its log.

use std::time::{Duration, Instant};

/// Lines and bytes an app may print at once.
const BURST: Amount = Amount {
    lines: 10_000.0,
    bytes: 8.0 * 1024.0 * 1024.0,
};

/// And in every second from then on: less than the history holds, so that it always has a line
/// that tells of the others.
const RATE: Amount = Amount {
    lines: 1_000.0,
    bytes: 2.0 * 1024.0 * 1024.0,
};

#[derive(Clone, Copy, Debug)]
struct Amount {
    lines: f64,
    bytes: f64,
}

/// A token bucket of lines and bytes.
#[derive(Debug)]
pub(super) struct Budget {
    left: Amount,
    at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// Takes one line; false if the app has to wait for it.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left.lines = (self.left.lines + passed * RATE.lines).min(BURST.lines);
        self.left.bytes = (self.left.bytes + passed * RATE.bytes).min(BURST.bytes);
        // A line has at most 10,000 bytes: far below the burst.
        let bytes = u32::try_from(bytes).map_or(f64::INFINITY, f64::from);
        if self.left.lines < 1.0 || self.left.bytes < bytes {
            return false;
        }
        self.left.lines -= 1.0;
        self.left.bytes -= bytes;
        true
    }
}

/// How long a dyno whose lines are dropped may wait for its output to be read on: its flood costs
/// us no more than so many lines a second, and it never waits for ever.
pub(super) fn pause(dropped: u64) -> Duration {
    const LINES_PER_MS: u64 = 200;
    const LEAST_MS: u64 = 5;
    const MOST_MS: u64 = 100;
    Duration::from_millis((dropped / LINES_PER_MS).clamp(LEAST_MS, MOST_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut Budget, now: Instant, bytes: usize) -> usize {
        (0..100_000).take_while(|_| budget.take(now, bytes)).count()
    }

    #[test]
    fn a_burst_is_let_in_and_then_so_many_lines_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(taken(&mut budget, start, 80), 10_000);
        let later = start + Duration::from_millis(500);
        assert_eq!(taken(&mut budget, later, 80), 500);
        let much_later = start + Duration::from_hours(1);
        assert_eq!(taken(&mut budget, much_later, 80), 10_000);
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(taken(&mut budget, start, 8192), 1024);
        let later = start + Duration::from_secs(1);
        assert_eq!(taken(&mut budget, later, 8192), 256);
    }

    #[test]
    fn a_dyno_whose_lines_are_dropped_waits_but_not_long() {
        assert_eq!(pause(1), Duration::from_millis(5));
        assert_eq!(pause(4000), Duration::from_millis(20));
        assert_eq!(pause(1 << 40), Duration::from_millis(100));
    }
}
