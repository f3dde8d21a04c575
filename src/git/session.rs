//! A git process that serves one client.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::push::Push;
use super::repository::{GitError, Repository};
use crate::sys;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// It pushes.
    ReceivePack,
    /// It fetches.
    UploadPack,
}

impl Service {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReceivePack => "git-receive-pack",
            Self::UploadPack => "git-upload-pack",
        }
    }
}

impl std::str::FromStr for Service {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "git-receive-pack" | "receive-pack" => Ok(Self::ReceivePack),
            "git-upload-pack" | "upload-pack" => Ok(Self::UploadPack),
            other => Err(format!(
                "no git service is called `{other}`: git-receive-pack (push) and git-upload-pack (fetch) are"
            )),
        }
    }
}

/// How client and git talk. Source: gitprotocol-http(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Both ways on one connection.
    Connected,
    /// The list of refs, and the end.
    Advertise,
    /// One request, one answer.
    Stateless,
}

impl Exchange {
    pub(super) fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Connected => &[],
            Self::Advertise => &["--stateless-rpc", "--advertise-refs"],
            Self::Stateless => &["--stateless-rpc"],
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Advertise => "advertise",
            Self::Stateless => "stateless",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Connected, Self::Advertise, Self::Stateless]
            .into_iter()
            .find(|exchange| exchange.as_str() == name)
    }
}

/// A running git. Killed when dropped.
#[derive(Debug)]
pub struct Session {
    /// From the client.
    pub stdin: ChildStdin,
    /// To the client.
    pub stdout: ChildStdout,
    /// What is pushed, if something can be.
    pub push: Option<Push>,
    child: Child,
}

impl Session {
    /// The parts.
    pub fn split(self) -> (ChildStdin, ChildStdout, Option<Push>, Child) {
        (self.stdin, self.stdout, self.push, self.child)
    }
}

impl Repository {
    /// Starts git. `protocol` is the client's `Git-Protocol`.
    ///
    /// # Errors
    /// [`GitError`].
    pub fn start(
        &self,
        service: Service,
        exchange: Exchange,
        protocol: Option<&str>,
    ) -> Result<Session, GitError> {
        let is_push = service == Service::ReceivePack && exchange != Exchange::Advertise;
        let (push, control) = if is_push {
            let (ours, theirs) = pair().map_err(GitError::Start)?;
            let push = Push::open(self.path(), ours)?;
            (Some(push), Stdio::from(theirs))
        } else {
            (None, Stdio::null())
        };
        let mut command = Command::new(sys::own_program());
        command
            .arg0("manifold")
            .arg("__git")
            .arg(self.path())
            .args([service.as_str(), exchange.as_str()])
            .arg(push.as_ref().map_or(Path::new(""), |push| push.name()))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(control)
            .kill_on_drop(true);
        if let Some(protocol) = protocol.filter(|text| is_plain(text)) {
            command.env("GIT_PROTOCOL", protocol);
        }
        let mut child = command.spawn().map_err(GitError::Start)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            let error = std::io::Error::other("its streams are missing");
            return Err(GitError::Start(error));
        };
        Ok(Session {
            stdin,
            stdout,
            push,
            child,
        })
    }
}

/// Ours for tokio, theirs to be the child's stderr.
fn pair() -> std::io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::Stream,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let ours = std::os::unix::net::UnixStream::from(ours);
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// `version=2` and its like; nothing else gets into git's environment.
fn is_plain(text: &str) -> bool {
    text.len() <= 64
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"=:.-".contains(&b))
}
