//! Connections to dynos: fresh ones with retries and quarantine, and a pool of idle ones.
//!
//! The pool is shared by all router threads, but a connection stays registered with the thread that
//! used it last, and each thread takes its own first: moving one to another thread costs system
//! calls. It is moved rather than left when the thread has none of its own: a server that handles
//! one connection at a time must never be stuck on an idle one of ours, so none stays idle while a
//! request waits on a fresh one.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd};
use std::sync::atomic::Ordering;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use tokio::net::TcpStream;

use super::table::{DynoRoute, Idle};
use crate::network;

/// Idle connections are closed after so long; shorter than what servers usually wait (5 s), so
/// that a request seldom meets a connection that is being closed.
pub(super) const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept per dyno; the oldest goes first.
const IDLE_MAX: usize = 64;

/// A connection and whether it served before.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) stream: TcpStream,
    pub(super) is_reused: bool,
}

/// An idle connection that is still good, if there is one.
pub(super) fn reuse(dyno: &DynoRoute) -> Option<Upstream> {
    let here = std::thread::current().id();
    loop {
        let idle = take(&mut dyno.idle(), here)?;
        if idle.since.elapsed() > IDLE {
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

/// Closes one idle connection, before a new one is opened beside it: a server that is stuck in
/// waiting on the one would not accept the other.
pub(super) fn retire(dyno: &DynoRoute) {
    let _ = dyno.idle().pop();
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

/// Takes a connection back after an exchange that ended exactly at its framing end.
pub(super) fn give_back(dyno: &DynoRoute, stream: TcpStream) {
    if dyno.fresh.load(Ordering::Relaxed) > 0 {
        // Somebody waits on a new connection: leave the server free for it.
        return;
    }
    let mut idle = dyno.idle();
    if idle.len() >= IDLE_MAX {
        idle.remove(0);
    }
    idle.push(Idle {
        stream,
        home: std::thread::current().id(),
        since: Instant::now(),
    });
}

/// Closes what was idle for too long, or was closed or written to by the other side.
pub(super) fn sweep(dyno: &DynoRoute) {
    dyno.idle()
        .retain(|idle| idle.since.elapsed() <= IDLE && is_quiet(&idle.stream));
}

/// True if the other side neither closed nor said something nobody asked for.
fn is_quiet(stream: &impl AsRawFd) -> bool {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut byte, flags) == Err(nix::errno::Errno::EAGAIN)
}
