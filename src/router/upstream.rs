//! Connections to dynos: fresh ones, and for each dyno a pool of idle ones.
//!
//! The pool is shared by all router threads, but a connection stays registered with the thread that
//! used it last, and each thread takes its own first: moving one to another thread costs system
//! calls.
//!
//! A server that handles one connection at a time is stuck on an idle one of ours while a request
//! waits on a fresh one. Most servers are not like that, and to close idle connections of theirs
//! makes the next requests open more fresh ones, without end. So it is tried: as many connections
//! as were ever open while a fresh one was answered are no hindrance, and twice as many are let be
//! until a fresh one is left waiting; then idle ones go, and for a while no more are tried.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use tokio::net::TcpStream;

use super::table::{DynoRoute, now_ms};
use crate::network;

/// Idle connections are closed after so long; shorter than what servers usually wait (5 s), so
/// that a request seldom meets a connection that is being closed.
pub(super) const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept per dyno; the oldest goes first.
const IDLE_MAX: usize = 64;

/// A request on a fresh connection waits so long beside idle ones that are on trial, if the server
/// answers nobody meanwhile.
const TRIAL: Duration = Duration::from_millis(50);

/// And so long if it answers others.
const TRIAL_MAX: Duration = Duration::from_millis(500);

/// After a trial that went wrong, the next.
const TRIAL_PAUSE: Duration = Duration::from_mins(1);

/// A connection and whether it served before.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: TcpStream,
    pub(super) is_reused: bool,
}

/// A connection that waits for its next request.
#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    /// The thread whose reactor it is registered with.
    home: ThreadId,
    since: tokio::time::Instant,
}

/// Connections to one dyno: the idle ones, and how many are in use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// In use, and answered on before.
    busy: AtomicUsize,
    /// In use, and never answered on.
    fresh: AtomicUsize,
    /// Answers so far.
    answers: AtomicUsize,
    /// So many others were open while a fresh one was answered.
    proven: AtomicUsize,
    /// No more are tried before, in milliseconds of the table's clock.
    trial_at: AtomicU64,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many may lie idle beside a request on a fresh connection.
    fn most_beside_fresh(&self) -> usize {
        let proven = self.proven.load(Ordering::Relaxed);
        let trial_at = self.trial_at.load(Ordering::Relaxed);
        let most = if trial_at == 0 || now_ms() >= trial_at {
            2 * proven + 1
        } else {
            proven
        };
        most.saturating_sub(self.busy.load(Ordering::Relaxed))
    }

    /// An idle connection that is still good `now`, if there is one.
    pub(super) fn reuse(&self, now: tokio::time::Instant) -> Option<Upstream> {
        let here = std::thread::current().id();
        loop {
            let idle = take(&mut self.idle(), here)?;
            if now.duration_since(idle.since) > IDLE {
                continue;
            }
            let stream = if idle.home == here {
                has_no_news(&idle.stream).then_some(idle.stream)
            } else {
                move_here(idle.stream)
            };
            if let Some(stream) = stream {
                return Some(Upstream {
                    stream,
                    is_reused: true,
                });
            }
        }
    }

    /// Lets go of idle connections that may keep the server from a fresh one.
    pub(super) fn make_way(&self) {
        let most = self.most_beside_fresh();
        let mut idle = self.idle();
        let count = idle.len().saturating_sub(most);
        let gone: Vec<Idle> = idle.drain(..count).collect();
        drop(idle);
        // Closed outside of the lock.
        drop(gone);
    }

    /// Takes a connection back after an exchange that ended exactly at its framing end, `now`.
    pub(super) fn give_back(&self, stream: TcpStream, now: tokio::time::Instant) {
        let is_one_waiting = self.fresh.load(Ordering::Relaxed) > 0;
        if is_one_waiting && self.idle().len() >= self.most_beside_fresh() {
            // The server may need to be done with this one first.
            return;
        }
        let mut idle = self.idle();
        let gone = (idle.len() >= IDLE_MAX).then(|| idle.remove(0));
        idle.push(Idle {
            stream,
            home: std::thread::current().id(),
            since: now,
        });
        drop(idle);
        drop(gone);
    }

    /// Closes what was idle for too long, or was closed or written to by the other side.
    pub(super) fn sweep(&self) {
        self.idle()
            .retain(|idle| idle.since.elapsed() <= IDLE && is_quiet(&idle.stream));
    }

    /// A fresh connection is answered beside all others.
    fn prove(&self) {
        let (busy, proven) = (&self.busy, &self.proven);
        let idle = self.idle();
        if idle.len() + busy.load(Ordering::Relaxed) > proven.load(Ordering::Relaxed) {
            // What the server has closed keeps it from nothing.
            let quiet = idle.iter().filter(|idle| is_quiet(&idle.stream)).count();
            proven.fetch_max(quiet + busy.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// A fresh connection is not answered, perhaps because of idle ones.
    fn doubt(&self) {
        let trial_at = now_ms() + u64::try_from(TRIAL_PAUSE.as_millis()).unwrap_or(u64::MAX);
        self.trial_at.store(trial_at, Ordering::Relaxed);
        self.make_way();
    }
}

/// Counts a connection in use.
#[derive(Debug)]
pub(super) struct InUse {
    dyno: Arc<DynoRoute>,
    is_fresh: bool,
}

impl InUse {
    pub(super) fn new(dyno: &Arc<DynoRoute>, is_fresh: bool) -> Self {
        let in_use = Self {
            dyno: Arc::clone(dyno),
            is_fresh,
        };
        in_use.count().fetch_add(1, Ordering::Relaxed);
        in_use
    }

    fn count(&self) -> &AtomicUsize {
        let pool = &self.dyno.pool;
        if self.is_fresh {
            &pool.fresh
        } else {
            &pool.busy
        }
    }

    /// Waits for bytes of the answer. Idle connections do not stand in the way of the first ones
    /// for long, once the request `is_sent`.
    pub(super) async fn wait<T>(
        &self,
        answer: impl Future<Output = T>,
        is_sent: impl Fn() -> bool,
    ) -> T {
        let mut answer = pin!(answer);
        if self.is_fresh {
            // Boxed: a request on a connection that was used before carries no room for it.
            if let Some(done) = Box::pin(self.trial(answer.as_mut(), is_sent)).await {
                return done;
            }
        }
        answer.await
    }

    /// `None`: the answer does not come.
    async fn trial<T>(
        &self,
        mut answer: Pin<&mut impl Future<Output = T>>,
        is_sent: impl Fn() -> bool,
    ) -> Option<T> {
        let pool = &self.dyno.pool;
        let since = Instant::now();
        loop {
            let answers = pool.answers.load(Ordering::Relaxed);
            if let Ok(done) = tokio::time::timeout(TRIAL, answer.as_mut()).await {
                return Some(done);
            }
            let is_silent = pool.answers.load(Ordering::Relaxed) == answers;
            if is_sent() && (is_silent || since.elapsed() >= TRIAL_MAX) {
                pool.doubt();
                return None;
            }
        }
    }

    /// Bytes of the answer are here.
    pub(super) fn answered(&mut self) {
        self.dyno.pool.answers.fetch_add(1, Ordering::Relaxed);
        if self.is_fresh {
            self.dyno.pool.prove();
            self.count().fetch_sub(1, Ordering::Relaxed);
            self.is_fresh = false;
            self.count().fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}

/// The newest of this thread, else the newest of another one.
fn take(idle: &mut Vec<Idle>, here: ThreadId) -> Option<Idle> {
    match idle.iter().rposition(|idle| idle.home == here) {
        Some(at) => Some(idle.remove(at)),
        None => idle.pop(),
    }
}

fn move_here(stream: TcpStream) -> Option<TcpStream> {
    let stream = stream.into_std().ok()?;
    is_quiet(&stream)
        .then(|| TcpStream::from_std(stream).ok())
        .flatten()
}

/// True if this thread's reactor has seen neither an end nor bytes: no system call. What came this
/// very moment is not seen.
fn has_no_news(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// True if the other side neither closed nor said something nobody asked for.
fn is_quiet(stream: &impl AsRawFd) -> bool {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut byte, flags) == Err(nix::errno::Errno::EAGAIN)
}

/// A new connection.
///
/// # Errors
/// `TimedOut`, `ConnectionRefused`, or another errno of connect(2).
pub(super) async fn connect(dyno: &DynoRoute, deadline: Duration) -> io::Result<Upstream> {
    let netns = dyno.backend.netns.as_ref().map(|fd| fd.as_fd());
    let stream = network::connect(netns, dyno.port, deadline).await?;
    stream.set_nodelay(true)?;
    Ok(Upstream {
        stream,
        is_reused: false,
    })
}
