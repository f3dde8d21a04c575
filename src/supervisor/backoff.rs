//! How long a crashed dyno waits.

use std::time::Duration;

/// A dyno that lived longer did not crash at boot: it restarts at once and starts the count over.
/// Source: Dev Center, "Dynos", crash restart policy.
const BOOT_WINDOW: Duration = Duration::from_mins(10);

/// First wait that is not zero; doubles from there.
const FIRST: Duration = Duration::from_mins(10);

/// Longest wait.
const LONGEST: Duration = Duration::from_hours(24);

/// Boot crashes in a row of one place in the formation. A new release or a restart by hand makes
/// a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    crashes: u32,
}

impl Backoff {
    /// Counts a crash; returns the wait before the next attempt.
    ///
    /// The contract leaves the wait before the second attempt open; we take none, so that two bad
    /// starts in a row (a database that restarts) cost no ten minutes.
    pub(super) fn crashed(&mut self, lived: Duration) -> Duration {
        if lived > BOOT_WINDOW {
            *self = Self::default();
            return Duration::ZERO;
        }
        self.crashes = self.crashes.saturating_add(1);
        match self.crashes {
            0..=2 => Duration::ZERO,
            attempt => FIRST
                .saturating_mul(1 << (attempt - 3).min(16))
                .min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_longest_and_a_long_life_ends_them(
            lives in proptest::collection::vec(0_u64..1200, 1..60),
        ) {
            let mut backoff = Backoff::default();
            let mut last = Duration::ZERO;
            let mut in_a_row = 0;
            for lived in lives.into_iter().map(Duration::from_secs) {
                let wait = backoff.crashed(lived);
                if lived > BOOT_WINDOW {
                    prop_assert_eq!(wait, Duration::ZERO);
                    in_a_row = 0;
                } else {
                    in_a_row += 1;
                    prop_assert_eq!(wait > Duration::ZERO, in_a_row > 2);
                    prop_assert!(in_a_row == 1 || wait >= last);
                }
                prop_assert!(wait <= LONGEST);
                last = wait;
            }
        }
    }

    #[test]
    fn the_waits_are_those_of_the_table() {
        let mut backoff = Backoff::default();
        let minutes: Vec<u64> = (0..13)
            .map(|_| backoff.crashed(Duration::from_secs(1)).as_secs() / 60)
            .collect();
        let expected = [0, 0, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440, 1440];
        assert_eq!(minutes, expected);
    }

    #[test]
    fn a_dyno_that_lived_starts_the_count_over() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.crashed(Duration::ZERO);
        }
        assert_eq!(
            backoff.crashed(BOOT_WINDOW + Duration::from_secs(1)),
            Duration::ZERO
        );
        assert_eq!(backoff.crashed(Duration::ZERO), Duration::ZERO);
        assert_eq!(backoff.crashed(Duration::ZERO), Duration::ZERO);
        assert_eq!(backoff.crashed(Duration::ZERO), FIRST);
    }
}
