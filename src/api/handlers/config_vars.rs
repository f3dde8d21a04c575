//! `/apps/A/config-vars`.

use std::collections::BTreeMap;

use axum::extract::State;
use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::release::{Order, Reason};

pub(super) async fn show(State(api): State<Api>, App(app): App) -> Answer {
    let release = api.store.current_release(app.id).await?;
    reply::ok(&release.config)
}

/// One PATCH is one release and one restart, however many keys it has; an empty one is none.
/// With a release phase the answer shows the map as it will be.
pub(super) async fn update(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<BTreeMap<String, Value>>,
) -> Answer {
    let change = texts(body)?;
    if change.is_empty() {
        let release = api.store.current_release(app.id).await?;
        return reply::ok(&release.config);
    }
    let order = Order {
        app: app.id,
        user: caller.email,
        reason: Reason::Config(change),
    };
    let created = api.releases.create(order).await?;
    reply::ok(&created.release.config)
}

/// Values are text, or null to remove.
fn texts(body: BTreeMap<String, Value>) -> Result<BTreeMap<String, Option<String>>, ApiError> {
    body.into_iter()
        .map(|(key, value)| match value {
            Value::Null => Ok((key, None)),
            Value::String(text) => Ok((key, Some(text))),
            _ => Err(ApiError::invalid(format!(
                "The value of config var {key} must be text (or null to remove it)."
            ))),
        })
        .collect()
}
