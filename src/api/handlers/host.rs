//! `/host`: what this host cannot enforce, and what stands in the way of its dynos.

use axum::extract::State;
use serde_json::json;

use crate::api::reply::{self, Answer};
use crate::api::state::Api;

pub(super) async fn show(State(api): State<Api>) -> Answer {
    reply::ok(&json!({ "notices": api.supervisor.notices() }))
}
