//! Requests in flight of one dyno, exactly, and the end of taking any.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Set once no request may come any more.
const CLOSED: u64 = 1 << 63;

/// Count and end in one word: whoever entered is counted, and nobody enters after the end. So a
/// closed gate with nobody inside stays empty, which is what a stop without a lost request needs.
#[derive(Debug, Default)]
pub struct Gate {
    state: AtomicU64,
    emptied: Notify,
}

impl Gate {
    /// Counts a request in; false: the gate is closed, and it is not.
    pub fn enter(&self) -> bool {
        // SeqCst: see `router::queue`, whose leave looks for waiting requests after this count.
        let before = self.state.fetch_add(1, Ordering::SeqCst);
        if before & CLOSED == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Counts a request out.
    pub fn leave(&self) {
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        debug_assert_ne!(before & !CLOSED, 0, "more left than entered");
        if before == CLOSED | 1 {
            self.emptied.notify_waiters();
        }
    }

    /// From now on nobody enters.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// True after [`Gate::close`].
    pub fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Requests inside.
    pub fn in_flight(&self) -> u32 {
        let count = self.state.load(Ordering::SeqCst) & !CLOSED;
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Resolves when the gate is closed and nobody is inside.
    pub async fn emptied(&self) {
        loop {
            // Before the look, so that no news is missed between look and wait.
            let news = self.emptied.notified();
            if self.state.load(Ordering::SeqCst) == CLOSED {
                return;
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nobody_enters_a_closed_gate_and_the_last_one_out_is_told() {
        let gate = Arc::new(Gate::default());
        assert!(gate.enter() && gate.enter());
        gate.close();
        assert!(!gate.enter());
        assert_eq!(gate.in_flight(), 2);
        let waiter = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.emptied().await }
        });
        gate.leave();
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        gate.leave();
        let told = tokio::time::timeout(Duration::from_secs(10), waiter).await;
        told.expect("in time").expect("no panic");
    }

    #[test]
    fn threads_that_race_with_the_end_are_either_counted_or_refused() {
        for _ in 0..200 {
            let gate = Gate::default();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while gate.enter() {
                            gate.leave();
                        }
                    });
                }
                gate.close();
            });
            assert_eq!(gate.in_flight(), 0);
        }
    }
}
