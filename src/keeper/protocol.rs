//! Messages between supervisor and keeper: postcard over a `SOCK_SEQPACKET` pair, descriptors
//! beside. Both ends are the same program, and reading a launch must be fast.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recv, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::dyno::{LaunchPlan, UserRange};
use crate::model::DynoId;

/// Largest message in bytes: a plan with 64 KiB of config vars and room to spare.
pub(super) const MESSAGE_MAX: usize = 1 << 20;

/// Most descriptors beside one message.
const FDS_MAX: usize = 16;

/// Supervisor to keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make a dyno. Descriptors, in order: netns, mount of the writable layer, stdin, stdout,
    /// stderr (or one /dev/null where a terminal takes their place), then the cgroup's, then the
    /// user namespace if there is one. To a PID 1 that waits: user namespace, writable layer, streams.
    Launch {
        /// Echoed in the reply.
        request: u64,
        /// What to do.
        plan: Box<LaunchPlan>,
        /// True: the one cgroup descriptor is a v2 directory; else v1 `tasks` files.
        cgroup_v2: bool,
        /// False: the keeper makes the user namespace.
        has_user: bool,
    },
    /// Signal a dyno's PID 1, which passes it on; SIGKILL ends all of the dyno.
    Signal {
        /// Which.
        dyno: DynoId,
        /// Number.
        signal: i32,
    },
    /// A launch into this range is near: make now what it needs. Descriptors, in order: netns, then
    /// the cgroup's.
    Warm {
        /// Its ids.
        user: UserRange,
        /// As in `Launch`.
        cgroup_v2: bool,
    },
    /// A launched dyno outlives its supervisor from now on: beside, a parcel for the next one.
    Keep {
        /// Which.
        dyno: DynoId,
        /// How far it is.
        mark: Mark,
    },
    /// A kept dyno is further now.
    Mark {
        /// Which.
        dyno: DynoId,
        /// How far it is.
        mark: Mark,
    },
    /// The end of a dyno was taken in: it is nobody's any more.
    Forget(DynoId),
    /// Beside, a parcel that is not of one dyno (listening sockets); it takes the last one's place.
    Doors,
}

/// How far a dyno was when its supervisor last said so. The keeper only keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// Launched.
    Started,
    /// Ready to work.
    Up,
    /// Being stopped, or about to be.
    Leaving,
}

/// Keeper to supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The command was exec'd. With a terminal: its master beside.
    Launched {
        /// Of the request.
        request: u64,
        /// PID 1 of the dyno, in the keeper's namespace.
        pid: u32,
    },
    /// It was not.
    Failed {
        /// Of the request.
        request: u64,
        /// Where it failed.
        failure: StepFailure,
    },
    /// The user namespace of a range beside: whoever launches into it hands it over.
    Warmed(UserRange),
    /// A launched dyno ended.
    Exited {
        /// Which.
        dyno: DynoId,
        /// As a shell reports it.
        status: u8,
    },
    /// To a new supervisor: the parcel of `Request::Doors` beside.
    Doors,
    /// To a new supervisor: a dyno that was kept, its parcel beside.
    Heir {
        /// Which.
        dyno: DynoId,
        /// Its PID 1.
        pid: u32,
        /// As last said.
        mark: Mark,
        /// As a shell reports it, if it ended.
        ended: Option<u8>,
    },
    /// To a new supervisor: that was all.
    Welcome,
}

/// The step at which a launch failed, and the kernel's errno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{step}: {}", nix::errno::Errno::from_raw(*errno).desc())]
pub struct StepFailure {
    /// In words.
    pub step: String,
    /// Errno.
    pub errno: i32,
}

/// Sends one message with descriptors. `WouldBlock` when the peer's queue is full.
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > MESSAGE_MAX || fds.len() > FDS_MAX {
        return Err(io::Error::from_raw_os_error(libc_emsgsize()));
    }
    send_bytes(socket, &bytes, fds, MsgFlags::empty())
}

/// Sends bytes with descriptors beside, as one message.
pub(super) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: MsgFlags,
) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() {
        &rights[..0]
    } else {
        &rights[..]
    };
    let parts = [IoSlice::new(bytes)];
    let flags = flags | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &parts, control, flags, None)?;
    Ok(())
}

fn libc_emsgsize() -> i32 {
    nix::errno::Errno::EMSGSIZE as i32
}

/// Receives one message; `None` at the end of the stream.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    // Most messages are short, and the room for the longest would be memory for good.
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    let length = recv(socket.as_raw_fd(), &mut [], flags)?;
    if length > MESSAGE_MAX {
        return Err(io::Error::from_raw_os_error(libc_emsgsize()));
    }
    buffer.clear();
    buffer.resize(length.max(1), 0);
    let mut space = nix::cmsg_space!([RawFd; FDS_MAX]);
    let (length, fds) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                fds.extend(raw.into_iter().map(crate::sys::adopt));
            }
        }
        (message.bytes, fds)
    };
    if length == 0 && fds.is_empty() {
        return Ok(None);
    }
    let message = postcard::from_bytes(&buffer[..length]).map_err(io::Error::other)?;
    Ok(Some((message, fds)))
}

/// A connected pair for one short message.
pub(super) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    Ok(socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?)
}

/// A connected pair with room for [`MESSAGE_MAX`].
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::sys::socket::{setsockopt, sockopt};
    let (a, b) = channel()?;
    for end in [&a, &b] {
        // Past the system's default limit only with CAP_NET_ADMIN; without it (tests) the
        // default is enough for small plans.
        if setsockopt(end, sockopt::SndBufForce, &(4 * MESSAGE_MAX)).is_err() {
            setsockopt(end, sockopt::SndBuf, &MESSAGE_MAX)?;
        }
    }
    Ok((a, b))
}
