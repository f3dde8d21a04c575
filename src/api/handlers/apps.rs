//! `/apps`.

use std::path::PathBuf;

use axum::extract::State;
use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Whole, whole};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{builds, convert, files, names, range, types};
use crate::model::{AppId, AppName, StackName};
use crate::release::ReleaseError;
use crate::store::{AppChange, AppRecord, NewApp, Removed, StoreError};

/// Generated names tried before giving up; a clash is one in half a million.
const NAME_ATTEMPTS: u32 = 16;

pub(super) async fn list(State(api): State<Api>, headers: HeaderMap) -> Answer {
    let states = api.store.states().await?;
    let apps: Vec<types::App> = states
        .iter()
        .map(|state| convert::app(&api.settings, state))
        .collect();
    range::list(&headers, &["name", "id", "updated_at"], &apps)
}

pub(super) async fn show(State(api): State<Api>, Whole(state): Whole) -> Answer {
    reply::ok(&convert::app(&api.settings, &state))
}

pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<types::AppCreate>,
) -> Answer {
    let stack = match &body.stack {
        Some(name) => known_stack(&api, name)?,
        None => api.settings.stack.clone(),
    };
    if let Some(region) = body.region.as_deref().filter(|region| *region != "local") {
        return Err(ApiError::invalid(format!(
            "There is no region {region} here: the only one is `local`."
        )));
    }
    let given: Option<AppName> = body.name.as_deref().map(str::parse).transpose()?;
    let app = make(&api, &caller, given, stack).await?;
    let state = whole(&api, app.id).await?;
    reply::created(&convert::app(&api.settings, &state))
}

async fn make(
    api: &Api,
    caller: &Caller,
    given: Option<AppName>,
    stack: StackName,
) -> Result<AppRecord, ApiError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let new = NewApp {
            name: given.clone().unwrap_or_else(names::generate),
            owner: caller.email.clone(),
            stack: stack.clone(),
        };
        match api.releases.create_app(new).await {
            Err(ReleaseError::Store(StoreError::NameTaken(_)))
                if given.is_none() && attempts < NAME_ATTEMPTS => {}
            other => return Ok(other?),
        }
    }
}

/// A stack that is installed.
pub(super) fn known_stack(api: &Api, name: &str) -> Result<StackName, ApiError> {
    let stack: StackName = name.parse()?;
    if super::catalog::installed(api).contains(&stack) {
        return Ok(stack);
    }
    Err(ApiError::invalid(format!(
        "Stack {name} is not installed. `manifold stacks` lists those that are; `manifold stacks:build` makes one."
    )))
}

pub(super) async fn update(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::AppUpdate>,
) -> Answer {
    let stack = body.build_stack.as_deref();
    let change = AppChange {
        name: body.name.as_deref().map(str::parse).transpose()?,
        maintenance: body.maintenance,
        stack: stack.map(|name| known_stack(&api, name)).transpose()?,
        routing: None,
    };
    let changed = api.store.update_app(app.id, change).await?;
    if changed.maintenance != app.maintenance {
        let mode = if changed.maintenance {
            "enabled"
        } else {
            "disabled"
        };
        let line = format!("Maintenance mode {mode} by user {}", caller.email);
        api.hub.api(app.id, line);
    }
    if changed.name != app.name {
        let line = format!("Renamed to {} by user {}", changed.name, caller.email);
        api.hub.api(app.id, line);
    }
    api.releases.publish(app.id).await?;
    let state = whole(&api, app.id).await?;
    reply::ok(&convert::app(&api.settings, &state))
}

pub(super) async fn destroy(State(api): State<Api>, Whole(state): Whole) -> Answer {
    let app = convert::app(&api.settings, &state);
    // In a task of its own: once begun it is finished, also when the client goes away.
    let task_api = api.clone();
    let id = state.app.id;
    let task = api.tasks.spawn(async move {
        let removed = task_api.releases.delete_app(id).await?;
        remove_files(&task_api, id, removed).await;
        // And what only its releases needed.
        task_api.releases.collect().await;
        Ok::<(), ReleaseError>(())
    });
    task.await
        .map_err(|error| ApiError::internal("destroy the app", &error))??;
    reply::ok(&app)
}

async fn remove_files(api: &Api, app: AppId, removed: Removed) {
    files::remove_tree(&api.paths.cache(app)).await;
    files::remove_file(&api.paths.cache_image(app)).await;
    files::remove_tree(&api.paths.repository(app)).await;
    for digest in removed.slugs {
        files::remove_file(&api.paths.slug(&digest)).await;
        files::remove_tree(&api.paths.tree(&digest)).await;
    }
    let outputs = api.paths.outputs();
    let builds = removed
        .builds
        .into_iter()
        .map(|id| builds::output_path(api, id));
    let releases = removed.releases.into_iter();
    let releases = releases.map(|id| outputs.join(format!("{id}.log")));
    for path in builds.chain(releases).collect::<Vec<PathBuf>>() {
        files::remove_file(&path).await;
    }
}
