//! The release phase: a one-off dyno with the new slug and config, before anything rolls.
//! Source: Dev Center, "Release Phase".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Releases, publish};
use crate::model::{AppId, DynoSize, ExitStatus, ProcessType, ReleaseStatus};
use crate::store::{CreatedRelease, StoreError};
use crate::supervisor::{CommandError, ReleaseSpec, RunKind, RunOrder};

impl Releases {
    /// When a release phase is over for certain: its own limit, then the stop of its dyno.
    pub(super) fn phase_deadline(&self) -> Duration {
        let timings = &self.inner.settings.timings;
        timings.release_timeout + timings.stop_grace + Duration::from_secs(30)
    }
}

/// Runs the phase of a pending release in a task of its own and records how it ended.
pub(super) fn start(releases: &Releases, created: &CreatedRelease, user: String) {
    let releases = releases.clone();
    let release = created.release.clone();
    let spec = publish::release_spec(&release, created.slug.as_ref());
    let task = releases.clone();
    releases.inner.tasks.spawn(async move {
        let hub = &task.inner.hub;
        hub.api(
            release.app,
            format!(
                "Running release {} commands by user {user}",
                release.version
            ),
        );
        let succeeded = run(&task, release.app, Arc::new(spec), &user).await;
        let turn = task.turn(release.app).await;
        match task.inner.store.finish_release(release.id, succeeded).await {
            Ok(finished) if finished.release.status == ReleaseStatus::Succeeded => {
                task.log_scaled(&finished, &user);
                if let Err(error) = task.publish_in_turn(release.app, &turn).await {
                    tracing::error!(app = %release.app, %error, "release not applied");
                }
            }
            Ok(_) => hub.api(
                release.app,
                format!(
                    "Release {} failed: its release command did not succeed",
                    release.version
                ),
            ),
            // The app was destroyed meanwhile.
            Err(StoreError::UnknownRelease) => {}
            Err(error) => tracing::error!(app = %release.app, %error, "release not recorded"),
        }
        task.inner.phase_ended.notify_waiters();
    });
}

/// True if the command ran and exited with 0 in time.
async fn run(releases: &Releases, app: AppId, spec: Arc<ReleaseSpec>, user: &str) -> bool {
    let slug = spec.slug.as_ref();
    let command = slug.and_then(|slug| slug.process_types.get(&ProcessType::release()));
    let Some(command) = command.cloned() else {
        return true;
    };
    let order = RunOrder {
        app,
        kind: RunKind::Detached {
            release: Some(spec),
        },
        process: ProcessType::release(),
        command,
        env: BTreeMap::new(),
        size: DynoSize::default(),
        time_to_live: Some(releases.inner.settings.timings.release_timeout),
    };
    let started = match releases.inner.supervisor.run(order, user).await {
        Ok(started) => started,
        // Destroyed meanwhile: its log must not come back.
        Err(CommandError::UnknownApp) => return false,
        Err(error) => {
            let line = format!("Release command did not start: {error}");
            releases.inner.hub.platform(app, "release", line);
            return false;
        }
    };
    let exit = tokio::time::timeout(releases.phase_deadline(), started.exit).await;
    matches!(exit, Ok(Ok(Ok(ExitStatus(0)))))
}
