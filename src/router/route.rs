//! From a request to a connected dyno: a seat, a connection, another seat if it is refused.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::affinity::Mark;
use super::failure::Failure;
use super::head::{Framing, Request};
use super::listener::Shared;
use super::queue::{Entered, Queue, Seat};
use super::relay::CONTINUE;
use super::table::DynoRoute;
use super::upstream::{self, Upstream};
use super::wire::{Source as _, Wire};

/// Connect attempts per request. Source: Dev Center, "HTTP Routing".
const ATTEMPTS: usize = 10;

/// How long the news of a dyno's end may take to get here.
const NEWS: Duration = Duration::from_millis(50);

/// What a client may send while it waits; past it nothing is read, and its end is not noticed.
const AHEAD: usize = 64 * 1024;

/// The client of a request that has no dyno yet.
pub(super) struct Client<'a, S> {
    pub(super) stream: &'a mut S,
    /// What it sent behind the head.
    pub(super) buffer: &'a mut BytesMut,
    pub(super) request: &'a Request,
}

impl<S: Wire> Client<'_, S> {
    /// Resolves when it is gone.
    async fn gone(&mut self) {
        while self.buffer.len() < AHEAD {
            match self.stream.read_buf(self.buffer).await {
                Ok(1..) => {}
                Ok(0) => return self.ended().await,
                Err(_) => return,
            }
        }
        std::future::pending::<()>().await;
    }

    /// It sends no more: it is asked whether it is still there. A client of HTTP/1.0 must not be
    /// told that, and stays. Source: RFC 9110 section 15.2.
    async fn ended(&mut self) {
        if let Framing::Length(length) = self.request.framing
            && (self.buffer.len() as u64) < length
        {
            // The rest of its body will never come.
            return;
        }
        if !self.request.is_old {
            match self.stream.write(CONTINUE).await {
                Ok(count) if count == CONTINUE.len() => {}
                _ => return,
            }
        }
        self.stream.split().0.torn().await;
    }
}

/// A dyno and a connection to it.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) seat: Seat,
    pub(super) upstream: Upstream,
    pub(super) took: Duration,
}

/// Why there is none, and the dyno and times of the last try.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) failure: Failure,
    pub(super) dyno: Option<Arc<str>>,
    pub(super) took: Option<Duration>,
    pub(super) waited: Option<Duration>,
}

/// Finds a dyno of the app and connects. `since`: now; `only_fresh`: no connection of the pool;
/// `mark`: the dyno that the request belongs to.
///
/// # Errors
/// The H code that says why not.
pub(super) async fn connect(
    shared: &Shared,
    queue: &Arc<Queue>,
    mut client: Client<'_, impl Wire>,
    since: tokio::time::Instant,
    only_fresh: bool,
    mark: Option<Mark>,
) -> Result<Connected, NotConnected> {
    let mut last: Option<NotConnected> = None;
    let mut attempts = 0;
    loop {
        let entered = queue.enter(since, last.is_some(), mark);
        let mut now = match last {
            None => since,
            Some(_) => tokio::time::Instant::now(),
        };
        let seat = match entered {
            Ok(Entered::Seat(seat)) => seat,
            // Boxed, as all that is rare: most requests carry no room for it.
            waits => {
                let seat = Box::pin(seat(shared, waits, &mut client, since)).await?;
                now = tokio::time::Instant::now();
                seat
            }
        };
        if !only_fresh && let Some(upstream) = seat.dyno.pool.reuse(now) {
            return Ok(Connected {
                seat,
                upstream,
                took: Duration::ZERO,
            });
        }
        if only_fresh {
            seat.dyno.pool.make_way();
        }
        let started = Instant::now();
        let connecting = upstream::connect(&seat.dyno, shared.timings.connect_timeout);
        match Box::pin(connecting).await {
            Ok(upstream) => {
                return Ok(Connected {
                    seat,
                    upstream,
                    took: started.elapsed(),
                });
            }
            Err(error) => {
                attempts += 1;
                last = Some(not_connected(&seat, &error, started.elapsed()));
                if is_ours(&error) {
                    return Err(NotConnected {
                        failure: Failure::PLATFORM,
                        ..not_connected(&seat, &error, started.elapsed())
                    });
                }
                if Box::pin(is_still_current(shared, queue, &seat.dyno)).await {
                    seat.dyno.quarantine();
                } else {
                    // It was stopped meanwhile: no fault of anybody's.
                    attempts = 0;
                }
            }
        }
        if attempts >= ATTEMPTS.min(queue.dyno_count())
            && let Some(last) = last.take_if(|_| attempts > 0)
        {
            return Err(last);
        }
    }
}

/// A seat, now or in time, unless the client leaves the line.
async fn seat(
    shared: &Shared,
    entered: Result<Entered, Failure>,
    client: &mut Client<'_, impl Wire>,
    since: tokio::time::Instant,
) -> Result<Seat, NotConnected> {
    let refused = |failure, waited| NotConnected {
        failure,
        dyno: None,
        took: None,
        waited,
    };
    match entered.map_err(|failure| refused(failure, None))? {
        Entered::Seat(seat) => Ok(seat),
        Entered::Waiting(waiting) => {
            let seated = tokio::select! {
                biased;
                seated = waiting.end(shared.timings) => seated,
                () = client.gone() => Err(Failure::CLIENT_GONE),
            };
            seated.map_err(|failure| refused(failure, Some(since.elapsed())))
        }
    }
}

/// True if the host is out of something: no dyno's fault, and none is spared for it.
fn is_ours(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let lacking = [EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL];
    error
        .raw_os_error()
        .is_some_and(|errno| lacking.contains(&errno))
}

fn not_connected(seat: &Seat, error: &io::Error, took: Duration) -> NotConnected {
    let failure = if error.kind() == io::ErrorKind::TimedOut {
        Failure::CONNECT_TIMEOUT
    } else {
        Failure::REFUSED
    };
    NotConnected {
        failure,
        dyno: Some(Arc::clone(&seat.dyno.name)),
        took: Some(took),
        waited: Some(seat.waited),
    }
}

/// A dyno that refuses may be one that just ended: the news of that is on its way.
async fn is_still_current(shared: &Shared, queue: &Queue, dyno: &DynoRoute) -> bool {
    let deadline = tokio::time::Instant::now() + NEWS;
    loop {
        let news = shared.news.notified();
        if !queue.has(dyno) {
            return false;
        }
        if tokio::time::timeout_at(deadline, news).await.is_err() {
            return true;
        }
    }
}
