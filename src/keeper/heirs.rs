//! What the keeper holds from one supervisor to the next, and how the next one asks for it.
//!
//! A launched dyno that was kept (a parcel lies beside it) outlives its supervisor; one whose end
//! was not taken in before it died is told to the next one as ended. The keeper looks into no
//! parcel. All of it is in memory: a keeper that ends takes every dyno with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::os::fd::AsRawFd as _;

use super::protocol::{self, Mark, Reply};
use super::serve::Keeper;
use crate::model::{DynoId, ExitStatus};
use crate::sys;

/// The keeper is our parent and does little else: it answers at once or never.
const ANSWER_SECONDS: i64 = 10;

/// How a supervisor says that another is to take its place, with all that is kept.
pub const HAND_OVER: u8 = 83;

/// How it says that the keeper, too, is to start anew; no dyno is left, or may be.
pub const RENEW: u8 = 84;

/// Which language keeper and supervisor speak: raised with every change of `Request`, `Reply` or of
/// what a parcel means.
const VERSION: u32 = 2;

/// What both ends say first; never to be changed, so that every two versions understand it.
const HELLO: &str = "manifold keeper ";

/// The version of this program; test builds may claim another.
pub fn protocol_version() -> u32 {
    let claimed = if cfg!(debug_assertions) {
        std::env::var("MANIFOLD_TEST_ONLY_PROTOCOL").ok()
    } else {
        None
    };
    claimed
        .and_then(|text| text.parse().ok())
        .unwrap_or(VERSION)
}

/// What the supervisor before left.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The last parcel of [`super::Client::keep_doors`].
    pub doors: Option<OwnedFd>,
    /// Every dyno that was kept.
    pub dynos: Vec<Heir>,
}

/// A dyno that outlived its supervisor, or ended without one.
#[derive(Debug)]
pub struct Heir {
    /// Which.
    pub dyno: DynoId,
    /// Its PID 1.
    pub pid: u32,
    /// How far it was.
    pub mark: Mark,
    /// How it ended, if it did.
    pub ended: Option<ExitStatus>,
    /// What was kept with it.
    pub parcel: OwnedFd,
}

/// What the keeper answers to a new supervisor.
#[derive(Debug)]
pub enum Greeting {
    /// The same version: here is what is left.
    Welcome(Inheritance),
    /// Another version, its number: they cannot work together.
    Stranger(u32),
}

/// Asks the keeper at the other end of the inherited socket; to be done first, and once.
///
/// # Errors
/// The keeper is gone, or does not answer in time.
pub fn greet(socket: &OwnedFd) -> io::Result<Greeting> {
    setsockopt(
        socket,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(ANSWER_SECONDS),
    )?;
    let hello = format!("{HELLO}{}", protocol_version());
    send(socket.as_raw_fd(), hello.as_bytes(), MsgFlags::MSG_NOSIGNAL)?;
    let theirs = hear(socket)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if theirs != protocol_version() {
        return Ok(Greeting::Stranger(theirs));
    }
    let mut left = Inheritance::default();
    let mut buffer = Vec::new();
    loop {
        let received = protocol::receive::<Reply>(socket.as_fd(), &mut buffer)?;
        let (reply, mut fds) = received.ok_or(io::ErrorKind::UnexpectedEof)?;
        match (reply, fds.pop()) {
            (Reply::Welcome, _) => break,
            (Reply::Doors, doors) => left.doors = doors,
            (
                Reply::Heir {
                    dyno,
                    pid,
                    mark,
                    ended,
                },
                Some(parcel),
            ) => left.dynos.push(Heir {
                dyno,
                pid,
                mark,
                ended: ended.map(ExitStatus),
                parcel,
            }),
            (other, _) => return Err(io::Error::other(format!("the keeper said {other:?}"))),
        }
    }
    setsockopt(socket, sockopt::ReceiveTimeout, &TimeVal::seconds(0))?;
    Ok(Greeting::Welcome(left))
}

/// The version at the other end; `None` when it is gone.
fn hear(socket: &OwnedFd) -> io::Result<Option<u32>> {
    let mut buffer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    if length == 0 {
        return Ok(None);
    }
    let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
    let version = text.strip_prefix(HELLO).and_then(|text| text.parse().ok());
    version
        .map(Some)
        .ok_or_else(|| io::Error::other("the other end does not speak as keeper or supervisor"))
}

impl Keeper {
    /// The first word of a supervisor, and all that is left for it; false when it is gone.
    pub(super) fn greet(&mut self) -> io::Result<bool> {
        let theirs = match hear(&self.socket) {
            Ok(Some(theirs)) => theirs,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        };
        let hello = format!("{HELLO}{}", protocol_version());
        // One that is gone meanwhile: its exit is on its way to us.
        let flags = MsgFlags::MSG_NOSIGNAL;
        let _ = send(self.socket.as_raw_fd(), hello.as_bytes(), flags);
        if theirs != protocol_version() {
            return Ok(true);
        }
        self.is_greeted = true;
        if let Some(doors) = &self.doors {
            self.reply(&Reply::Doors, &[doors.as_fd()])?;
        }
        for (id, dyno) in &self.dynos {
            if let Some(parcel) = &dyno.parcel {
                let heir = Reply::Heir {
                    dyno: *id,
                    pid: dyno.pid,
                    mark: dyno.mark,
                    ended: dyno.ended,
                };
                self.reply(&heir, &[parcel.as_fd()])?;
            }
        }
        self.reply(&Reply::Welcome, &[])?;
        Ok(true)
    }

    /// From now on the dyno outlives its supervisor; one that is gone already is not found.
    pub(super) fn keep(&mut self, id: DynoId, mark: Mark, parcel: Option<OwnedFd>) {
        if let Some(dyno) = self.dynos.get_mut(&id) {
            dyno.mark = mark;
            dyno.parcel = parcel;
        }
    }

    pub(super) fn mark(&mut self, id: DynoId, mark: Mark) {
        if let Some(dyno) = self.dynos.get_mut(&id) {
            dyno.mark = mark;
        }
    }

    /// Its end was taken in. One that has not ended is nobody's any more: its end is no news.
    pub(super) fn forget(&mut self, id: DynoId) {
        if let Some(dyno) = self.dynos.get_mut(&id) {
            dyno.parcel = None;
            dyno.is_launched = false;
            if dyno.ended.is_some() {
                self.dynos.remove(&id);
            }
        }
    }

    /// A supervisor is gone: ends what was not kept, and waits for each.
    pub(super) fn end_unkept(&mut self) {
        self.is_greeted = false;
        self.launching.clear();
        self.users.clear();
        self.warmed.clear();
        self.ahead.forget();
        let (kept, lost) = std::mem::take(&mut self.dynos)
            .into_iter()
            .partition(|(_, dyno)| dyno.is_launched && dyno.parcel.is_some());
        self.dynos = lost;
        self.kill_all();
        self.dynos = kept;
        if !self.dynos.is_empty() {
            tracing::info!("{} dynos wait for the next supervisor", self.dynos.len());
        }
    }

    /// Becomes the program at `path`, as this process: for a version that this one cannot work with.
    pub(super) fn become_anew(path: &std::path::Path) -> io::Error {
        use std::os::unix::process::CommandExt as _;
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_default();
        // Signals stay blocked over exec, and it would block them once more all the same.
        if let Err(error) = sys::close_on_exec_from(3) {
            return error;
        }
        std::process::Command::new(path)
            .arg0(name)
            .args(words)
            .exec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keeper's half of a greeting, as this or another version says it.
    fn answer(socket: OwnedFd, version: u32) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let heard = hear(&socket).expect("a greeting");
            assert_eq!(heard, Some(protocol_version()));
            let hello = format!("{HELLO}{version}");
            send(socket.as_raw_fd(), hello.as_bytes(), MsgFlags::MSG_NOSIGNAL).expect("sent");
            if version == protocol_version() {
                protocol::send(socket.as_fd(), &Reply::Welcome, &[]).expect("sent");
            }
        })
    }

    #[test]
    fn another_version_is_told_from_ours_before_anything_else_is_read() {
        let (ours, theirs) = protocol::channel().expect("a pair");
        let keeper = answer(theirs, 999);
        let greeting = greet(&ours).expect("answered");
        assert!(matches!(greeting, Greeting::Stranger(999)), "{greeting:?}");
        keeper.join().expect("no panic");
        let (ours, theirs) = protocol::channel().expect("a pair");
        let keeper = answer(theirs, protocol_version());
        let Greeting::Welcome(left) = greet(&ours).expect("answered") else {
            panic!("the same version is refused");
        };
        assert!(left.doors.is_none() && left.dynos.is_empty());
        keeper.join().expect("no panic");
    }

    #[test]
    fn a_keeper_that_is_gone_or_talks_otherwise_is_an_error() {
        let (ours, theirs) = protocol::channel().expect("a pair");
        drop(theirs);
        assert!(greet(&ours).is_err());
        let (ours, theirs) = protocol::channel().expect("a pair");
        send(theirs.as_raw_fd(), b"HTTP/1.1", MsgFlags::empty()).expect("sent");
        assert!(greet(&ours).is_err());
    }
}
