//! `/sources`: where a client puts what is to be built.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::IntoResponse;

use crate::api::error::ApiError;
use crate::api::extract::Key;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{files, types};

pub(super) async fn create(State(api): State<Api>) -> Answer {
    let secret = api.uploads.open().await?;
    let url = format!("/sources/{secret}");
    reply::created(&types::Source {
        source_blob: types::SourceUrls {
            get_url: url.clone(),
            put_url: url,
        },
    })
}

pub(super) async fn fill(State(api): State<Api>, Key(secret): Key, request: Request) -> Answer {
    api.uploads.fill(&secret, request.into_body()).await?;
    reply::ok(&serde_json::json!({}))
}

pub(super) async fn fetch(State(api): State<Api>, Key(secret): Key) -> Answer {
    let file = api.uploads.file(&secret);
    let file = file.ok_or_else(|| ApiError::not_found("source"))?;
    let body = files::send(&file).await?;
    let body = body.ok_or_else(|| ApiError::not_found("source"))?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], body).into_response())
}
