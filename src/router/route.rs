//! From a request to a connected dyno: a seat, a connection, another seat if it is refused.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

use super::affinity::Mark;
use super::failure::Failure;
use super::hail::{Ahead, Question};
use super::head::{Framing, Request};
use super::queue::{Entered, Queue, Seat};
use super::table::DynoRoute;
use super::upstream::{self, Upstream};
use super::wire::Wire;
use crate::settings::Timings;

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
    pub(super) ahead: &'a Ahead,
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

    /// It sends no more: it is asked at once whether it is still there.
    async fn ended(&mut self) {
        if let Framing::Length(length) = self.request.framing
            && (self.buffer.len() as u64) < length
        {
            // The rest of its body will never come.
            return;
        }
        let (mut reader, _) = self.stream.split();
        let word = || Question::Word;
        self.ahead.gone(&mut reader, Duration::ZERO, word).await;
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

/// Finds a dyno of the app and connects. `news`: told after every new table; `since`: now;
/// `only_fresh`: no connection of the pool; `mark`: the dyno that the request belongs to.
///
/// Ten dynos, or all if there are fewer, are tried (H19, H21). A request that had to wait because
/// every dyno was in quarantine tries on instead, up to the hold limit (H99). Source: Dev Center,
/// "HTTP Routing", dyno connection behaviour.
///
/// # Errors
/// The H code that says why not.
pub(super) async fn connect(
    timings: Timings,
    news: &Notify,
    queue: &Arc<Queue>,
    mut client: Client<'_, impl Wire>,
    since: tokio::time::Instant,
    only_fresh: bool,
    mark: Option<Mark>,
) -> Result<Connected, NotConnected> {
    let mut last: Option<NotConnected> = None;
    let mut attempts = 0;
    let mut has_met_none = false;
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
                has_met_none |= queue.is_shut();
                let seat = Box::pin(seat(timings, waits, &mut client, since)).await?;
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
        let connecting = upstream::connect(&seat.dyno, timings.connect_timeout);
        match Box::pin(connecting).await {
            Ok(upstream) => {
                seat.dyno.accepted();
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
                if Box::pin(is_still_current(news, queue, &seat.dyno)).await {
                    let is_deaf = error.kind() == io::ErrorKind::TimedOut;
                    seat.dyno.quarantine(is_deaf);
                } else {
                    // It was stopped meanwhile: no fault of anybody's.
                    attempts = 0;
                }
            }
        }
        if !has_met_none
            && attempts >= ATTEMPTS.min(queue.dyno_count())
            && let Some(last) = last.take_if(|_| attempts > 0)
        {
            return Err(last);
        }
    }
}

/// A seat, now or in time, unless the client leaves the line.
async fn seat(
    timings: Timings,
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
                seated = waiting.end(timings) => seated,
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
async fn is_still_current(news: &Notify, queue: &Queue, dyno: &DynoRoute) -> bool {
    let deadline = tokio::time::Instant::now() + NEWS;
    loop {
        let told = news.notified();
        if !queue.has(dyno) {
            return false;
        }
        if tokio::time::timeout_at(deadline, told).await.is_err() {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use bytes::Bytes;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    use super::*;
    use crate::model::{DynoId, RoutingPolicy};
    use crate::router::head;
    use crate::router::policy::{Health, Rule};
    use crate::router::queue::State;
    use crate::router::table::Mode;
    use crate::supervisor::Backend;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// A port that is taken, and where nobody listens yet.
    fn deaf() -> (TcpSocket, u16) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(any()).expect("a port");
        let port = socket.local_addr().expect("an address").port();
        (socket, port)
    }

    fn dynos(count: usize, port: u16) -> (Vec<Arc<DynoRoute>>, Arc<Queue>) {
        let dyno = |n: usize| {
            let (backend, traffic) = (Backend::default(), Arc::default());
            let name = format!("web.{n}");
            Arc::new(DynoRoute::new(DynoId::new(), name, port, backend, traffic))
        };
        let dynos: Vec<_> = (1..=count).map(dyno).collect();
        let state = State {
            mode: Mode::Ready,
            rule: Rule {
                policy: RoutingPolicy::LeastInFlight,
                limit: None,
            },
            dynos: dynos.clone(),
            dyno_count: count,
        };
        (dynos, Arc::new(Queue::new(state, Arc::default())))
    }

    /// What becomes of a request that comes now.
    async fn ask(queue: &Arc<Queue>) -> Result<Connected, Failure> {
        let listener = TcpListener::bind(any()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("connected");
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let head = Bytes::from_static(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n");
        let line = Client {
            stream: &mut stream,
            buffer: &mut BytesMut::new(),
            request: &head::request(&head).expect("a request"),
            ahead: &Ahead::default(),
        };
        let (timings, news) = (Timings::default(), Notify::new());
        let now = tokio::time::Instant::now();
        let connected = connect(timings, &news, queue, line, now, true, None).await;
        drop(client);
        connected.map_err(|not| not.failure)
    }

    /// So many dynos that refuse: what a request is told, and how many of them it was sent to.
    async fn refused(count: usize) -> (Failure, usize) {
        let (_socket, port) = deaf();
        let (dynos, queue) = dynos(count, port);
        let failure = ask(&queue).await.expect_err("nobody listens");
        let asked = |dyno: &&Arc<DynoRoute>| dyno.load().health == Health::Closed;
        let asked = dynos.iter().filter(asked).count();
        (failure, asked)
    }

    #[tokio::test]
    async fn ten_dynos_are_tried_or_all_if_there_are_fewer() {
        assert_eq!(refused(12).await, (Failure::REFUSED, 10));
        assert_eq!(refused(3).await, (Failure::REFUSED, 3));
        assert_eq!(refused(1).await, (Failure::REFUSED, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_finds_all_in_quarantine_tries_on_for_75_seconds() {
        let (_socket, port) = deaf();
        let (_dynos, queue) = dynos(1, port);
        let ask = async || {
            let start = tokio::time::Instant::now();
            let failure = ask(&queue).await.expect_err("nobody listens");
            (failure, start.elapsed().as_secs())
        };
        // One that still finds a dyno to try is told at once.
        assert_eq!(ask().await, (Failure::REFUSED, 0));
        assert_eq!(ask().await, (Failure::PLATFORM, 75));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dyno_that_listens_again_gets_what_waited_for_it() {
        let (socket, port) = deaf();
        let (dynos, queue) = dynos(1, port);
        assert_eq!(ask(&queue).await.err(), Some(Failure::REFUSED));
        let again = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            socket.listen(1).expect("it listens")
        };
        let start = tokio::time::Instant::now();
        let (listener, connected) = tokio::join!(again, ask(&queue));
        assert_eq!(connected.expect("it is back").seat.dyno.id, dynos[0].id);
        // Quarantine ends after 5 s at the latest.
        let took = start.elapsed().as_secs();
        assert!((20..=25).contains(&took), "{took} s");
        drop(listener);
    }
}
