//! `/host`: what this host cannot enforce, what stands in the way of its dynos, and which supervisor
//! runs it.

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;

use crate::api::error::ApiError;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;

pub(super) async fn show(State(api): State<Api>) -> Answer {
    reply::ok(&json!({
        "notices": api.supervisor.notices(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
    }))
}

/// Makes way for the version that is installed now.
pub(super) async fn upgrade(State(api): State<Api>) -> Answer {
    let message = api
        .upgrades
        .ask()
        .await
        .map_err(|why| ApiError::invalid(format!("The supervisor stays as it is: {why}")))?;
    let what = json!({ "message": message, "pid": std::process::id() });
    reply::json(StatusCode::ACCEPTED, &what)
}
