//! `/apps/A/releases`.

use axum::extract::State;
use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};
use crate::model::{ReleaseStatus, SlugId};
use crate::release::{self, Order, Reason};
use crate::store::{AppRecord, ReleaseRecord, StoreError};

async fn all(api: &Api, app: &AppRecord) -> Result<Vec<ReleaseRecord>, ApiError> {
    Ok(api.store.releases(app.id).await?)
}

fn current(records: &[ReleaseRecord]) -> Option<&ReleaseRecord> {
    let mut succeeded = records.iter().rev();
    succeeded.find(|record| record.status == ReleaseStatus::Succeeded)
}

fn shape(app: &AppRecord, records: &[ReleaseRecord], record: &ReleaseRecord) -> types::Release {
    let is_current = current(records).is_some_and(|current| current.id == record.id);
    convert::release(app, record, is_current)
}

/// By id, `v12`, `12` or `current`.
fn find<'a>(records: &'a [ReleaseRecord], key: &str) -> Result<&'a ReleaseRecord, ApiError> {
    if key == "current" {
        return current(records).ok_or_else(|| ApiError::not_found("release"));
    }
    let number = key.strip_prefix('v').unwrap_or(key).parse().ok();
    let mut matching = records.iter();
    let found =
        matching.find(|record| Some(record.version.0) == number || record.id.to_string() == key);
    found.ok_or_else(|| StoreError::UnknownRelease.into())
}

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    let records = all(&api, &app).await?;
    let releases = records.iter().map(|record| shape(&app, &records, record));
    let releases: Vec<types::Release> = releases.collect();
    range::list(&headers, &["version", "id"], &releases)
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let records = all(&api, &app).await?;
    let record = find(&records, &key)?;
    let mut release = shape(&app, &records, record);
    if let Some(slug) = record.slug {
        release.stack = Some(api.store.slug(slug).await?.stack.to_string());
    }
    reply::ok(&release)
}

pub(super) async fn config_vars(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let records = all(&api, &app).await?;
    reply::ok(&find(&records, &key)?.config)
}

pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::ReleaseCreate>,
) -> Answer {
    let reason = match (&body.slug, &body.release) {
        (Some(slug), None) => {
            let id: SlugId = slug.parse().map_err(|_| StoreError::UnknownSlug)?;
            let slug = api.store.slug(id).await?;
            if slug.digest.is_none() {
                return Err(ApiError::invalid(
                    "That slug has no bytes yet: PUT them to its blob url first",
                ));
            }
            let default = release::deploy(slug.commit.as_deref(), slug.digest.as_ref());
            let given = body.description.as_deref().map(one_line).transpose()?;
            Reason::Deploy {
                slug: id,
                description: given.unwrap_or(default),
                then_log: None,
            }
        }
        (None, Some(key)) => {
            let records = all(&api, &app).await?;
            let target = find(&records, key)?;
            Reason::Rollback(target.id, target.version)
        }
        _ => return Err(ApiError::invalid("give exactly one of slug and release")),
    };
    let order = Order {
        app: app.id,
        user: caller.email,
        reason,
    };
    let created = api.releases.create(order).await?;
    let is_current = created.release.status == ReleaseStatus::Succeeded;
    reply::created(&convert::release(&app, &created.release, is_current))
}

/// Descriptions are shown in tables and logged.
fn one_line(text: &str) -> Result<String, ApiError> {
    if text.len() > 255 || text.contains(char::is_control) {
        let message = "description is a text of at most 255 characters in one line";
        return Err(ApiError::invalid(message));
    }
    Ok(text.to_owned())
}
