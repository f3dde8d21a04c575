//! What there is to choose from: stacks, sizes, the one region.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::convert;
use crate::api::error::ApiError;
use crate::api::extract::{App, Key};
use crate::api::peer::Caller;
use crate::api::range;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::types;
use crate::model::{DynoSize, StackName};
use crate::release::Upgrade;
use crate::rootfs::{StackVersion, Versions};
use crate::supervisor::AppView;

/// The embedded stack, those with a build in the state directory, and other names of them.
pub(super) fn installed(api: &Api) -> Vec<StackName> {
    Versions::new(&api.paths).names()
}

fn all_stacks(api: &Api) -> Vec<types::Stack> {
    let versions = Versions::new(&api.paths);
    let all = versions.all();
    let stack = |name: StackName| {
        let target = versions.resolve(&name);
        let own = all.iter().filter(|version| version.name == target);
        let own = own.enumerate().map(|(place, version)| types::StackVersion {
            digest: version.digest.to_string(),
            built_at: convert::second(version.built),
            origin: version.origin.clone(),
            run_bytes: version.run.bytes,
            build_bytes: version.build.bytes,
            apps: apps_on(api, &versions, version, place == 0),
            sources: version.sources.clone(),
            run_packages: version.run.packages.clone(),
            build_packages: version.build.packages.clone(),
        });
        let own = own.collect();
        let stands_for = (target != name).then_some(target);
        convert::stack(&name, name == api.settings.stack, stands_for, own)
    };
    versions.names().into_iter().map(stack).collect()
}

/// Apps whose current release runs on a version; without one of its own it runs on the newest.
fn apps_on(api: &Api, versions: &Versions, version: &StackVersion, is_newest: bool) -> Vec<String> {
    let snapshot = api.supervisor.snapshot();
    let is_on = |view: &&Arc<AppView>| {
        let release = view.spec.release.as_ref().filter(|r| r.slug.is_some());
        release.is_some_and(|release| match release.stack.version {
            Some(own) => own == version.digest,
            None => is_newest && versions.resolve(&release.stack.name) == version.name,
        })
    };
    let mut apps: Vec<String> = snapshot
        .apps
        .values()
        .filter(is_on)
        .map(|view| view.spec.name.to_string())
        .collect();
    apps.sort();
    apps
}

/// Records of hundreds of packages are read from disk.
async fn read_stacks(api: &Api) -> Result<Vec<types::Stack>, ApiError> {
    let api = api.clone();
    let read = tokio::task::spawn_blocking(move || all_stacks(&api)).await;
    read.map_err(|error| ApiError::internal("list the stacks", &error))
}

pub(super) async fn stacks(State(api): State<Api>, headers: HeaderMap) -> Answer {
    let mut stacks = read_stacks(&api).await?;
    for version in stacks.iter_mut().flat_map(|stack| &mut stack.versions) {
        version.run_packages = Vec::new();
        version.build_packages = Vec::new();
    }
    range::list(&headers, &["name", "id"], &stacks)
}

pub(super) async fn stack(State(api): State<Api>, Key(key): Key) -> Answer {
    let mut stacks = read_stacks(&api).await?.into_iter();
    let found = stacks.find(|stack| stack.name == key || stack.id.to_string() == key);
    reply::ok(&found.ok_or_else(|| ApiError::not_found("stack"))?)
}

/// Moves an app to the newest build of its stack: a release that is pending until it was tried, or
/// the current one if that runs on the newest.
pub(super) async fn upgrade(State(api): State<Api>, App(app): App, caller: Caller) -> Answer {
    match api.releases.upgrade_stack(app.id, caller.email).await? {
        Upgrade::Begun(created) => reply::created(&convert::release(&app, &created.release, false)),
        Upgrade::Newest(_) => {
            let current = api.store.current_release(app.id).await?;
            reply::ok(&convert::release(&app, &current, true))
        }
    }
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
