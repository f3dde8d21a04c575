//! Connecting to a port inside a dyno without any link.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};

thread_local! {
    /// This thread's own network namespace, to come back to.
    static HOME: io::Result<File> = File::open("/proc/thread-self/ns/net");
}

/// A non-blocking TCP socket of another network namespace: the calling thread enters it for the
/// length of `socket()`.
///
/// # Errors
/// The errno of setns(2) or socket(2). If the way back fails the process aborts: a thread in a
/// dyno's network must not go on.
pub fn socket_in(netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    HOME.with(|home| {
        let home = home.as_ref().map_err(|e| io::Error::from(e.kind()))?;
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC | nix::sys::socket::SockFlag::SOCK_NONBLOCK,
            None,
        );
        if let Err(errno) = setns(home.as_fd(), CloneFlags::CLONE_NEWNET) {
            tracing::error!("cannot leave a dyno's network namespace: {errno}; aborting");
            std::process::abort();
        }
        Ok(socket?)
    })
}

/// Connects to `127.0.0.1:port` in a dyno's network (`None`: in our own).
///
/// # Errors
/// The errno of connect(2); `TimedOut` past the deadline.
pub async fn connect(
    netns: Option<BorrowedFd<'_>>,
    port: u16,
    deadline: Duration,
) -> io::Result<TcpStream> {
    let socket = match netns {
        Some(netns) => TcpSocket::from_std_stream(std::net::TcpStream::from(socket_in(netns)?)),
        None => TcpSocket::new_v4()?,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match tokio::time::timeout(deadline, socket.connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
