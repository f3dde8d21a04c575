//! A client from which nothing comes: has it left, or does it wait?
//!
//! Both look the same until something is said to it: then the kernel of one that has left answers
//! with a reset. Every answer of ours begins with the same bytes, so these are said ahead of it, one
//! for each question, and left out of it when it comes. Source: RFC 9293 section 3.6.1.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::wire::Source;

/// What every answer begins with.
const WORDS: &[u8] = b"HTTP/1.1 ";

/// Most answers come before a client is asked.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Where nobody reads what a client sends, its end may not get here: it is asked after so many
/// times that, as one that has ended is.
const LOOKS: usize = 5;

/// How much of the next answer its client has already.
#[derive(Debug, Default)]
pub(super) struct Ahead(Cell<usize>);

impl Ahead {
    /// The same, once: whoever asks leaves it out.
    pub(super) fn take(&self) -> usize {
        self.0.take()
    }

    /// Behind the end of what the client sends: resolves when it is gone. It is asked after so long,
    /// and again ever more seldom, whenever nothing of an answer is on its way to it.
    pub(super) async fn gone(
        &self,
        client: &mut impl Source,
        patience: Duration,
        may_ask: impl Fn() -> bool,
    ) {
        let mut pause = patience;
        while timeout(pause, client.torn()).await.is_err() {
            let said = self.0.get();
            if may_ask() && said < WORDS.len() {
                match client.hail(&WORDS[said..=said]).await {
                    Ok(count) => self.0.set(said + count),
                    Err(_) => return,
                }
            }
            pause = PATIENCE.max(pause * 2);
        }
    }

    /// The same where nobody reads what the client sends, so that its end must be looked for.
    pub(super) async fn left(&self, client: &mut impl Source, may_ask: impl Fn() -> bool) {
        for _ in 0..LOOKS {
            sleep(PATIENCE).await;
            if client.has_ended() {
                break;
            }
        }
        self.gone(client, Duration::ZERO, may_ask).await;
    }
}
