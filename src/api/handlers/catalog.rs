//! What there is to choose from: stacks, sizes, the one region.

use axum::extract::State;
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::convert;
use crate::api::error::ApiError;
use crate::api::extract::Key;
use crate::api::range;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::types;
use crate::model::{DynoSize, StackName};

/// The embedded stack and those whose run image lies in the state directory.
pub(super) fn installed(api: &Api) -> Vec<StackName> {
    let mut stacks = vec![StackName::host()];
    if let Ok(entries) = std::fs::read_dir(api.paths.stacks()) {
        stacks.extend(
            entries
                .filter_map(Result::ok)
                .filter(|entry| entry.path().join("run").exists())
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok()),
        );
    }
    stacks.sort();
    stacks.dedup();
    stacks
}

fn all_stacks(api: &Api) -> Vec<types::Stack> {
    let stacks = installed(api);
    let default = |name: &StackName| *name == api.settings.stack;
    stacks
        .iter()
        .map(|name| convert::stack(name, default(name)))
        .collect()
}

pub(super) async fn stacks(State(api): State<Api>, headers: HeaderMap) -> Answer {
    range::list(&headers, &["name", "id"], &all_stacks(&api))
}

pub(super) async fn stack(State(api): State<Api>, Key(key): Key) -> Answer {
    let mut stacks = all_stacks(&api).into_iter();
    let found = stacks.find(|stack| stack.name == key || stack.id.to_string() == key);
    reply::ok(&found.ok_or_else(|| ApiError::not_found("stack"))?)
}

fn all_sizes() -> Vec<types::Size> {
    DynoSize::all().iter().map(convert::size).collect()
}

pub(super) async fn sizes(headers: HeaderMap) -> Answer {
    range::list(&headers, &["name", "id"], &all_sizes())
}

pub(super) async fn size(Key(key): Key) -> Answer {
    let mut sizes = all_sizes().into_iter();
    let found =
        sizes.find(|size| size.name.eq_ignore_ascii_case(&key) || size.id.to_string() == key);
    reply::ok(&found.ok_or_else(|| ApiError::not_found("dyno size"))?)
}

fn local() -> Value {
    json!({
        "id": convert::derived_id("region", "local"),
        "name": "local",
        "description": "this machine",
        "country": "",
        "locale": "",
        "private_capable": false,
        "provider": { "name": "manifold", "region": "local" },
        "created_at": Timestamp::UNIX_EPOCH,
        "updated_at": Timestamp::UNIX_EPOCH,
    })
}

pub(super) async fn regions(headers: HeaderMap) -> Answer {
    range::list(&headers, &["name", "id"], &[local()])
}

pub(super) async fn region(Key(key): Key) -> Answer {
    let region = local();
    if region["name"] == key.as_str() || region["id"] == key.as_str() {
        return reply::ok(&region);
    }
    Err(ApiError::not_found("region"))
}
