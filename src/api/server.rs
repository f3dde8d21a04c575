//! The socket, and what holds for every request.

use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use nix::unistd::{Group, chown};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::ApiError;
use super::handlers;
use super::peer::{self, Peer};
use super::state::Api;

/// Open requests get this long after a stop began.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The same before another supervisor takes over: some (a build's output) end with this one.
const LEAVE_GRACE: Duration = Duration::from_secs(2);

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Someone listens there already.
    #[error(
        "another supervisor{} listens on {path}: stop it, or give this one its own --socket and --state",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who, if the kernel tells.
        pid: Option<i32>,
    },
    /// A TCP address cannot be listened on.
    #[error(
        "cannot listen on {address} for the API: give it another address with `api` in the settings"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Something else has that name.
    #[error("{0} exists and is no socket: remove it, or choose another --socket")]
    NoSocket(PathBuf),
    /// A system call failed.
    #[error("cannot {act} {path}")]
    Io {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds the API's socket (mode 0660, group `manifold` if it exists), replacing one that a dead
/// supervisor left. The parent directory is made if missing.
///
/// # Errors
/// See [`ServeError`].
pub async fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let fail = |act| {
        move |source| ServeError::Io {
            act,
            path: path.to_owned(),
            source,
        }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail("make the directory of"))?;
    }
    clear_stale(path).await?;
    // Until its mode is set below nobody else can connect: that takes write permission, which no
    // usual umask leaves to others; and every peer is checked anyway.
    let listener = UnixListener::bind(path).map_err(fail("listen on"))?;
    if let Ok(Some(group)) = Group::from_name(peer::GROUP) {
        chown(path, None, Some(group.gid))
            .map_err(io::Error::from)
            .map_err(fail("give group manifold"))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(fail("set the mode of"))?;
    Ok(listener)
}

/// Binds the API's TCP addresses, for clients that know no Unix sockets.
///
/// # Errors
/// [`ServeError::Listen`].
pub async fn bind_remote(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ServeError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|source| ServeError::Listen { address, source })?);
    }
    Ok(listeners)
}

async fn clear_stale(path: &Path) -> Result<(), ServeError> {
    use std::os::unix::fs::FileTypeExt as _;
    let io = |act, source| ServeError::Io {
        act,
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(stream) => Err(ServeError::Taken {
            path: path.to_owned(),
            pid: stream.peer_cred().ok().and_then(|peer| peer.pid()),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| io("remove stale", source))
        }
        Err(error) => Err(io("probe", error)),
    }
}

/// A running API.
#[derive(Debug)]
pub struct Server {
    accepting: CancellationToken,
    tasks: Vec<JoinHandle<io::Result<()>>>,
    path: PathBuf,
}

impl Server {
    /// Serves `api` on `listener`, which is bound to `path`, and on `remote` to who has a token.
    pub fn start(api: &Api, listener: UnixListener, path: &Path, remote: Vec<TcpListener>) -> Self {
        let accepting = CancellationToken::new();
        let stopped = || accepting.clone().cancelled_owned();
        let service = || routes(api.clone()).into_make_service_with_connect_info::<Peer>();
        let local = axum::serve(listener, service()).with_graceful_shutdown(stopped());
        let mut tasks = vec![tokio::spawn(local.into_future())];
        for listener in remote {
            let serve = axum::serve(listener, service()).with_graceful_shutdown(stopped());
            tasks.push(tokio::spawn(serve.into_future()));
        }
        Self {
            accepting,
            tasks,
            path: path.to_owned(),
        }
    }

    /// Takes no new connections from now on.
    pub fn close(&self) {
        self.accepting.cancel();
    }

    /// Takes no new connections, lets open requests end (at most 10 s), removes the socket.
    pub async fn stop(mut self) {
        self.end(STOP_GRACE).await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "API socket not removed");
        }
    }

    /// As [`Self::stop`], but soon, and the socket is the next supervisor's.
    pub async fn leave(mut self) {
        self.end(LEAVE_GRACE).await;
    }

    async fn end(&mut self, grace: Duration) {
        self.close();
        let ends = futures_util::future::join_all(&mut self.tasks);
        if tokio::time::timeout(grace, ends).await.is_err() {
            tracing::warn!(
                "API requests still open after {} s were dropped",
                grace.as_secs()
            );
            for task in &self.tasks {
                task.abort();
            }
        }
    }
}

fn routes(api: Api) -> Router {
    handlers::routes()
        .fallback(|| async { ApiError::no_such_endpoint() })
        .method_not_allowed_fallback(|| async { ApiError::no_such_endpoint() })
        .layer(from_fn_with_state(api.clone(), envelope))
        .with_state(api)
}

/// Admission, version check, and the headers every answer carries.
async fn envelope(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(request.headers());
    let none_match = request.headers().get(header::IF_NONE_MATCH).cloned();
    let is_read = request.method().is_safe();
    let peer = request.extensions().get::<ConnectInfo<Peer>>().copied();
    let mut response = match admit(&api, &mut request, peer).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let tag = response.headers().get(header::ETAG);
    if is_read && tag.is_some() && tag == none_match.as_ref() {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    let headers = response.headers_mut();
    headers.insert("request-id", request_id);
    // A constant: there is no limit to reach on one's own machine.
    headers.insert("ratelimit-remaining", HeaderValue::from_static("2400"));
    response
}

async fn admit(
    api: &Api,
    request: &mut Request,
    peer: Option<ConnectInfo<Peer>>,
) -> Result<(), ApiError> {
    let caller = peer::admit(api, peer.as_ref(), request.headers()).await?;
    request.extensions_mut().insert(caller);
    // Prometheus asks for versions of its own format.
    if request.uri().path() == "/metrics" || is_version_3(request.headers()) {
        Ok(())
    } else {
        Err(ApiError::not_acceptable())
    }
}

/// A missing version is fine on this socket; another one than 3 or 3.* is not.
fn is_version_3(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(|value| value.split_once("version="))
        .all(|(_, version)| {
            let end = version.find([',', ';', ' ']).unwrap_or(version.len());
            let version = &version[..end];
            version == "3" || version.starts_with("3.")
        })
}

/// The caller's list of ids, else one of ours. The CLI sends up to 7 KB.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers
        .get("request-id")
        .filter(|value| value.len() <= 7168);
    given.cloned().unwrap_or_else(|| {
        HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a uuid is ASCII")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_3_and_its_variants_are_acceptable() {
        let accepts = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("accept", text.parse().expect("a header"));
            is_version_3(&headers)
        };
        for good in [
            "application/vnd.heroku+json; version=3",
            "application/vnd.heroku+json; version=3.sdk",
            "application/vnd.heroku+json; version=3, */*",
            "*/*",
            "text/event-stream",
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in ["application/vnd.heroku+json; version=2", "x; version=30"] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(is_version_3(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sub/api.sock");
        drop(bind(&path).await.expect("bound"));
        let live = bind(&path).await.expect("the stale one is replaced");
        let mode = std::fs::metadata(&path)
            .expect("a socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = bind(&path).await.expect_err("refused");
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert!(
            matches!(error, ServeError::Taken { pid: Some(p), .. } if p == pid),
            "{error}"
        );
        drop(live);
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "precious").expect("written");
        let error = bind(&path).await.expect_err("refused");
        assert!(matches!(error, ServeError::NoSocket(_)), "{error}");
    }
}
