//! A client from which nothing comes: has it left, or does it wait?
//!
//! Both look the same until something is said to it: then the kernel of one that has left answers
//! with a reset. Every answer of ours begins with the same bytes, so these are said ahead of it, one
//! for each question, and left out of it when it comes. Source: RFC 9293 section 3.6.1.
//!
//! Inside of an answer whatever is written to the client is such a question. When its dyno is
//! silent, one in chunks has room for more: zeros in front of the next size mean nothing. An answer
//! without chunks has none. Its client is gone when nothing was to be said to it for a second after
//! its end: who wants to read on ends before the answer begins, and has the answer's head as its
//! question.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::wire::Source;

/// What every answer begins with.
const WORDS: &[u8] = b"HTTP/1.1 ";

/// Most answers come before a client is asked.
pub(super) const PATIENCE: Duration = Duration::from_millis(150);

/// Least pause between two questions: there are nine words for all of a request's waits.
const PAUSE: Duration = Duration::from_secs(1);

/// Where nobody reads what a client sends, its end may not get here: it is asked after so many
/// looks, as one that has ended is.
const LOOKS: usize = 5;

/// What may be said to a client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The beginning of an answer.
    Word,
    /// A zero in front of a chunk's size. Source: RFC 9112 section 7.1.
    Zero,
    /// Nothing: something else is on its way to it, or has been since it ended.
    Later,
    /// Nothing, and nothing has been said to it since it ended.
    Never,
}

/// How much of the next answer its client has already.
#[derive(Debug, Default)]
pub(super) struct Ahead(Cell<usize>);

impl Ahead {
    /// The same, once: whoever asks leaves it out.
    pub(super) fn take(&self) -> usize {
        self.0.take()
    }

    /// Behind the end of what the client sends: resolves when it is gone. It is asked after so long,
    /// and again ever more seldom, what `question` says then.
    pub(super) async fn gone(
        &self,
        client: &mut impl Source,
        patience: Duration,
        question: impl Fn() -> Question,
    ) {
        let mut pause = patience;
        while timeout(pause, client.torn()).await.is_err() {
            let said = self.0.get();
            let question = question();
            let words = match question {
                Question::Word => WORDS.get(said..=said).unwrap_or_default(),
                Question::Zero => b"0",
                Question::Never if pause >= PAUSE && !client.tells_of_leaving() => return,
                Question::Later | Question::Never => b"",
            };
            if !words.is_empty() {
                match client.hail(words).await {
                    Ok(count) if question == Question::Word => self.0.set(said + count),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
            pause = PAUSE.max(pause * 2);
        }
    }

    /// The same where nobody reads what the client sends, so that its end must be looked for.
    pub(super) async fn left(&self, client: &mut impl Source, question: impl Fn() -> Question) {
        let mut pause = PATIENCE;
        for _ in 0..LOOKS {
            sleep(pause).await;
            if client.has_ended() {
                break;
            }
            pause *= 2;
        }
        self.gone(client, Duration::ZERO, question).await;
    }
}
