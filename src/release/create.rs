//! One release: transaction, log lines, then the app is applied or its release phase begins.

use std::collections::BTreeMap;

use super::{ReleaseError, Releases, describe, phase};
use crate::model::{AppId, ReleaseId, ReleaseStatus, ReleaseVersion, SlugId};
use crate::store::{AppRecord, Change, CreatedRelease, NewApp, NewRelease, StoreError};

/// A release to make.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whose.
    pub app: AppId,
    /// Who asks (`NAME@HOST`).
    pub user: String,
    /// Why.
    pub reason: Reason,
}

/// What makes a release.
#[derive(Clone, Debug)]
pub enum Reason {
    /// New code.
    Deploy {
        /// The code.
        slug: SlugId,
        /// `Deploy f7bee2dd`.
        description: String,
        /// An API log line that belongs between the release's lines and the dynos' lines
        /// (`Build succeeded`).
        then_log: Option<String>,
    },
    /// Config vars set (or removed: `None`).
    Config(BTreeMap<String, Option<String>>),
    /// Back to an earlier release.
    Rollback(ReleaseId, ReleaseVersion),
}

impl Releases {
    /// Makes an app, with its first two releases.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn create_app(&self, new: NewApp) -> Result<AppRecord, ReleaseError> {
        let user = new.owner.clone();
        let app = self.inner.store.create_app(new).await?;
        for (version, what) in [(1, "Initial release"), (2, "Enable Logplex")] {
            let hub = &self.inner.hub;
            hub.api(app.id, format!("Release v{version} created by user {user}"));
            hub.api(app.id, format!("{what} by user {user}"));
        }
        self.publish(app.id).await?;
        Ok(app)
    }

    /// Makes a release. Returns once it is current and its dynos are rolling, or, with a release
    /// phase, once that is under way (`pending`).
    ///
    /// # Errors
    /// See [`ReleaseError`]; refused at once while an earlier release is pending.
    pub async fn create(&self, order: Order) -> Result<CreatedRelease, ReleaseError> {
        let turn = self.turn(order.app).await;
        let storage = self.storage().await;
        let (new, then_log) = self.resolved(order).await?;
        let user = new.user.clone();
        let app = new.app;
        let created = self.inner.store.create_release(new).await?;
        drop(storage);
        self.log_creation(&created, &user, then_log);
        if created.release.status == ReleaseStatus::Pending {
            phase::start(self, &created, user);
        } else {
            self.publish_in_turn(app, &turn).await?;
        }
        drop(turn);
        let task = self.clone();
        self.inner.tasks.spawn(async move { task.collect().await });
        Ok(created)
    }

    /// As [`Releases::create`], but waits (at most as long as a release phase may take) for an
    /// earlier release that is pending.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn create_when_free(&self, order: Order) -> Result<CreatedRelease, ReleaseError> {
        let patience = self.phase_deadline();
        let attempts = async {
            loop {
                // Registered before the attempt: an end between attempt and wait is not missed.
                let ended = self.inner.phase_ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                match self.create(order.clone()).await {
                    Err(ReleaseError::Store(StoreError::Pending(_))) => ended.await,
                    other => return other,
                }
            }
        };
        let result = tokio::time::timeout(patience, attempts).await;
        result.unwrap_or(Err(ReleaseError::Busy))
    }

    pub(super) fn log_creation(
        &self,
        created: &CreatedRelease,
        user: &str,
        then_log: Option<String>,
    ) {
        let release = &created.release;
        let hub = &self.inner.hub;
        let app = release.app;
        hub.api(
            app,
            format!("Release {} created by user {user}", release.version),
        );
        hub.api(app, format!("{} by user {user}", release.description));
        self.log_scaled(created, user);
        if let Some(line) = then_log {
            hub.api(app, line);
        }
    }

    async fn resolved(&self, order: Order) -> Result<(NewRelease, Option<String>), StoreError> {
        let (change, description, then_log) = match order.reason {
            Reason::Deploy {
                slug,
                description,
                then_log,
            } => {
                let stack = self.inner.store.slug(slug).await?.stack;
                let newest = self
                    .newest_stack(&stack)
                    .await
                    .map(|version| version.digest);
                (Change::Slug(slug, newest), description, then_log)
            }
            Reason::Config(change) => {
                let description = describe::config_change(&change);
                (Change::Config(change), description, None)
            }
            Reason::Rollback(id, version) => {
                (Change::Rollback(id), format!("Rollback to {version}"), None)
            }
        };
        let new = NewRelease {
            app: order.app,
            user: order.user,
            description,
            change,
        };
        Ok((new, then_log))
    }

    /// The first deploy says which formation it begins with.
    pub(super) fn log_scaled(&self, created: &CreatedRelease, user: &str) {
        if !created.scaled.is_empty() {
            let line = describe::formation_line(&created.scaled, user);
            self.inner.hub.api(created.release.app, line);
        }
    }
}
