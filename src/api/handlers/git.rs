//! Git: smart HTTP (`/APP.git/...`) and one upgraded connection (`/apps/APP/git/SERVICE`).
//! Source: gitprotocol-http(5).

use std::io::Read as _;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryStreamExt as _;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::api::error::ApiError;
use crate::api::extract::{App, Key};
use crate::api::git::{self, Client};
use crate::api::peer::Caller;
use crate::api::reply::Answer;
use crate::api::state::Api;
use crate::api::types::git::PROTOCOL;
use crate::git::{Exchange, Service};
use crate::store::AppRecord;

/// Largest compressed request in bytes: lists of commits a fetching client has.
const GZIP_MAX: usize = 8 << 20;

/// The same, unpacked.
const GUNZIP_MAX: u64 = 64 << 20;

/// Turns the connection into git's own protocol, both ways.
pub(super) async fn connect(
    State(api): State<Api>,
    App(app): App,
    Key(service): Key,
    caller: Caller,
    mut request: Request,
) -> Answer {
    let service: Service = service.parse().map_err(ApiError::bad_request)?;
    if !super::asks_for_upgrade(request.headers(), PROTOCOL) {
        return Err(ApiError::bad_request(format!(
            "Send `Connection: Upgrade` and `Upgrade: {PROTOCOL}` here."
        )));
    }
    let client = Client {
        app,
        user: caller.email,
        service,
        exchange: Exchange::Connected,
        protocol: protocol(request.headers()),
    };
    let started = git::start(&api, client).await?;
    let upgrade = hyper::upgrade::on(&mut request);
    let task = api.clone();
    api.tasks.spawn(async move {
        match upgrade.await {
            Ok(stream) => {
                let (reader, writer) = tokio::io::split(TokioIo::new(stream));
                git::serve(&task, started, reader, writer).await;
            }
            Err(error) => tracing::debug!(%error, "git client gone before the upgrade"),
        }
    });
    super::switch_to(PROTOCOL)
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    service: Option<String>,
}

/// `GET /APP.git/info/refs?service=git-receive-pack`.
pub(super) async fn advertise(
    State(api): State<Api>,
    Path(repository): Path<String>,
    Query(wanted): Query<Wanted>,
    caller: Caller,
    headers: HeaderMap,
) -> Answer {
    let app = find(&api, &repository).await?;
    let service: Service = wanted
        .service
        .as_deref()
        .unwrap_or("(none: this server speaks smart HTTP only)")
        .parse()
        .map_err(ApiError::bad_request)?;
    let client = Client {
        app,
        user: caller.email,
        service,
        exchange: Exchange::Advertise,
        protocol: protocol(&headers),
    };
    let line = format!("# service={}\n", service.as_str());
    let start = format!("{:04x}{line}0000", line.len() + 4);
    let refs = answer(&api, client, tokio::io::empty()).await?;
    let start = std::io::Cursor::new(start.into_bytes());
    let body = tokio::io::AsyncReadExt::chain(start, refs);
    Ok(reply(service, "advertisement", body))
}

pub(super) async fn receive_pack(
    state: State<Api>,
    path: Path<String>,
    caller: Caller,
    request: Request,
) -> Answer {
    exchange(state, path, caller, request, Service::ReceivePack).await
}

pub(super) async fn upload_pack(
    state: State<Api>,
    path: Path<String>,
    caller: Caller,
    request: Request,
) -> Answer {
    exchange(state, path, caller, request, Service::UploadPack).await
}

async fn exchange(
    State(api): State<Api>,
    Path(repository): Path<String>,
    caller: Caller,
    request: Request,
    service: Service,
) -> Answer {
    let app = find(&api, &repository).await?;
    let client = Client {
        app,
        user: caller.email,
        service,
        exchange: Exchange::Stateless,
        protocol: protocol(request.headers()),
    };
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let is_packed = encoding.is_some_and(|value| value == "gzip" || value == "x-gzip");
    let body = request.into_body();
    if is_packed {
        let bytes = unpack(body).await?;
        let refs = answer(&api, client, std::io::Cursor::new(bytes)).await?;
        return Ok(reply(service, "result", refs));
    }
    let stream = body.into_data_stream().map_err(std::io::Error::other);
    let refs = answer(&api, client, StreamReader::new(stream)).await?;
    Ok(reply(service, "result", refs))
}

/// Small by nature: pushes are never compressed twice.
async fn unpack(body: Body) -> Result<Vec<u8>, ApiError> {
    let packed = to_bytes(body, GZIP_MAX).await;
    let packed =
        packed.map_err(|error| ApiError::bad_request(format!("The body was not read: {error}")))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&*packed)
        .take(GUNZIP_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| ApiError::bad_request(format!("The body is no gzip: {error}")))?;
    Ok(bytes)
}

/// What git answers. It goes on when nobody reads: see [`git::serve`].
async fn answer(
    api: &Api,
    client: Client,
    reader: impl AsyncRead + Unpin + Send + 'static,
) -> Result<impl AsyncRead + Send + 'static, ApiError> {
    let started = git::start(api, client).await?;
    let (ours, theirs) = tokio::io::simplex(64 * 1024);
    let task = api.clone();
    api.tasks
        .spawn(async move { git::serve(&task, started, reader, theirs).await });
    Ok(ours)
}

fn reply(service: Service, kind: &str, body: impl AsyncRead + Send + 'static) -> Response {
    let kind = format!("application/x-{}-{kind}", service.as_str());
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    let body = Body::from_stream(ReaderStream::new(body));
    (StatusCode::OK, headers, body).into_response()
}

/// `APP.git`, or `APP`.
async fn find(api: &Api, repository: &str) -> Result<AppRecord, ApiError> {
    let name = repository.strip_suffix(".git").unwrap_or(repository);
    Ok(api.store.app(name).await?)
}

fn protocol(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("git-protocol")?.to_str().ok()?;
    Some(value.to_owned())
}
