//! `/apps/A/builds`.

use axum::body::Body as Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::buildpacks;
use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{builds, convert, files, range, types};
use crate::model::{BuildId, Digest};

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    let records = api.store.builds(app.id).await?;
    let builds: Vec<types::Build> = records.iter().map(convert::build).collect();
    range::list(&headers, &["created_at", "id"], &builds)
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let id: BuildId = key.parse().map_err(|_| ApiError::not_found("build"))?;
    let record = api.store.build(id).await?;
    let record = record.filter(|record| record.app == app.id);
    let record = record.ok_or_else(|| ApiError::not_found("build"))?;
    reply::ok(&convert::build(&record))
}

pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::BuildCreate>,
) -> Answer {
    let source = body.source_blob;
    let checksum: Option<Digest> = source
        .checksum
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(str::parse)
        .transpose()
        .map_err(|error: crate::model::DigestError| ApiError::invalid(error.to_string()))?;
    if source
        .version
        .as_ref()
        .is_some_and(|version| version.len() > 255 || version.contains(char::is_control))
    {
        return Err(ApiError::invalid(
            "version is a text of at most 255 characters in one line",
        ));
    }
    let named = body.buildpacks.unwrap_or_default();
    let words = named.iter().map(buildpack).collect::<Result<Vec<_>, _>>()?;
    let buildpacks = buildpacks::named(&api, &words).await?;
    let archive = archive(&api, &source.url)?;
    let request = builds::Request {
        app,
        user: caller.email,
        archive: archive.clone(),
        source_url: source.url,
        checksum,
        version: source.version,
        buildpacks,
        submodules: Vec::new(),
    };
    match builds::start(&api, request).await {
        Ok(started) => reply::created(&convert::build(&started.record)),
        Err(error) => {
            files::remove_file(&archive).await;
            Err(error)
        }
    }
}

/// Where it is, or which of ours.
fn buildpack(named: &types::BuildBuildpack) -> Result<&str, ApiError> {
    let word = named.url.as_deref().or(named.name.as_deref());
    word.ok_or_else(|| ApiError::invalid("Each of buildpacks has a url or a name."))
}

/// The uploaded file behind a `get_url` of ours.
fn archive(api: &Api, url: &str) -> Result<std::path::PathBuf, ApiError> {
    let secret = url.strip_prefix("/sources/").ok_or_else(|| {
        ApiError::invalid(
            "source_blob.url must be the get_url of `POST /sources`, after the bytes were PUT to its put_url",
        )
    })?;
    api.uploads.take(secret).ok_or_else(|| {
        ApiError::invalid("Nothing was uploaded to that source_blob.url, or it was built already")
    })
}

/// Plain text that grows with the build and ends with it.
pub(super) async fn output(State(api): State<Api>, Key(key): Key) -> Answer {
    let id: BuildId = key.parse().map_err(|_| ApiError::not_found("build"))?;
    let body = if let Some(output) = api.builds.output(id) {
        let reader = output.reader();
        Bytes::from_stream(stream::unfold(reader, |mut reader| async {
            let bytes = reader.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), reader))
        }))
    } else {
        let file = files::send(&builds::output_path(&api, id)).await?;
        file.ok_or_else(|| ApiError::not_found("build"))?
    };
    Ok(plain(body))
}

fn plain(body: Bytes) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    ([kind], body).into_response()
}

/// The next build of the app begins without what earlier ones kept.
pub(super) async fn purge_cache(State(api): State<Api>, App(app): App) -> Answer {
    files::remove_tree(&api.paths.cache(app.id)).await;
    files::remove_file(&api.paths.cache_image(app.id)).await;
    reply::ok(&serde_json::json!({}))
}
