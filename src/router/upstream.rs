//! Connections to dynos: fresh ones with retries and quarantine, and a pool of idle ones.
//!
//! The pool is shared by all router threads: a connection is taken out of one thread's reactor
//! and into another's. A server that handles one connection at a time must never be stuck on an
//! idle one of ours, so none stays idle while a request waits on a fresh one.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
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
    loop {
        let idle = dyno.idle().pop()?;
        if idle.since.elapsed() > IDLE || !is_quiet(&idle.stream) {
            continue;
        }
        if let Ok(stream) = TcpStream::from_std(idle.stream) {
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
    let Ok(stream) = stream.into_std() else {
        return;
    };
    let mut idle = dyno.idle();
    if idle.len() >= IDLE_MAX {
        idle.remove(0);
    }
    idle.push(Idle {
        stream,
        since: Instant::now(),
    });
}

/// Closes what was idle for too long, or was closed or written to by the other side.
pub(super) fn sweep(dyno: &DynoRoute) {
    dyno.idle()
        .retain(|idle| idle.since.elapsed() <= IDLE && is_quiet(&idle.stream));
}

/// True if the other side neither closed nor said something nobody asked for.
fn is_quiet(stream: &std::net::TcpStream) -> bool {
    use std::os::fd::AsRawFd as _;
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(stream.as_raw_fd(), &mut byte, flags) == Err(nix::errno::Errno::EAGAIN)
}
