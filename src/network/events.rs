//! The kernel's word that somebody changed the firewall.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use super::netlink;

/// Bit of the multicast group `NFNLGRP_NFTABLES` (7). Source: `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 1 << 6;

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_NEWGEN`: a transaction ends. Source:
/// `linux/netfilter/nfnetlink.h`, `nf_tables.h`.
const END: u16 = 10 << 8 | 15;

/// Room for what the kernel tells of our own table as a whole (about 200 KB), many times.
const ROOM: usize = 4 << 20;

/// News about one table.
#[derive(Debug)]
pub(super) struct Events {
    socket: AsyncFd<OwnedFd>,
    /// The table's name as netlink carries it.
    needle: Vec<u8>,
    /// The transaction that is being told concerns it.
    is_ours: bool,
}

impl Events {
    /// Listens for changes of the table `name` in our network namespace.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        if let Err(error) = setsockopt(&socket, sockopt::RcvBufForce, &ROOM) {
            tracing::debug!(%error, "news of firewall changes have little room");
        }
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        let mut needle = name.as_bytes().to_vec();
        needle.push(0);
        Ok(Self {
            socket: crate::sys::watch(socket)?,
            needle,
            is_ours: false,
        })
    }

    /// Returns when something of the table changed (or when so much did that news were lost).
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let seen = drain(self.socket.get_ref(), &self.needle, &mut self.is_ours);
            ready.clear_ready();
            if seen? > 0 {
                return Ok(());
            }
        }
    }

    /// How many transactions changed the table since the last look, ours too; `usize::MAX` if
    /// news were lost. A transaction's news are there when whoever made it hears that it is done.
    pub(super) fn commits(&mut self) -> io::Result<usize> {
        drain(self.socket.get_ref(), &self.needle, &mut self.is_ours)
    }
}

fn drain(socket: &OwnedFd, needle: &[u8], is_ours: &mut bool) -> io::Result<usize> {
    use nix::errno::Errno;
    let mut buffer = vec![0; 1 << 16];
    let mut count: usize = 0;
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                for (kind, body) in netlink::replies(&buffer[..length]) {
                    if kind == END {
                        count = count.saturating_add(usize::from(std::mem::take(is_ours)));
                    } else {
                        *is_ours |= body.windows(needle.len()).any(|w| w == needle);
                    }
                }
            }
            Err(Errno::EAGAIN) => return Ok(count),
            Err(Errno::ENOBUFS) => count = usize::MAX,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).expect("short");
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(16, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_transaction_counts_when_it_ends_and_once() {
        let (from, to) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        to.set_nonblocking(true).expect("a socket");
        let to = OwnedFd::from(to);
        let mut is_ours = false;
        let mut count = || drain(&to, b"manifold_1\0", &mut is_ours).expect("no error");
        let rule = |name: &str| message(10 << 8 | 6, format!("\x08\0\x01\0{name}\0").as_bytes());
        let end = message(END, &[]);
        let tell = |parts: &[&[u8]]| from.send(&parts.concat()).expect("sent");

        assert_eq!(count(), 0);
        tell(&[&rule("other"), &end, &rule("manifold_12"), &end]);
        assert_eq!(count(), 0, "others' tables");
        tell(&[&rule("manifold_1"), &rule("manifold_1")]);
        assert_eq!(count(), 0, "not at its end");
        tell(&[&rule("other")]);
        tell(&[&end, &rule("manifold_1"), &end, &end]);
        assert_eq!(count(), 2);
        assert_eq!(count(), 0);
    }
}
