//! Connection tracking: forgetting the flows of an address before somebody else gets it.
//!
//! Messages are ctnetlink's, made by hand: a dump, and a delete for each flow that is named.
//! Source: `linux/netfilter/nfnetlink_conntrack.h`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const GET: u16 = 0x0101;
const DELETE: u16 = 0x0102;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_ADDRESSES: u16 = 1;
const SOURCE: u16 = 1;
const DESTINATION: u16 = 2;

/// Attribute types carry two flag bits above.
const TYPE_MASK: u16 = 0x3FFF;

/// Length of a netlink header and of netfilter's behind it.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// One tracked IPv4 flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// Who opened it.
    pub(super) source: Ipv4Addr,
    /// To whom, before any translation.
    pub(super) destination: Ipv4Addr,
    /// Who answers, after translation.
    pub(super) answers: Ipv4Addr,
}

/// Deletes every IPv4 flow of this network namespace that is `doomed`; returns how many.
///
/// # Errors
/// The kernel has no ctnetlink, or refuses.
pub(super) fn forget(doomed: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let socket = open()?;
    send_message(&socket, GET, REQUEST | DUMP, &[])?;
    let mut found = Vec::new();
    collect(&socket, &doomed, &mut found)?;
    for name in &found {
        send_message(&socket, DELETE, REQUEST | ACK, name)?;
        match acknowledged(&socket) {
            // It ended by itself meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(found.len())
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn send_message(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(HEADERS + body.len()).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(HEADERS + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port: one question at a time needs neither.
    message.extend([0; 8]);
    // nfgenmsg: AF_INET, version 0, resource 0.
    message.extend([2, 0, 0, 0]);
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}

/// Reads the dump to its end; of each doomed flow keeps the attributes that name it.
fn collect(
    socket: &OwnedFd,
    doomed: &impl Fn(&Flow) -> bool,
    found: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in messages(&buffer[..count]) {
            match kind {
                DONE => return Ok(()),
                ERROR => return Err(errno(body)),
                _ => {
                    let attributes = body.get(4..).unwrap_or_default();
                    if flow(attributes).is_some_and(|flow| doomed(&flow)) {
                        found.push(naming(attributes));
                    }
                }
            }
        }
    }
}

fn acknowledged(socket: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let count = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = messages(&buffer[..count]).next();
    match answer {
        Some((ERROR, body)) if body.get(..4) == Some(&[0; 4]) => Ok(()),
        Some((_, body)) => Err(errno(body)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn errno(body: &[u8]) -> io::Error {
    let code = body
        .first_chunk()
        .map_or(0, |word| i32::from_ne_bytes(*word));
    io::Error::from_raw_os_error(code.wrapping_neg())
}

/// Kind and body of each message in a datagram.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// Type, payload and the whole (with its header) of each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let payload = rest.get(4..length)?;
        let whole = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload, whole))
    })
}

fn inner(data: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(data)
        .find(|(kind, ..)| *kind == wanted)
        .map(|(_, payload, _)| payload)
}

fn address(tuple: &[u8], wanted: u16) -> Option<Ipv4Addr> {
    let bytes = inner(inner(tuple, TUPLE_ADDRESSES)?, wanted)?;
    Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?))
}

fn flow(data: &[u8]) -> Option<Flow> {
    let (original, reply) = (inner(data, TUPLE_ORIGINAL)?, inner(data, TUPLE_REPLY)?);
    Some(Flow {
        source: address(original, SOURCE)?,
        destination: address(original, DESTINATION)?,
        answers: address(reply, SOURCE)?,
    })
}

/// The attributes that a delete needs, as they came.
fn naming(data: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    for (kind, _, whole) in attributes(data) {
        if [TUPLE_ORIGINAL, ID, ZONE].contains(&kind) {
            name.extend(whole);
            name.resize(name.len().next_multiple_of(4), 0);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + payload.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let addresses = [
            attribute(SOURCE, &source),
            attribute(DESTINATION, &destination),
        ];
        // Nested ones carry a flag bit.
        attribute(
            kind | 0x8000,
            &attribute(TUPLE_ADDRESSES | 0x8000, &addresses.concat()),
        )
    }

    #[test]
    fn a_flow_is_read_and_named_by_what_the_kernel_sent() {
        let original = tuple(TUPLE_ORIGINAL, [172, 16, 0, 2], [198, 18, 0, 1]);
        let reply = tuple(TUPLE_REPLY, [172, 16, 0, 6], [172, 16, 0, 2]);
        let id = attribute(ID, &[1, 2, 3, 4]);
        let data = [original.clone(), reply, attribute(7, &[0; 6]), id.clone()].concat();
        let expected = Flow {
            source: Ipv4Addr::new(172, 16, 0, 2),
            destination: Ipv4Addr::new(198, 18, 0, 1),
            answers: Ipv4Addr::new(172, 16, 0, 6),
        };
        assert_eq!(flow(&data), Some(expected));
        assert_eq!(naming(&data), [original, id].concat());
    }

    #[test]
    fn cut_off_messages_end_the_walk() {
        let data = tuple(TUPLE_ORIGINAL, [1, 2, 3, 4], [5, 6, 7, 8]);
        for length in 0..data.len() {
            assert_eq!(flow(&data[..length]), None);
            assert_eq!(messages(&data[..length]).count(), 0);
        }
    }
}
