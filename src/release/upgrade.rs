//! Another build of an app's stack under the same slug (a rebase): pending until every dyno of the
//! app was seen to run on it, one of them first; else the app stays on, or goes back to, the build
//! that it had. Source: Twelve-Factor's "erosion resistance" as Heroku's stack upgrades have it.

use std::time::Duration;

use super::{ReleaseError, Releases, publish};
use crate::model::{AppId, ReleaseId, StackName};
use crate::store::{Change, CreatedRelease, NewRelease, StoreError};
use crate::supervisor::{Trial, app_view};

/// Longest trial: each dyno may take its boot timeout, one after the other.
const TRIAL: Duration = Duration::from_mins(30);

/// What became of the wish for a newer build of the stack.
#[derive(Clone, Debug)]
pub enum Upgrade {
    /// A release is on trial.
    Begun(Box<CreatedRelease>),
    /// The app runs on the newest build there is.
    Newest(StackName),
}

impl Releases {
    /// Moves an app to the newest build of its stack. Returns once the first dyno is being
    /// started; the release is pending until all of them run.
    ///
    /// # Errors
    /// [`ReleaseError::NoStack`]; see [`ReleaseError`].
    pub async fn upgrade_stack(&self, app: AppId, user: String) -> Result<Upgrade, ReleaseError> {
        let turn = self.turn(app).await;
        let storage = self.storage().await;
        let state = self.inner.store.state(app).await?;
        let state = state.ok_or(StoreError::UnknownApp)?;
        let slug = state.slug.as_ref().ok_or(ReleaseError::NoSlug)?;
        let stack = slug.stack.clone();
        let newest = self.newest_stack(&stack).await;
        let newest = newest.ok_or_else(|| ReleaseError::NoStack(stack.clone()))?;
        if state.release.stack_version == Some(newest.digest) {
            return Ok(Upgrade::Newest(stack));
        }
        let new = NewRelease {
            app,
            user: user.clone(),
            description: format!("Upgrade stack {stack} to {}", newest.digest.short()),
            change: Change::Stack(newest.digest),
        };
        let created = self.inner.store.create_release(new).await?;
        drop(storage);
        self.log_creation(&created, &user, None);
        let mut spec = publish::release_spec(&created.release, created.slug.as_ref());
        spec.is_trial = true;
        let release = created.release.id;
        self.trials().insert(app, spec);
        if let Err(error) = self.publish_in_turn(app, &turn).await {
            self.end_trial(app, release, &user, Err(error.to_string()))
                .await;
            return Err(error);
        }
        let task = self.clone();
        self.inner.tasks.spawn(async move {
            let outcome = task.outcome(app, release).await;
            let turn = task.turn(app).await;
            task.end_trial(app, release, &user, outcome).await;
            if let Err(error) = task.publish_in_turn(app, &turn).await {
                tracing::error!(%app, %error, "release not applied");
            }
            drop(turn);
            task.collect().await;
        });
        Ok(Upgrade::Begun(Box::new(created)))
    }

    /// Waits for the end of a trial; `Err` says why it failed.
    async fn outcome(&self, app: AppId, release: ReleaseId) -> Result<(), String> {
        let mut snapshots = self.inner.supervisor.watch();
        let over = snapshots.wait_for(|snapshot| match app_view(snapshot, app) {
            Some(view) => match &view.trial {
                Some((id, trial)) => *id != release || *trial != Trial::Running,
                None => true,
            },
            None => true,
        });
        let Ok(over) = tokio::time::timeout(TRIAL, over).await else {
            return Err("its dynos did not all start in time".to_owned());
        };
        let Ok(snapshot) = over else {
            return Err("the supervisor is stopping".to_owned());
        };
        match app_view(&snapshot, app).and_then(|view| view.trial.clone()) {
            Some((id, Trial::Passed)) if id == release => Ok(()),
            Some((id, Trial::Failed(why))) if id == release => Err(why),
            _ => Err("the app was changed or destroyed meanwhile".to_owned()),
        }
    }

    /// Records how a trial ended.
    async fn end_trial(
        &self,
        app: AppId,
        release: ReleaseId,
        user: &str,
        outcome: Result<(), String>,
    ) {
        self.trials().remove(&app);
        let is_good = outcome.is_ok();
        match self.inner.store.finish_release(release, is_good).await {
            Ok(finished) => {
                let version = finished.release.version;
                let line = match outcome {
                    Ok(()) => format!("{} done by user {user}", finished.release.description),
                    Err(why) => format!("Release {version} is not current: {why}"),
                };
                self.inner.hub.api(app, line);
            }
            // The app was destroyed meanwhile.
            Err(StoreError::UnknownRelease) => {}
            Err(error) => tracing::error!(%app, %error, "release not recorded"),
        }
        self.inner.phase_ended.notify_waiters();
    }
}
