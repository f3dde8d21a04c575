//! Times in buckets that are an eighth of their octave wide.

use std::time::Duration;

/// Sub-buckets per octave, as a power of two: a value is known to within 1/8 of itself.
const BITS: u32 = 3;
const SUB: usize = 1 << BITS;

/// The last octave begins at 2^27 µs (134 s): longer than any request is let wait.
const LAST: u32 = 27;

/// How many there are.
pub(super) const BUCKETS: usize = ((LAST - BITS + 2) as usize) << BITS;

/// The bucket of a time.
pub(super) fn bucket(micros: u64) -> usize {
    if micros < SUB as u64 {
        return usize::try_from(micros).unwrap_or(0);
    }
    let octave = micros.ilog2();
    if octave > LAST {
        return BUCKETS - 1;
    }
    let within = usize::try_from((micros >> (octave - BITS)) & (SUB as u64 - 1)).unwrap_or(0);
    (((octave - BITS) as usize + 1) << BITS) + within
}

/// The first time, in µs, that is past a bucket.
fn end(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next <= SUB {
        return next as u64;
    }
    let (octave, within) = ((next >> BITS) - 1, (next & (SUB - 1)) as u64);
    (SUB as u64 + within) << octave
}

/// Upper bounds of the buckets that Prometheus is told of: whole octaves from 1 ms up.
pub fn bounds() -> impl Iterator<Item = (Duration, usize)> {
    (10..=LAST).map(|octave| {
        let bucket = (((octave - BITS) as usize + 1) << BITS) - 1;
        (Duration::from_micros(1 << octave), bucket)
    })
}

/// Many times, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
    pub(super) counts: Vec<u64>,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            count: 0,
            sum: Duration::ZERO,
            counts: vec![0; BUCKETS],
        }
    }
}

impl Distribution {
    /// The time that `part` (0 to 1) of all do not exceed, as the end of its bucket; zero when
    /// there are none.
    pub fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let rank = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                // The first buckets hold one value each.
                let last = end(bucket) - u64::from(bucket < SUB);
                return Duration::from_micros(last);
            }
        }
        Duration::ZERO
    }

    /// The mean; zero when there are none.
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.count).unwrap_or(u32::MAX);
        self.sum.checked_div(count).unwrap_or_default()
    }

    /// How many are in the buckets up to this one.
    pub fn up_to(&self, bucket: usize) -> u64 {
        self.counts.iter().take(bucket + 1).sum()
    }

    /// What came after `earlier`, a state of the same distribution.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        Self {
            count: self.count.saturating_sub(earlier.count),
            sum: self.sum.saturating_sub(earlier.sum),
            counts: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(times: &[u64]) -> Distribution {
        let mut all = Distribution::default();
        for time in times {
            all.counts[bucket(*time)] += 1;
            all.count += 1;
            all.sum += Duration::from_micros(*time);
        }
        all
    }

    #[test]
    fn quantiles_are_the_ends_of_buckets() {
        let all = of(&(0..1000).map(|n| n * 1000).collect::<Vec<_>>());
        for (part, exact) in [(0.5, 499_000), (0.95, 949_000), (0.99, 989_000)] {
            let got = u64::try_from(all.quantile(part).as_micros()).expect("small");
            assert!(
                got >= exact && got <= exact + exact / 8 + 1,
                "{part}: {got}"
            );
        }
        assert_eq!(all.mean(), Duration::from_micros(499_500));
        assert_eq!(Distribution::default().quantile(0.99), Duration::ZERO);
        assert_eq!(of(&[0, 0, 0]).quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn what_came_later_is_told_apart() {
        let (early, late) = (of(&[5, 10]), of(&[5, 10, 70_000]));
        let new = late.since(&early);
        assert_eq!((new.count, new.sum), (1, Duration::from_millis(70)));
    }

    proptest! {
        #[test]
        fn every_time_lies_in_a_bucket_that_ends_just_behind_it(micros in 0..1u64 << 28) {
            let end = end(bucket(micros));
            prop_assert!(micros < end && end - micros <= micros / 8 + 1, "{micros} {end}");
            for (bound, last) in bounds() {
                let is_below = bucket(micros) <= last;
                prop_assert_eq!(is_below, Duration::from_micros(micros) < bound);
            }
        }
    }
}
