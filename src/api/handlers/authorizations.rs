//! `/oauth/authorizations`: tokens for callers that the kernel does not know.

use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::convert;
use crate::api::error::ApiError;
use crate::api::extract::{Body, Key};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::sessions::secret;
use crate::api::state::Api;
use crate::api::types::AuthorizationCreate;
use crate::store::{AuthorizationRecord, StoreError};

/// Longest life of a token in seconds: ten years.
const EXPIRES_MAX: i64 = 10 * 366 * 24 * 3600;

pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<AuthorizationCreate>,
) -> Answer {
    let now = Timestamp::now();
    let description = body.description.unwrap_or_default();
    if description.len() > 255 || description.contains(char::is_control) {
        return Err(ApiError::invalid(
            "description is a text of at most 255 characters in one line",
        ));
    }
    let expires = match body.expires_in {
        None => None,
        Some(seconds @ 1..=EXPIRES_MAX) => Some(now + SignedDuration::from_secs(seconds)),
        Some(_) => {
            return Err(ApiError::invalid(format!(
                "expires_in is a number of seconds between 1 and {EXPIRES_MAX}"
            )));
        }
    };
    let record = AuthorizationRecord {
        id: Uuid::new_v4(),
        user: caller.email,
        description,
        created: now,
        expires,
    };
    let token = secret() + &secret();
    api.store.add_authorization(record.clone(), &token).await?;
    reply::created(&shape(&record, Some(&token)))
}

pub(super) async fn list(State(api): State<Api>) -> Answer {
    let records = api.store.authorizations().await?;
    let shapes: Vec<Value> = records.iter().map(|record| shape(record, None)).collect();
    reply::ok(&shapes)
}

pub(super) async fn show(State(api): State<Api>, Key(key): Key) -> Answer {
    let records = api.store.authorizations().await?;
    let found = records
        .iter()
        .find(|record| record.id.to_string() == key)
        .ok_or(StoreError::UnknownAuthorization)?;
    reply::ok(&shape(found, None))
}

pub(super) async fn destroy(State(api): State<Api>, Key(key): Key) -> Answer {
    let id = key.parse().map_err(|_| StoreError::UnknownAuthorization)?;
    let record = api.store.remove_authorization(id).await?;
    reply::ok(&shape(&record, None))
}

/// The token itself is shown once: only its digest is kept.
fn shape(record: &AuthorizationRecord, token: Option<&str>) -> Value {
    let left = record
        .expires
        .map(|expires| (expires.as_second() - Timestamp::now().as_second()).max(0));
    let user = convert::user(&record.user);
    json!({
        "id": record.id,
        "description": record.description,
        "scope": ["global"],
        "access_token": { "id": record.id, "token": token, "expires_in": left },
        "user": { "id": user.id, "email": user.email, "full_name": user.email },
        "created_at": convert::second(record.created),
        "updated_at": convert::second(record.created),
    })
}
