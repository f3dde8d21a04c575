//! Times as the `heroku` CLI shows them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The clock and the place of the reader, passed in.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    pub(super) now: Timestamp,
    pub(super) zone: TimeZone,
}

impl Clock {
    /// Now, here.
    pub(super) fn here() -> Self {
        Self {
            now: Timestamp::now(),
            zone: TimeZone::system(),
        }
    }

    /// `2026/01/01 10:00:00 +0000 (~ 1h ago)`.
    pub(super) fn since(&self, time: Timestamp) -> String {
        let shown = time
            .to_zoned(self.zone.clone())
            .strftime("%Y/%m/%d %H:%M:%S %z")
            .to_string();
        match self.ago(time) {
            Some(ago) => format!("{shown} ({ago})"),
            None => shown,
        }
    }

    /// `~ 12s ago`, `~ 5m ago`, `~ 3h ago`; nothing from 25 h on. A time to come counts as now.
    fn ago(&self, time: Timestamp) -> Option<String> {
        let seconds = self.now.duration_since(time).as_secs().max(0);
        match seconds {
            0..60 => Some(format!("~ {seconds}s ago")),
            60..3600 => Some(format!("~ {}m ago", seconds / 60)),
            3600..90_000 => Some(format!("~ {}h ago", seconds / 3600)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    #[test]
    fn a_time_is_told_with_how_long_ago_up_to_a_day() {
        let clock = Clock {
            now: at("2026-01-02T12:00:00Z"),
            zone: TimeZone::UTC,
        };
        let check = |time: &str, expected: &str| assert_eq!(clock.since(at(time)), expected);
        check(
            "2026-01-02T12:00:00Z",
            "2026/01/02 12:00:00 +0000 (~ 0s ago)",
        );
        check(
            "2026-01-02T12:00:05Z",
            "2026/01/02 12:00:05 +0000 (~ 0s ago)",
        );
        check(
            "2026-01-02T11:59:01Z",
            "2026/01/02 11:59:01 +0000 (~ 59s ago)",
        );
        check(
            "2026-01-02T11:59:00Z",
            "2026/01/02 11:59:00 +0000 (~ 1m ago)",
        );
        check(
            "2026-01-02T11:00:01Z",
            "2026/01/02 11:00:01 +0000 (~ 59m ago)",
        );
        check(
            "2026-01-02T11:00:00Z",
            "2026/01/02 11:00:00 +0000 (~ 1h ago)",
        );
        check(
            "2026-01-01T11:00:01Z",
            "2026/01/01 11:00:01 +0000 (~ 24h ago)",
        );
        check("2026-01-01T11:00:00Z", "2026/01/01 11:00:00 +0000");
    }

    #[test]
    fn times_are_shown_where_the_reader_is() {
        let clock = Clock {
            now: at("2026-02-01T12:00:00Z"),
            zone: TimeZone::fixed(jiff::tz::offset(2)),
        };
        let shown = clock.since(at("2013-07-11T15:16:20Z"));
        assert_eq!(shown, "2013/07/11 17:16:20 +0200");
    }
}
