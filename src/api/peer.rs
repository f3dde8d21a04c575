//! Who calls: the kernel tells the uid of the other end of a Unix socket.

use std::ffi::CString;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, gethostname};
use tokio::net::UnixListener;
use uuid::Uuid;

use super::convert;
use super::error::ApiError;

/// The group whose members may use the API.
pub(super) const GROUP: &str = "manifold";

/// Credentials of a connection, taken when it was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(Option<(Uid, Gid)>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self(credentials.map(|c| (Uid::from_raw(c.uid()), Gid::from_raw(c.gid()))))
    }
}

/// A caller that was let in.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// `NAME@HOSTNAME`.
    pub(super) email: String,
}

impl Caller {
    /// Stable for the same name on the same host.
    pub(super) fn id(&self) -> Uuid {
        convert::derived_id("user", &self.email)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // Put there by the middleware that let the request in.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| ApiError::forbidden("The caller is not known."))
    }
}

/// Decides whether the peer may call, and under which name.
///
/// # Errors
/// 403 with what to do.
pub(super) async fn admit(peer: Option<&ConnectInfo<Peer>>) -> Result<Caller, ApiError> {
    let Some(&ConnectInfo(Peer(Some((uid, gid))))) = peer else {
        return Err(ApiError::forbidden("The kernel does not tell who you are."));
    };
    // The user database may be remote: not on this thread.
    let found = tokio::task::spawn_blocking(move || decide(uid, gid)).await;
    found.unwrap_or_else(|error| Err(ApiError::internal("look up the caller", &error)))
}

fn decide(uid: Uid, gid: Gid) -> Result<Caller, ApiError> {
    let user = User::from_uid(uid).ok().flatten();
    let is_allowed = uid.is_root() || uid == Uid::effective() || is_member(user.as_ref(), gid);
    let name = user.map_or_else(|| format!("uid{uid}"), |user| user.name);
    if !is_allowed {
        return Err(ApiError::forbidden(format!(
            "User {name} may not use this supervisor. Let root run: usermod -aG {GROUP} {name}"
        )));
    }
    let host = gethostname().ok().and_then(|host| host.into_string().ok());
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    Ok(Caller {
        email: format!("{name}@{host}"),
    })
}

fn is_member(user: Option<&User>, gid: Gid) -> bool {
    let Ok(Some(group)) = Group::from_name(GROUP) else {
        return false;
    };
    let supplementary = user.and_then(|user| {
        let name = CString::new(user.name.as_str()).ok()?;
        getgrouplist(&name, user.gid).ok()
    });
    gid == group.gid || supplementary.is_some_and(|groups| groups.contains(&group.gid))
}
