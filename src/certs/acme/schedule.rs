//! When to try again, and when to renew. Chance comes in as a number from 0 to 1.

use jiff::{SignedDuration, Timestamp};

/// First pause after a failed attempt; doubles.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(1);

/// Longest pause: ACME servers count failures per hour and day.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(12);

/// When to try again after `attempts` failures in a row (at least one): 1, 2, 4 … minutes, at most
/// half a day, each up to a quarter longer, so that many domains do not come back at once.
pub(super) fn retry(attempts: u32, now: Timestamp, chance: f64) -> Timestamp {
    let doublings = attempts.saturating_sub(1).min(16);
    let pause = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    now + pause + part(pause, 0.25 * chance)
}

/// When to renew a certificate of that life: after two thirds of it, less up to a twentieth.
/// Source: Let's Encrypt, "Integration Guide", "When to Renew".
pub(super) fn renewal(starts: Timestamp, expires: Timestamp, chance: f64) -> Timestamp {
    let life = expires.duration_since(starts);
    starts + part(life, 2.0 / 3.0 - 0.05 * chance)
}

fn part(whole: SignedDuration, share: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(whole.as_secs_f64() * share).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_up_to_half_a_day() {
        let now = Timestamp::UNIX_EPOCH;
        let minutes = |attempts, chance| retry(attempts, now, chance).as_second() / 60;
        assert_eq!(minutes(1, 0.0), 1);
        assert_eq!(minutes(2, 0.0), 2);
        assert_eq!(minutes(5, 0.0), 16);
        assert_eq!(minutes(5, 1.0), 20);
        assert_eq!(minutes(1000, 0.0), 12 * 60);
        assert_eq!(minutes(1000, 1.0), 15 * 60);
    }

    #[test]
    fn renewal_comes_at_two_thirds_of_any_life() {
        let starts: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let day = |days: i64| starts + SignedDuration::from_hours(24 * days);
        assert_eq!(renewal(starts, day(90), 0.0), day(60));
        assert!(renewal(starts, day(90), 1.0) > day(55));
        assert!(renewal(starts, day(6), 0.0) == day(4));
    }
}
