//! Carrying a build from its record to its release.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;

use super::error::{ApiError, chain};
use super::files;
use super::state::Api;
use crate::build::{self, BuildOrder, Built, Output, Rest};
use crate::model::{AppId, BuildId, Buildpack, Digest, DynoSize, ReleaseId, ReleaseStatus, SlugId};
use crate::release::{self, Order, Reason};
use crate::slug::Lately;
use crate::store::{AppRecord, BuildRecord, BuildStatus, SlugRecord};

/// Builds of one app that may wait behind the one that runs; beyond, new ones are refused.
const WAITING_MAX: usize = 8;

/// Builds that wait or run.
#[derive(Debug, Default)]
pub(super) struct Builds {
    outputs: Mutex<HashMap<BuildId, Output>>,
    lines: Mutex<HashMap<AppId, Line>>,
    /// What the last slugs are made of.
    lately: Lately,
}

/// The waiting line of one app.
#[derive(Clone, Debug, Default)]
struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Running and waiting.
    count: Arc<AtomicUsize>,
}

/// A place in the line; left when dropped.
#[derive(Debug)]
struct Place(Line);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Builds {
    fn queue(&self, app: &AppRecord) -> Result<Place, ApiError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|id, line| *id == app.id || line.count.load(Ordering::Relaxed) > 0);
        let line = lines.entry(app.id).or_default().clone();
        if line.count.load(Ordering::Relaxed) > WAITING_MAX {
            return Err(ApiError::too_many(format!(
                "{WAITING_MAX} builds of {} wait already. Try again when one of them ended.",
                app.name
            )));
        }
        line.count.fetch_add(1, Ordering::Relaxed);
        Ok(Place(line))
    }

    /// The output of a build that waits or runs.
    pub(super) fn output(&self, id: BuildId) -> Option<Output> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        outputs.get(&id).cloned()
    }

    fn set_output(&self, id: BuildId, output: Option<Output>) {
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        match output {
            Some(output) => outputs.insert(id, output),
            None => outputs.remove(&id),
        };
    }
}

/// Where the output of a build is kept.
pub(super) fn output_path(api: &Api, id: BuildId) -> PathBuf {
    api.paths.outputs().join(format!("{id}.log"))
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) app: AppRecord,
    pub(super) user: String,
    pub(super) archive: PathBuf,
    pub(super) source_url: String,
    pub(super) checksum: Option<Digest>,
    pub(super) version: Option<String>,
    /// Of this build alone; none: the app's.
    pub(super) buildpacks: Vec<Buildpack>,
    /// Commit and path of each submodule.
    pub(super) submodules: Vec<(String, String)>,
}

/// A build that was taken on.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) record: BuildRecord,
    pub(super) output: Output,
}

/// Records the build and starts it (or puts it in line). The archive is removed in the end.
pub(super) async fn start(api: &Api, request: Request) -> Result<Started, ApiError> {
    if api.stop.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let place = api.builds.queue(&request.app)?;
    let now = Timestamp::now();
    let record = BuildRecord {
        id: BuildId::new(),
        app: request.app.id,
        user: request.user.clone(),
        status: BuildStatus::Pending,
        stack: request.app.stack.clone(),
        source_url: request.source_url.clone(),
        checksum: request.checksum.map(|digest| format!("SHA256:{digest}")),
        version: request.version.clone(),
        buildpacks: request.buildpacks.clone(),
        slug: None,
        release: None,
        created: now,
        updated: now,
    };
    let output = Output::create(&output_path(api, record.id))
        .map_err(|error| ApiError::io("keep the build's output", &error))?;
    api.store.add_build(record.clone()).await?;
    api.builds.set_output(record.id, Some(output.clone()));
    let task = api.clone();
    let id = record.id;
    let writer = output.clone();
    api.tasks.spawn(async move {
        carry(&task, id, request, &writer, place).await;
        // The record is final before readers see the end of the output.
        writer.finish();
        task.builds.set_output(id, None);
    });
    Ok(Started { record, output })
}

async fn carry(api: &Api, id: BuildId, request: Request, output: &Output, place: Place) {
    let _turn = wait_in_line(&place, output).await;
    let outcome = attempt(api, id, &request, output).await;
    files::remove_file(&request.archive).await;
    let (status, slug, release) = if let Ok((slug, release)) = outcome {
        (BuildStatus::Succeeded, Some(slug), Some(release))
    } else {
        log_failure(api, id, request.app.id).await;
        (BuildStatus::Failed, None, None)
    };
    let recorded = api.store.finish_build(id, status, slug, release).await;
    if let Err(error) = recorded {
        tracing::error!(build = %id, error = %chain(&error), "build not recorded");
    }
}

/// Says so in the app's log, unless the app is gone (its log must not come back).
async fn log_failure(api: &Api, id: BuildId, app: AppId) {
    if matches!(api.store.state(app).await, Ok(Some(_))) {
        let line = format!("Build failed -- check your build output: /builds/{id}/output");
        api.hub.api(app, line);
    }
}

/// One build at a time per app; first come, first served.
async fn wait_in_line(place: &Place, output: &Output) -> OwnedMutexGuard<()> {
    let turn = Arc::clone(&place.0.turn);
    if let Ok(turn) = Arc::clone(&turn).try_lock_owned() {
        return turn;
    }
    output.step("Waiting for an earlier build of this app to finish...");
    turn.lock_owned().await
}

/// A build that made no release; its output says why.
#[derive(Debug)]
struct GaveUp;

/// Builds and releases. What went wrong is in the output.
async fn attempt(
    api: &Api,
    id: BuildId,
    request: &Request,
    output: &Output,
) -> Result<(SlugId, ReleaseId), GaveUp> {
    let (app, user) = (&request.app, &request.user);
    let give_up = |what: &str, error: &dyn std::error::Error| {
        tracing::warn!(app = %app.name, build = %id, error = %chain(error), "{what}");
        output.error(&format!("{what}: {}", chain(error)));
        output.error("");
        output.error("Push failed");
        GaveUp
    };
    let release = match api.store.current_release(app.id).await {
        Ok(release) => release,
        Err(error) => return Err(give_up("The app cannot be built", &error)),
    };
    let buildpacks = if request.buildpacks.is_empty() {
        match api.store.buildpacks(app.id).await {
            Ok(buildpacks) => buildpacks,
            Err(error) => return Err(give_up("The app cannot be built", &error)),
        }
    } else {
        request.buildpacks.clone()
    };
    api.hub.api(app.id, format!("Build started by user {user}"));
    let before = match api.store.last_built(app.id).await {
        Ok(before) => before.and_then(|slug| Some((slug.digest?, slug.size_bytes))),
        Err(error) => return Err(give_up("The app cannot be built", &error)),
    };
    // No slug's bytes are removed before the new slug is recorded: it may be the same.
    let storage = api.releases.storage().await;
    let order = BuildOrder {
        id,
        app: (app.id, app.name.clone()),
        stack: app.stack.clone(),
        archive: request.archive.clone(),
        checksum: request.checksum,
        config: release.config,
        version: request.version.clone(),
        buildpacks,
        submodules: request.submodules.clone(),
        size: DynoSize::find("Standard-2X").unwrap_or_default(),
        time_max: api.settings.timings.build,
        before,
        lately: api.builds.lately.clone(),
    };
    // In a task of its own: a panic there must not leave the build pending for ever.
    let (task_api, task_output) = (api.clone(), output.clone());
    let building = tokio::spawn(async move {
        build::run(&task_api.supervisor, &task_api.paths, order, &task_output).await
    });
    let built = match building.await {
        Ok(Ok(built)) => built,
        // The output already says so in the contract's words.
        Ok(Err(error)) => {
            tracing::info!(app = %app.name, build = %id, error = %chain(&error), "build failed");
            return Err(GaveUp);
        }
        Err(error) => return Err(give_up("Internal error", &error)),
    };
    let (slug, rest) = slug_record(app, request, built);
    let slug_id = slug.id;
    let description = release::deploy(request.version.as_deref(), slug.digest.as_ref());
    if let Err(error) = api.store.add_slug(slug).await {
        return Err(give_up("The slug was not recorded", &error));
    }
    drop(storage);
    output.step("Launching...");
    let order = Order {
        app: app.id,
        user: user.clone(),
        reason: Reason::Deploy {
            slug: slug_id,
            description,
            then_log: Some("Build succeeded".to_owned()),
        },
    };
    let created = api.releases.create_when_free(order).await;
    drop(rest);
    match created {
        Ok(created) => {
            let release = &created.release;
            if release.status == ReleaseStatus::Pending {
                output.error("Release command declared: this new release will not be available until the command succeeds.");
            }
            output.detail(&format!("Released {}", release.version));
            let url = api.settings.web_url(&app.name);
            output.detail(&format!("{url} deployed to manifold"));
            Ok((slug_id, release.id))
        }
        Err(error) => Err(give_up("The slug was not released", &error)),
    }
}

fn slug_record(app: &AppRecord, request: &Request, built: Built) -> (SlugRecord, Rest) {
    let now = Timestamp::now();
    let record = SlugRecord {
        id: SlugId::new(),
        app: app.id,
        digest: Some(built.digest),
        expected: None,
        size_bytes: built.size_bytes,
        stack: app.stack.clone(),
        commit: request.version.clone(),
        buildpack: Some(built.buildpack),
        processes: built.process_types,
        created: now,
        updated: now,
    };
    (record, built.rest)
}
