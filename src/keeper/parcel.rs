//! What outlives a supervisor: bytes and descriptors that lie in a socket nobody sends to any more.
//!
//! Whoever holds the one descriptor holds all of them, without having them open: the keeper would
//! else copy and close them at every launch. The kernel lets go of them with the last holder.
//! Source: unix(7), `SCM_RIGHTS`.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recv, recvmsg};

use super::protocol;

/// Most bytes in one.
pub(super) const PARCEL_BYTES: usize = 64 << 10;

/// Most descriptors in one.
pub(super) const PARCEL_FDS: usize = 64;

/// Packs bytes (at least one) and descriptors, which stay open here.
///
/// # Errors
/// `EMSGSIZE` past [`PARCEL_BYTES`] or [`PARCEL_FDS`]; no descriptors left.
pub fn pack(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    if bytes.is_empty() || bytes.len() > PARCEL_BYTES || fds.len() > PARCEL_FDS {
        return Err(nix::errno::Errno::EMSGSIZE.into());
    }
    let (inside, outside) = protocol::channel()?;
    protocol::send_bytes(outside.as_fd(), bytes, fds, MsgFlags::MSG_DONTWAIT)?;
    Ok(inside)
}

/// Copies of what is in it; it keeps all of it, for the next one who looks.
///
/// # Errors
/// It is no parcel, or there are no descriptors left.
pub fn look(parcel: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let length = recv(parcel.as_raw_fd(), &mut [], peek | MsgFlags::MSG_TRUNC)?;
    let broken = || io::Error::from(nix::errno::Errno::EBADMSG);
    if length == 0 || length > PARCEL_BYTES {
        return Err(broken());
    }
    let mut bytes = vec![0; length];
    let mut space = nix::cmsg_space!([RawFd; PARCEL_FDS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = peek | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(parcel.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(crate::sys::adopt));
        }
    }
    // Without descriptors left the kernel hands out some of them only, and says so.
    if message.flags.contains(MsgFlags::MSG_CTRUNC) || message.bytes != length {
        return Err(broken());
    }
    Ok((bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_was_packed_is_there_for_everyone_who_looks() {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        let parcel = pack(b"name", &[read.as_fd()]).expect("packed");
        drop(read);
        File::from(write)
            .write_all(b"line")
            .expect("it has a reader");
        let (bytes, mut first) = look(parcel.as_fd()).expect("a parcel");
        assert_eq!((bytes.as_slice(), first.len()), (&b"name"[..], 1));
        drop(first.pop());
        let (_, mut fds) = look(parcel.as_fd()).expect("still a parcel");
        drop(parcel);
        let mut text = String::new();
        let mut read = File::from(fds.pop().expect("a descriptor"));
        read.read_to_string(&mut text).expect("read");
        assert_eq!(text, "line");
    }

    #[test]
    fn too_much_is_refused_and_the_last_holder_lets_go() {
        assert!(pack(&vec![1; PARCEL_BYTES + 1], &[]).is_err());
        assert!(pack(b"", &[]).is_err());
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
        let parcel = pack(b"x", &[read.as_fd()]).expect("packed");
        drop((read, parcel));
        let broken = File::from(write).write_all(b"line").expect_err("no reader");
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
        let (other, _end) = protocol::channel().expect("a pair");
        assert!(look(other.as_fd()).is_err());
    }
}
