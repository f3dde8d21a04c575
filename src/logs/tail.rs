//! A follower of one app's lines.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::{Filter, Line};

/// Lines a follower may be behind; newer ones are dropped and counted (L11).
pub(super) const QUEUE: usize = 4096;

/// A follower: the history first, then every new line, until dropped.
#[derive(Debug)]
pub struct Tail {
    pub(super) queue: Arc<Queue>,
}

/// Shared between the hub and one [`Tail`].
#[derive(Debug)]
pub(super) struct Queue {
    filter: Filter,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<Line>>,
    /// How many were dropped since when.
    dropped: Option<(u64, Timestamp)>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(filter: Filter, history: Vec<Arc<Line>>) -> Self {
        let state = State {
            lines: history.into(),
            ..State::default()
        };
        Self {
            filter,
            state: Mutex::new(state),
            news: Notify::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, line: &Arc<Line>) {
        if !self.filter.matches(line) {
            return;
        }
        let mut state = self.lock();
        if state.lines.len() < QUEUE {
            // What was dropped before is told before what came after.
            if let Some(dropped) = state.dropped.take() {
                state.lines.push_back(Arc::new(overflow(dropped)));
            }
            state.lines.push_back(Arc::clone(line));
        } else {
            let (count, since) = state.dropped.unwrap_or((0, line.time));
            state.dropped = Some((count + 1, since));
        }
        drop(state);
        self.news.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.news.notify_one();
    }
}

fn overflow((count, since): (u64, Timestamp)) -> Line {
    let since = since.strftime("%Y-%m-%dT%H:%M:%S+00:00");
    Line::platform(
        "logplex",
        format!(
            "Error L11 (Tail buffer overflow) -> This tail session dropped {count} messages since {since}."
        ),
    )
}

impl Tail {
    /// The next line; `None` when the app was forgotten. Cancel-safe.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            {
                let mut state = self.queue.lock();
                if let Some(line) = state.lines.pop_front() {
                    return Some(Arc::unwrap_or_clone(line));
                }
                if let Some(dropped) = state.dropped.take() {
                    return Some(overflow(dropped));
                }
                if state.is_closed {
                    return None;
                }
            }
            self.queue.news.notified().await;
        }
    }
}
