//! Who calls: the kernel tells the uid of the other end of a Unix socket; over TCP a token does.

use std::ffi::CString;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::serve::IncomingStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist, gethostname};
use tokio::net::{TcpListener, UnixListener};
use uuid::Uuid;

use super::convert;
use super::error::ApiError;
use super::state::Api;

/// The group whose members may use the API.
pub(super) const GROUP: &str = "manifold";

/// The other end of a connection, as known when it was accepted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// Over the Unix socket: the kernel tells who it is.
    Local(Option<(Uid, Gid)>),
    /// Over TCP: a token has to tell.
    Remote,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self::Local(credentials.map(|c| (Uid::from_raw(c.uid()), Gid::from_raw(c.gid()))))
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Self {
        Self::Remote
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
/// 401 without a token, 403 with what to do.
pub(super) async fn admit(
    api: &Api,
    peer: Option<&ConnectInfo<Peer>>,
    headers: &HeaderMap,
) -> Result<Caller, ApiError> {
    let (uid, gid) = match peer {
        Some(&ConnectInfo(Peer::Local(Some(ids)))) => ids,
        Some(ConnectInfo(Peer::Remote)) => return by_token(api, headers).await,
        _ => return Err(ApiError::forbidden("The kernel does not tell who you are.")),
    };
    // The user database may be remote: not on this thread.
    let found = tokio::task::spawn_blocking(move || decide(uid, gid)).await;
    found.unwrap_or_else(|error| Err(ApiError::internal("look up the caller", &error)))
}

/// The owner of the token that the request carries.
async fn by_token(api: &Api, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let token = token(headers).ok_or_else(ApiError::unauthorized)?;
    let found = api.store.authorization_by_token(&token).await?;
    let found = found.ok_or_else(ApiError::unauthorized)?;
    Ok(Caller { email: found.user })
}

/// `Authorization: Bearer TOKEN`, or Basic with any user and the token as password.
/// Source: Dev Center, "Platform API Reference", "Authentication".
fn token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    plain.split_once(':').map(|(_, token)| token.to_owned())
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
