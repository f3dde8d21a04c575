//! Reading requests: the app of a path, JSON bodies, ids in paths.

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::state::Api;
use crate::model::AppId;
use crate::store::{AppRecord, AppState};

/// Largest JSON body in bytes; 64 KB of config vars, all escaped, fit.
const BODY_MAX: usize = 1 << 20;

/// The app that `{app}` in the path names, by id or name.
#[derive(Clone, Debug)]
pub(super) struct App(pub(super) AppRecord);

impl FromRequestParts<Api> for App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let key = param(parts, api, "app").await?;
        Ok(Self(api.store.app(&key).await?))
    }
}

/// As [`App`], with all that belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Whole(pub(super) AppState);

impl FromRequestParts<Api> for Whole {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let App(app) = App::from_request_parts(parts, api).await?;
        whole(api, app.id).await.map(Self)
    }
}

/// The state of an app that was just found.
pub(super) async fn whole(api: &Api, app: AppId) -> Result<AppState, ApiError> {
    let state = api.store.state(app).await?;
    state.ok_or_else(|| ApiError::not_found("app"))
}

async fn param(parts: &mut Parts, api: &Api, name: &str) -> Result<String, ApiError> {
    let params = RawPathParams::from_request_parts(parts, api).await;
    let params = params.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let value = params.iter().find(|(key, _)| *key == name);
    value
        .map(|(_, value)| value.to_owned())
        .ok_or_else(ApiError::no_such_endpoint)
}

/// The last part of a path: `{key}`, decoded.
#[derive(Clone, Debug)]
pub(super) struct Key(pub(super) String);

impl FromRequestParts<Api> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        param(parts, api, "key").await.map(Self)
    }
}

/// A JSON body. An empty one counts as `{}`; the content type is not looked at.
#[derive(Clone, Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _api: &Api) -> Result<Self, ApiError> {
        let bytes = to_bytes(request.into_body(), BODY_MAX).await;
        let bytes = bytes.map_err(|error| {
            let message = format!("The body was not read ({error}); at most 1 MiB is allowed.");
            ApiError::bad_request(message)
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text);
        value.map(Self).map_err(|error| {
            if error.is_data() {
                ApiError::invalid(format!("The body does not fit: {error}"))
            } else {
                ApiError::bad_request(format!("The body is not JSON: {error}"))
            }
        })
    }
}
