//! Successful answers: JSON with an `ETag`.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::ApiError;

/// What handlers return.
pub(super) type Answer = Result<Response, ApiError>;

/// 200 and JSON.
pub(super) fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}

/// 201 and JSON.
pub(super) fn created(value: &impl Serialize) -> Answer {
    json(StatusCode::CREATED, value)
}

/// 202 and `{}`.
pub(super) fn accepted() -> Answer {
    json(StatusCode::ACCEPTED, &serde_json::json!({}))
}

/// JSON with its `ETag` (32 hex digits of its sha256).
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body =
        serde_json::to_vec(value).map_err(|error| ApiError::internal("write JSON", &error))?;
    let digest: [u8; 32] = Sha256::digest(&body).into();
    let hex = crate::model::Digest(digest).to_string();
    let mut response = (status, Body::from(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let tag = HeaderValue::try_from(format!("\"{}\"", &hex[..32])).expect("hex digits are ASCII");
    headers.insert(header::ETAG, tag);
    Ok(response)
}
