//! The few rtnetlink messages a dyno's link is made of, as bytes over a blocking socket.
//!
//! Several messages go out in one send and are acknowledged one by one, so that a link costs two
//! round trips instead of ten. Source: netlink(7), rtnetlink(7).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Replies are short: an acknowledgement, or one link (about 1.5 KB).
const BUFFER: usize = 8192;

/// Header of a message in bytes.
const HEADER: usize = 16;

/// Size of `ifinfomsg` in bytes; its index lies at 4.
const LINK: usize = 16;

/// `VETH_INFO_PEER`. Source: linux/veth.h.
const VETH_PEER: u16 = 1;

/// A request that the kernel refused.
#[derive(Debug)]
pub(super) struct Refused {
    /// Which of the messages.
    pub(super) at: usize,
    pub(super) source: io::Error,
}

/// A netlink socket of the namespace that the calling thread is in.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
        Ok(Self { socket })
    }

    /// Sends all messages at once and waits for every acknowledgement; the first refusal counts.
    pub(super) fn request(&self, messages: &[Message]) -> Result<(), Refused> {
        let failed = |at| move |source| Refused { at, source };
        let mut bytes = Vec::new();
        for (at, message) in messages.iter().enumerate() {
            message.write(&mut bytes, libc::NLM_F_ACK, at);
        }
        let sent = send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty());
        sent.map_err(|errno| failed(0)(errno.into()))?;
        let mut first = Ok(());
        let mut told = 0;
        let mut buffer = vec![0; BUFFER];
        while told < messages.len() {
            let got = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty());
            let got = got.map_err(|errno| failed(told)(errno.into()))?;
            for (kind, body) in replies(&buffer[..got]) {
                if i32::from(kind) != libc::NLMSG_ERROR {
                    continue;
                }
                let code = body
                    .first_chunk()
                    .map_or(0, |code| i32::from_ne_bytes(*code));
                if code != 0 && first.is_ok() {
                    first = Err(failed(told)(io::Error::from_raw_os_error(-code)));
                }
                told += 1;
            }
        }
        first
    }

    /// The index of a link.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        let mut bytes = Vec::new();
        Message::find_link(name).write(&mut bytes, 0, 0);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        let got = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let (kind, body) = replies(&buffer[..got])
            .next()
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let number = |at: usize| -> Option<i32> {
            let bytes = body.get(at..at + 4)?.first_chunk()?;
            Some(i32::from_ne_bytes(*bytes))
        };
        match number(if kind == libc::RTM_NEWLINK { 4 } else { 0 }) {
            Some(index) if kind == libc::RTM_NEWLINK => Ok(index.unsigned_abs()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The messages of one datagram: type and body.
pub(super) fn replies(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = bytes.first_chunk().map(|n| u32::from_ne_bytes(*n))?;
        let length = usize::try_from(length).ok()?;
        let message = bytes.get(..length).filter(|m| m.len() >= HEADER)?;
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, &message[HEADER..]))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One request.
#[derive(Debug)]
pub(super) struct Message {
    kind: u16,
    flags: i32,
    body: Vec<u8>,
}

impl Message {
    /// A veth pair: `outer` in the socket's namespace, `inner` in another. Both are down: the
    /// kernel ties them together last, and an end without its peer cannot be brought up.
    pub(super) fn veth(outer: &str, inner: &str, netns: BorrowedFd<'_>, mtu: u32) -> Self {
        let mut peer = link(0, false);
        attribute(&mut peer, libc::IFLA_IFNAME, &text(inner));
        attribute(&mut peer, libc::IFLA_MTU, &mtu.to_ne_bytes());
        let netns = netns.as_raw_fd().to_ne_bytes();
        attribute(&mut peer, libc::IFLA_NET_NS_FD, &netns);
        let (mut data, mut info) = (Vec::new(), Vec::new());
        attribute(&mut data, VETH_PEER, &peer);
        attribute(&mut info, libc::IFLA_INFO_KIND, b"veth");
        attribute(&mut info, libc::IFLA_INFO_DATA, &data);
        let mut body = link(0, false);
        attribute(&mut body, libc::IFLA_IFNAME, &text(outer));
        attribute(&mut body, libc::IFLA_MTU, &mtu.to_ne_bytes());
        attribute(&mut body, libc::IFLA_LINKINFO, &info);
        Self::new(libc::RTM_NEWLINK, body)
    }

    /// Brings a link up.
    pub(super) fn up(index: u32) -> Self {
        Self {
            kind: libc::RTM_NEWLINK,
            flags: 0,
            body: link(index, true),
        }
    }

    /// Gives a link an address.
    pub(super) fn address(index: u32, address: Ipv4Addr, prefix: u8) -> Self {
        let family = family();
        let mut body = vec![family, prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        attribute(&mut body, libc::IFA_LOCAL, &address.octets());
        attribute(&mut body, libc::IFA_ADDRESS, &address.octets());
        Self::new(libc::RTM_NEWADDR, body)
    }

    /// The default route.
    pub(super) fn default_route(gateway: Ipv4Addr) -> Self {
        let mut body = vec![family(), 0, 0, 0];
        body.extend([
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            libc::RT_SCOPE_UNIVERSE,
            libc::RTN_UNICAST,
        ]);
        body.extend([0; 4]);
        attribute(&mut body, libc::RTA_GATEWAY, &gateway.octets());
        Self::new(libc::RTM_NEWROUTE, body)
    }

    fn find_link(name: &str) -> Self {
        let mut body = link(0, false);
        attribute(&mut body, libc::IFLA_IFNAME, &text(name));
        Self {
            kind: libc::RTM_GETLINK,
            flags: 0,
            body,
        }
    }

    fn new(kind: u16, body: Vec<u8>) -> Self {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        Self { kind, flags, body }
    }

    fn write(&self, to: &mut Vec<u8>, flags: i32, sequence: usize) {
        let flags = self.flags | flags | libc::NLM_F_REQUEST;
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        to.extend(length.to_ne_bytes());
        to.extend(self.kind.to_ne_bytes());
        to.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
        to.extend(u32::try_from(sequence).unwrap_or_default().to_ne_bytes());
        to.extend([0; 4]);
        to.extend(&self.body);
        to.resize(aligned(to.len()), 0);
    }
}

fn family() -> u8 {
    u8::try_from(libc::AF_INET).unwrap_or_default()
}

/// An `ifinfomsg`.
fn link(index: u32, up: bool) -> Vec<u8> {
    let mut body = vec![0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let up = libc::IFF_UP.cast_unsigned().to_ne_bytes();
        body[8..12].copy_from_slice(&up);
        body[12..16].copy_from_slice(&up);
    }
    body
}

fn text(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(aligned(to.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_aligned_and_carry_their_length() {
        let mut bytes = Vec::new();
        Message::find_link("lo").write(&mut bytes, 0, 7);
        Message::up(1).write(&mut bytes, libc::NLM_F_ACK, 8);
        let kinds: Vec<(u16, usize)> = replies(&bytes).map(|(k, b)| (k, b.len())).collect();
        assert_eq!(
            kinds,
            [(libc::RTM_GETLINK, LINK + 8), (libc::RTM_NEWLINK, LINK)]
        );
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_cut_message_ends_the_list() {
        let mut bytes = Vec::new();
        Message::up(1).write(&mut bytes, 0, 0);
        let whole = bytes.len();
        bytes.extend([200, 0, 0, 0, 1, 0]);
        assert_eq!(replies(&bytes).count(), 1);
        assert_eq!(replies(&bytes[..whole - 1]).count(), 0);
    }

    #[test]
    fn lo_is_found_by_its_name_and_others_are_not() {
        let netlink = Netlink::open().expect("a socket needs no privilege");
        assert_eq!(netlink.index("lo").expect("lo"), 1);
        let missing = netlink.index("mf-none").expect_err("no such link");
        assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
    }
}
