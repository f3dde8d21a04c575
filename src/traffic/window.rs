//! The last minute of an app, beside its sums since the start.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::counters::{Counters, Report};

/// An average queue time past this, over a minute, is told to the app's owner.
pub const QUEUE_WARNING: Duration = Duration::from_millis(40);

/// How far back "recent" goes.
const WINDOW: Duration = Duration::from_mins(1);

/// Between two kept states: the window is at most this much longer than it says.
const STEP: Duration = Duration::from_secs(5);

/// One app's counters, the depth of its queue, and its recent past.
#[derive(Debug, Default)]
pub struct AppTraffic {
    /// Requests that ended.
    pub counters: Counters,
    /// Requests that wait for a dyno now.
    pub waiting: AtomicUsize,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    states: VecDeque<(Instant, Report)>,
    warned: Option<Instant>,
}

impl AppTraffic {
    /// Requests that wait for a dyno now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Keeps the state now, if it is time; to be called about once a second. Returns the last
    /// minute when its average queue time is worth a line, at most once a minute.
    pub fn tick(&self, now: Instant) -> Option<Report> {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = past
            .states
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) >= STEP);
        if !is_due {
            return None;
        }
        let report = self.counters.report();
        // The oldest kept state is the youngest one that is a window old.
        while past
            .states
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            past.states.pop_front();
        }
        let whole = past
            .states
            .front()
            .filter(|(at, _)| now.duration_since(*at) >= WINDOW)
            .map(|(_, earlier)| report.since(earlier));
        past.states.push_back((now, report));
        let recent = whole.filter(|recent| recent.queue.mean() > QUEUE_WARNING)?;
        if past
            .warned
            .is_some_and(|at| now.duration_since(at) < WINDOW)
        {
            return None;
        }
        past.warned = Some(now);
        Some(recent)
    }

    /// What ended in the last minute (or since the start, if that is later), and how long that
    /// really is.
    pub fn recent(&self, now: Instant) -> (Report, Duration) {
        let report = self.counters.report();
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let from = past
            .states
            .iter()
            .rev()
            .find(|(at, _)| now.duration_since(*at) >= WINDOW)
            .or_else(|| past.states.front());
        match from {
            Some((at, earlier)) => (report.since(earlier), now.duration_since(*at)),
            None => (report, Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;

    fn request(queue_ms: u64) -> Sample {
        Sample {
            status: 200,
            queue: Some(Duration::from_millis(queue_ms)),
            ..Sample::default()
        }
    }

    #[test]
    fn a_minute_of_long_queues_is_told_once_a_minute() {
        let traffic = AppTraffic::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for second in 0..200 {
            traffic
                .counters
                .add(&request(if second < 100 { 90 } else { 0 }));
            if let Some(recent) = traffic.tick(start + Duration::from_secs(second)) {
                assert!(recent.queue.mean() > QUEUE_WARNING);
                told.push(second);
            }
        }
        // At 60 s the first minute is over; at 120 s the average of the last one is still 60 ms.
        assert_eq!(told, [60, 120]);
    }

    #[test]
    fn forty_milliseconds_are_no_long_queue_and_more_are() {
        for (queue_ms, is_told) in [(39, false), (40, false), (41, true)] {
            let traffic = AppTraffic::default();
            let start = Instant::now();
            let tick = |second| {
                traffic.counters.add(&request(queue_ms));
                traffic.tick(start + Duration::from_secs(second))
            };
            let told = (0..=65).filter_map(tick).count();
            assert_eq!(told, usize::from(is_told), "{queue_ms} ms");
        }
    }

    #[test]
    fn recent_forgets_what_is_older_than_a_minute() {
        let traffic = AppTraffic::default();
        let start = Instant::now();
        for second in 0..300 {
            traffic.tick(start + Duration::from_secs(second));
            traffic.counters.add(&request(1));
        }
        let (recent, span) = traffic.recent(start + Duration::from_mins(5));
        assert!((60..=65).contains(&span.as_secs()), "{span:?}");
        assert_eq!(recent.requests(), span.as_secs());
        assert_eq!(traffic.counters.report().requests(), 300);
    }
}
