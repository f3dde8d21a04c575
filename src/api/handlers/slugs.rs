//! `/apps/A/slugs`, and their bytes.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::IntoResponse;
use jiff::Timestamp;
use serde::Deserialize;

use super::apps;
use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::reply::{self, Answer};
use crate::api::sessions::secret;
use crate::api::state::Api;
use crate::api::{convert, files};
use crate::model::{COMMAND_BYTES_MAX, DigestError, PROCESS_TYPES_MAX, ProcessType, SlugId};
use crate::store::{SlugRecord, StoreError};

/// Body of `POST /apps/A/slugs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Create {
    process_types: BTreeMap<ProcessType, String>,
    commit: Option<String>,
    /// `SHA256:` and 64 hex digits of the bytes that will be sent.
    checksum: Option<String>,
    /// Name of the stack it was built on; the app's if left out.
    stack: Option<String>,
    buildpack_provided_description: Option<String>,
}

fn id(key: &str) -> Result<SlugId, ApiError> {
    Ok(key.parse().map_err(|_| StoreError::UnknownSlug)?)
}

pub(super) async fn show(State(api): State<Api>, App(_): App, Key(key): Key) -> Answer {
    let slug = api.store.slug(id(&key)?).await?;
    reply::ok(&convert::slug(&slug))
}

/// A slug whose bytes are still to be PUT to its blob url.
pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    Body(body): Body<Create>,
) -> Answer {
    if body.process_types.len() > PROCESS_TYPES_MAX {
        let message = format!("A slug has at most {PROCESS_TYPES_MAX} process types.");
        return Err(ApiError::invalid(message));
    }
    if let Some(process) = body
        .process_types
        .iter()
        .find(|(_, command)| command.contains('\0') || command.len() > COMMAND_BYTES_MAX)
    {
        let message = format!(
            "The command of {} has a NUL byte or is longer than {COMMAND_BYTES_MAX} bytes.",
            process.0
        );
        return Err(ApiError::invalid(message));
    }
    let checksum = body.checksum.as_deref().filter(|text| !text.is_empty());
    let expected = checksum
        .map(str::parse)
        .transpose()
        .map_err(|error: DigestError| ApiError::invalid(error.to_string()))?;
    let stack = match &body.stack {
        Some(name) => apps::known_stack(&api, name)?,
        None => app.stack,
    };
    let now = Timestamp::now();
    let slug = SlugRecord {
        id: SlugId::new(),
        app: app.id,
        digest: None,
        expected,
        size_bytes: 0,
        stack,
        commit: body.commit,
        buildpack: body.buildpack_provided_description,
        processes: body.process_types,
        created: now,
        updated: now,
    };
    api.store.add_slug(slug.clone()).await?;
    reply::created(&convert::slug(&slug))
}

/// Held while an upload becomes a slug's bytes.
static FILLING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Receives the bytes. They are looked at when they are unpacked, by the confined unpacker.
pub(super) async fn fill(State(api): State<Api>, Key(key): Key, request: Request) -> Answer {
    let slug = api.store.slug(id(&key)?).await?;
    let is_filled =
        || ApiError::conflict("That slug has its bytes already: make a new one with POST slugs");
    if slug.digest.is_some() {
        return Err(is_filled());
    }
    // Its name is known only when all is there; the directory is the same, so a rename does it.
    let part = api.paths.slugs().join(format!("{}.upload", secret()));
    let (digest, size_bytes) = files::receive(&part, request.into_body()).await?;
    if let Some(expected) = slug.expected.filter(|expected| *expected != digest) {
        files::remove_file(&part).await;
        return Err(ApiError::invalid(format!(
            "The slug is not the one that was announced: expected SHA256:{expected}, received SHA256:{digest}. Send it again, or make a new slug with its checksum."
        )));
    }
    // Of uploads that race, the first that is complete is taken; the others leave nothing.
    let _one_at_a_time = FILLING.lock().await;
    // Nor are its bytes removed before they are recorded, should they be an old slug's.
    let _storage = api.releases.storage().await;
    if api.store.slug(slug.id).await?.digest.is_some() {
        files::remove_file(&part).await;
        return Err(is_filled());
    }
    let kept = files::place(&part, &api.paths.slug(&digest)).await;
    kept.map_err(|error| ApiError::io("keep the slug", &error))?;
    api.store.fill_slug(slug.id, digest, size_bytes).await?;
    reply::ok(&serde_json::json!({}))
}

pub(super) async fn fetch(State(api): State<Api>, Key(key): Key) -> Answer {
    let slug = api.store.slug(id(&key)?).await?;
    let digest = slug.digest.ok_or(StoreError::UnknownSlug)?;
    let body = files::send(&api.paths.slug(&digest)).await?;
    let body = body.ok_or(StoreError::UnknownSlug)?;
    Ok(([(header::CONTENT_TYPE, "application/gzip")], body).into_response())
}
