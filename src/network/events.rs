//! The kernel's word that somebody changed the firewall.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

/// Bit of the multicast group `NFNLGRP_NFTABLES` (7). Source: `linux/netfilter/nfnetlink.h`.
const GROUP: u32 = 1 << 6;

/// News about one table.
#[derive(Debug)]
pub(super) struct Events {
    socket: AsyncFd<OwnedFd>,
    /// The table's name as netlink carries it.
    needle: Vec<u8>,
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
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        let mut needle = name.as_bytes().to_vec();
        needle.push(0);
        Ok(Self {
            socket: crate::sys::watch(socket)?,
            needle,
        })
    }

    /// Returns when something of the table changed (or when so much did that news were lost).
    pub(super) async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let seen = self.drain();
            ready.clear_ready();
            if seen? {
                return Ok(());
            }
        }
    }

    fn drain(&self) -> io::Result<bool> {
        use nix::errno::Errno;
        let mut buffer = vec![0; 1 << 16];
        let mut is_ours = false;
        loop {
            match recv(
                self.socket.get_ref().as_raw_fd(),
                &mut buffer,
                MsgFlags::empty(),
            ) {
                Ok(count) => {
                    let seen = &buffer[..count];
                    is_ours |= seen.windows(self.needle.len()).any(|w| w == self.needle);
                }
                Err(Errno::EAGAIN) => return Ok(is_ours),
                Err(Errno::ENOBUFS) => is_ours = true,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
