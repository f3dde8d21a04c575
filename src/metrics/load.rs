//! Load averages, as the platform computes them.

use std::time::Duration;

/// Seconds of the three averages.
const PERIODS: [f64; 3] = [60.0, 300.0, 900.0];

/// Averages over 1, 5 and 15 minutes of how many tasks run or want to.
/// Source: Dev Center, "Log Runtime Metrics", "How load is calculated".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load(pub(super) [f64; 3]);

impl Load {
    /// Takes in a count made `since` the last one.
    pub(super) fn push(&mut self, running: u64, since: Duration) {
        let value = f64::from(u32::try_from(running).unwrap_or(u32::MAX));
        for (average, period) in self.0.iter_mut().zip(PERIODS) {
            let e = (-since.as_secs_f64() / period).exp();
            *average = (1.0 - e) * value + e * *average;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_approach_the_count_and_the_short_one_is_first() {
        let mut load = Load::default();
        load.push(2, Duration::from_secs(20));
        let [one, five, fifteen] = load.0;
        assert!((one - 2.0 * (1.0 - (-1.0f64 / 3.0).exp())).abs() < 1e-9);
        assert!(one > five && five > fifteen && fifteen > 0.0);
        for _ in 0..1000 {
            load.push(2, Duration::from_secs(20));
        }
        assert!(load.0.iter().all(|average| (average - 2.0).abs() < 1e-3));
        load.push(0, Duration::from_hours(1));
        assert!(load.0[0] < 1e-9, "an hour of nothing");
    }
}
