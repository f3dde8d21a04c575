//! Networks of dynos that ended, let go of many at once.
//!
//! A namespace's end costs the kernel several grace periods and, with its link, a walk over the
//! host's table of tracked connections; for a batch it pays most of that once. Measured: 9 ms of
//! processor time each alone, 4 ms in batches of 32, which hold the kernel's network lock for up to
//! 30 ms. Nothing runs in such a namespace any more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::DynoNetwork;

/// So many go at once; no more ever wait.
const BATCH: usize = 32;

/// They go when no dyno has ended for so long...
const QUIET: Duration = Duration::from_millis(50);

/// ...or the first has waited for so long.
const LONGEST: Duration = Duration::from_secs(1);

/// What waits to be let go of. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    waiting: Arc<Mutex<Vec<DynoNetwork>>>,
    news: Arc<Notify>,
}

impl Ended {
    /// Takes the network of a dyno of which no task is left.
    pub(super) fn push(&self, network: DynoNetwork) {
        let full = {
            let mut waiting = self.lock();
            waiting.push(network);
            (waiting.len() >= BATCH).then(|| std::mem::take(&mut *waiting))
        };
        match full {
            Some(networks) => drop(networks),
            None => self.news.notify_one(),
        }
    }

    /// Lets go of all of them now.
    pub(super) fn flush(&self) {
        let networks = std::mem::take(&mut *self.lock());
        drop(networks);
    }

    /// Lets go of them in quiet times, and of all at the end.
    pub(super) async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.news.notified() => {}
                () = stop.cancelled() => break,
            }
            let last = Instant::now() + LONGEST;
            loop {
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(QUIET) => break,
                    () = tokio::time::sleep_until(last) => break,
                    () = stop.cancelled() => break,
                }
            }
            self.flush();
        }
        self.flush();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<DynoNetwork>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Block;

    fn networks(block: &Block, count: usize) -> Vec<DynoNetwork> {
        let netns = std::fs::File::open("/proc/self/ns/net").expect("a namespace");
        let netns: Arc<std::os::fd::OwnedFd> = Arc::new(netns.into());
        let one = || DynoNetwork {
            netns: Arc::clone(&netns),
            slot: block.slot().expect("a slot"),
        };
        std::iter::repeat_with(one).take(count).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn they_wait_for_a_full_batch_a_quiet_time_or_the_end() {
        let block = Block::claim().expect("a block");
        let (ended, stop) = (Ended::default(), CancellationToken::new());
        let run = tokio::spawn(ended.clone().run(stop.clone()));
        let gone = || block.used().len();

        let mut all = networks(&block, BATCH + 3).into_iter();
        all.by_ref().take(BATCH - 1).for_each(|one| ended.push(one));
        assert_eq!(gone(), 0);
        ended.push(all.next().expect("one more"));
        assert_eq!(gone(), BATCH, "a full batch");

        ended.push(all.next().expect("one more"));
        tokio::time::sleep(QUIET / 2).await;
        assert_eq!(gone(), BATCH);
        tokio::time::sleep(QUIET).await;
        assert_eq!(gone(), BATCH + 1, "a quiet time");

        ended.push(all.next().expect("one more"));
        ended.flush();
        assert_eq!(gone(), BATCH + 2, "when they are needed");

        ended.push(all.next().expect("the last"));
        stop.cancel();
        run.await.expect("no panic");
        assert_eq!(gone(), BATCH + 3, "the end");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_quiet_time_the_first_waits_a_second() {
        let block = Block::claim().expect("a block");
        let (ended, stop) = (Ended::default(), CancellationToken::new());
        let run = tokio::spawn(ended.clone().run(stop.clone()));
        // Shorter than a quiet time, and too long for a full batch in a second.
        let pace = QUIET * 4 / 5;
        let start = Instant::now();
        for network in networks(&block, BATCH - 1) {
            ended.push(network);
            tokio::time::sleep(pace).await;
            if !block.used().is_empty() {
                break;
            }
        }
        let took = start.elapsed();
        assert!((LONGEST..=LONGEST + 2 * pace).contains(&took), "{took:?}");
        stop.cancel();
        run.await.expect("no panic");
    }
}
