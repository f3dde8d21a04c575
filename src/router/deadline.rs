//! One timer per connection that is almost never moved.
//!
//! Arming a timer for every request would cost more than parsing it. So the timer goes off at the
//! earliest time that was ever asked for; only then it is looked at what is asked for now.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer whose time moves at no cost as long as it moves away.
#[derive(Debug)]
pub(super) struct Deadline {
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(super) fn new(due: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(due)),
        }
    }

    /// Ready at `due`; a later call may ask for another time.
    pub(super) fn poll(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// Waits for `due`.
    pub(super) async fn wait(&mut self, due: Instant) {
        std::future::poll_fn(|context| self.poll(due, context)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_time_asked_for_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadline = Deadline::new(at(60));
        let mut poll = async |seconds| {
            std::future::poll_fn(|context| Poll::Ready(deadline.poll(at(seconds), context))).await
        };
        assert!(poll(30).await.is_pending());
        assert!(poll(60).await.is_pending());
        // The timer goes off at 30, and that is too early.
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(poll(60).await.is_pending());
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(poll(60).await.is_ready());
        deadline.wait(at(70)).await;
        assert_eq!(start.elapsed().as_secs(), 70);
    }
}
