//! `/apps/A/features`.

use axum::extract::State;
use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};
use crate::model::Feature;
use crate::store::AppRecord;

async fn all(api: &Api, app: &AppRecord) -> Result<Vec<types::Feature>, ApiError> {
    let on = api.store.features(app.id).await?;
    let shown = |feature: Feature| shown(app, feature, on.contains(&feature));
    Ok(Feature::ALL.into_iter().map(shown).collect())
}

fn shown(app: &AppRecord, feature: Feature, is_on: bool) -> types::Feature {
    types::Feature {
        id: convert::derived_id("feature", feature.name()),
        name: feature.name().to_owned(),
        display_name: feature.name().to_owned(),
        description: feature.description().to_owned(),
        doc_url: String::new(),
        feedback_email: String::new(),
        enabled: is_on,
        state: "general".to_owned(),
        created_at: convert::second(app.created),
        updated_at: convert::second(app.updated),
    }
}

fn named(features: Vec<types::Feature>, key: &str) -> Result<types::Feature, ApiError> {
    let is_it = |feature: &types::Feature| feature.name == key || feature.id.to_string() == key;
    let found = features.into_iter().find(is_it);
    found.ok_or_else(|| ApiError::not_found("feature"))
}

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    range::list(&headers, &["name", "id"], &all(&api, &app).await?)
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    reply::ok(&named(all(&api, &app).await?, &key)?)
}

pub(super) async fn update(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Key(key): Key,
    Body(body): Body<types::FeatureUpdate>,
) -> Answer {
    let name = named(all(&api, &app).await?, &key)?.name;
    let feature: Feature = name.parse()?;
    if feature == Feature::HttpForceSsl && body.enabled && api.settings.https.is_empty() {
        return Err(ApiError::invalid(super::certs::NO_TLS));
    }
    if api.store.set_feature(app.id, feature, body.enabled).await? {
        let verb = if body.enabled { "Enable" } else { "Disable" };
        let line = format!("{verb} {feature} feature by user {}", caller.email);
        api.hub.api(app.id, line);
        api.releases.publish(app.id).await?;
    }
    reply::ok(&shown(&app, feature, body.enabled))
}
