//! Requests that ended: by class of status, and how long each part took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::histogram::{BUCKETS, Distribution, bucket};

/// Classes of status, by their first digit; the last for none at all.
pub const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// Shards. Each but the last is written by one thread alone.
const SHARDS: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed).min(SHARDS - 1);
}

/// What is known of one request at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Sent to the client; 0 if none was.
    pub status: u16,
    /// H code, if there was one.
    pub code: Option<&'static str>,
    /// Waited for a dyno.
    pub queue: Option<Duration>,
    /// Connecting to it.
    pub connect: Option<Duration>,
    /// From there to the end of the answer.
    pub service: Option<Duration>,
}

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By class, see [`CLASSES`].
    pub classes: [u64; CLASSES.len()],
    /// By H code.
    pub codes: BTreeMap<&'static str, u64>,
    /// Waits for a dyno.
    pub queue: Distribution,
    /// Connects.
    pub connect: Distribution,
    /// Services.
    pub service: Distribution,
}

impl Report {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// What came after `earlier`, a report of the same counters.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut classes = self.classes;
        for (class, then) in classes.iter_mut().zip(earlier.classes) {
            *class = class.saturating_sub(then);
        }
        let codes = self.codes.iter().map(|(code, count)| {
            let then = earlier.codes.get(code).copied().unwrap_or_default();
            (*code, count.saturating_sub(then))
        });
        Self {
            classes,
            codes: codes.filter(|(_, count)| *count > 0).collect(),
            queue: self.queue.since(&earlier.queue),
            connect: self.connect.since(&earlier.connect),
            service: self.service.since(&earlier.service),
        }
    }
}

#[derive(Debug)]
struct Times {
    sum_micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Times {
    fn default() -> Self {
        Self {
            sum_micros: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    classes: [AtomicU64; CLASSES.len()],
    queue: Times,
    connect: Times,
    service: Times,
}

/// Counters of one app or dyno.
#[derive(Debug, Default)]
pub struct Counters {
    shards: [OnceLock<Box<Shard>>; SHARDS],
    /// Failures are rare.
    codes: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// Counts one request.
    pub fn add(&self, sample: &Sample) {
        let index = SHARD.with(|shard| *shard);
        let shard = self.shards[index].get_or_init(Box::default);
        // Alone on a shard, a load and a store cost a tenth of an atomic addition.
        let is_alone = index < SHARDS - 1;
        let add = |counter: &AtomicU64, by: u64| {
            if is_alone {
                let before = counter.load(Ordering::Relaxed);
                counter.store(before.wrapping_add(by), Ordering::Relaxed);
            } else {
                counter.fetch_add(by, Ordering::Relaxed);
            }
        };
        let class = match sample.status {
            100..600 => usize::from(sample.status / 100 - 1),
            _ => CLASSES.len() - 1,
        };
        add(&shard.classes[class], 1);
        for (times, time) in [
            (&shard.queue, sample.queue),
            (&shard.connect, sample.connect),
            (&shard.service, sample.service),
        ] {
            if let Some(time) = time {
                let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX >> 8);
                add(&times.buckets[bucket(micros)], 1);
                add(&times.sum_micros, micros);
            }
        }
        if let Some(code) = sample.code {
            let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
            *codes.entry(code).or_default() += 1;
        }
    }

    /// The sums now.
    pub fn report(&self) -> Report {
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = Report {
            codes: codes.clone(),
            ..Report::default()
        };
        drop(codes);
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            for (sum, class) in report.classes.iter_mut().zip(&shard.classes) {
                *sum += class.load(Ordering::Relaxed);
            }
            gather(&mut report.queue, &shard.queue);
            gather(&mut report.connect, &shard.connect);
            gather(&mut report.service, &shard.service);
        }
        report
    }
}

fn gather(into: &mut Distribution, times: &Times) {
    for (sum, bucket) in into.counts.iter_mut().zip(&times.buckets) {
        let count = bucket.load(Ordering::Relaxed);
        *sum += count;
        into.count += count;
    }
    into.sum += Duration::from_micros(times.sum_micros.load(Ordering::Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_threads_lose_no_request() {
        let counters = Counters::default();
        let sample = Sample {
            status: 200,
            code: None,
            queue: Some(Duration::from_millis(1)),
            connect: None,
            service: Some(Duration::from_millis(20)),
        };
        let failed = Sample {
            status: 503,
            code: Some("H12"),
            ..Sample::default()
        };
        // More threads than shards: some share the last one.
        std::thread::scope(|scope| {
            for _ in 0..SHARDS * 2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counters.add(&sample);
                    }
                    counters.add(&failed);
                });
            }
        });
        let report = counters.report();
        let threads = SHARDS as u64 * 2;
        assert_eq!(report.classes, [0, 1000 * threads, 0, 0, threads, 0]);
        assert_eq!(report.codes["H12"], threads);
        assert_eq!(report.requests(), 1001 * threads);
        assert_eq!(report.queue.count, 1000 * threads);
        assert_eq!(report.connect.count, 0);
        assert_eq!(report.service.mean(), Duration::from_millis(20));
        assert_eq!(counters.report().since(&report), Report::default());
    }
}
