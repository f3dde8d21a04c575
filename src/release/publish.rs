//! From rows to the supervisor's desired state.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::{ReleaseError, Releases};
use crate::model::{AppId, ReleaseId, Routing, StackName, StackRef};
use crate::rootfs::default_routing;
use crate::settings::Settings;
use crate::store::{AppState, NetworkRuleTarget, ReleaseRecord, Removed, SlugRecord, StoreError};
use crate::supervisor::{Allowance, AppSpec, CommandError, ReleaseSpec, SlugSpec, app_view};

impl Releases {
    /// Closes what a dead supervisor left unfinished and applies every app.
    ///
    /// # Errors
    /// The store cannot be read, or the supervisor is stopping. An app that cannot be applied for
    /// a reason of its own is logged and left out.
    pub async fn start(&self) -> Result<(), ReleaseError> {
        let interrupted = self.inner.store.fail_interrupted().await?;
        for (app, version) in interrupted.releases {
            let line = format!("Release {version} failed: the supervisor was restarted");
            self.inner.hub.api(app, line);
        }
        for (app, _) in interrupted.builds {
            let line = "Build failed -- the supervisor was restarted";
            self.inner.hub.api(app, line);
        }
        for app in self.inner.store.apps().await? {
            match self.publish(app.id).await {
                Err(ReleaseError::Apply(CommandError::Stopping)) => {
                    return Err(ReleaseError::Apply(CommandError::Stopping));
                }
                Err(error) => tracing::error!(app = %app.name, %error, "app not applied"),
                Ok(()) => {}
            }
        }
        self.collect().await;
        Ok(())
    }

    /// Hands the app's stored state to the supervisor; nothing happens for an app that is gone.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn publish(&self, app: AppId) -> Result<(), ReleaseError> {
        let turn = self.turn(app).await;
        self.publish_in_turn(app, &turn).await
    }

    /// As [`Releases::publish`] by one who has the turn already. The read happens after the turn
    /// came, so a later change can only be newer.
    pub(super) async fn publish_in_turn(
        &self,
        app: AppId,
        _turn: &OwnedMutexGuard<()>,
    ) -> Result<(), ReleaseError> {
        let Some(state) = self.inner.store.state(app).await? else {
            return Ok(());
        };
        let mut spec = app_spec(&self.inner.settings, state);
        if let Some(trial) = self.trials().get(&app) {
            if self.is_on_trial(app, trial.id) {
                // What else changed is applied when the trial is over.
                return Ok(());
            }
            spec.release = Some(Arc::new(trial.clone()));
        }
        let applied = self.inner.supervisor.apply(spec).await;
        applied.map_err(ReleaseError::Apply)
    }

    /// True once the supervisor has the release that is on trial.
    fn is_on_trial(&self, app: AppId, release: ReleaseId) -> bool {
        let snapshot = self.inner.supervisor.snapshot();
        let view = app_view(&snapshot, app);
        view.is_some_and(|view| view.spec.release_id() == Some(release))
    }

    /// Stops an app's dynos, then deletes its rows and its logs. Returns which files are unused.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub async fn delete_app(&self, app: AppId) -> Result<Removed, ReleaseError> {
        let turn = self.turn(app).await;
        match self.inner.supervisor.forget(app).await {
            Ok(()) | Err(CommandError::UnknownApp) => {}
            Err(error) => return Err(ReleaseError::Forget(error)),
        }
        let removed = match self.inner.store.delete_app(app).await {
            Ok(removed) => removed,
            Err(StoreError::UnknownApp) => return Err(StoreError::UnknownApp.into()),
            Err(error) => {
                // Nothing was deleted: the app must come back as it was.
                if let Err(again) = self.publish_in_turn(app, &turn).await {
                    tracing::error!(%app, error = %again, "app stays stopped");
                }
                return Err(error.into());
            }
        };
        self.inner.hub.forget(app);
        self.drop_turn(app);
        Ok(removed)
    }
}

/// The whole desired state of an app.
fn app_spec(settings: &Settings, state: AppState) -> AppSpec {
    let routing = routing_of(&state);
    let default = settings.default_hostname(&state.app.name);
    let custom = state.domains.into_iter().map(|domain| domain.hostname);
    let mut release = release_spec(&state.release, state.slug.as_ref());
    if state.slug.is_none() {
        release.stack = StackRef::newest(state.app.stack.clone());
    }
    AppSpec {
        id: state.app.id,
        name: state.app.name,
        maintenance: state.app.maintenance,
        hostnames: std::iter::once(default).chain(custom).collect(),
        features: state.features,
        release: Some(Arc::new(release)),
        formation: state
            .formation
            .into_iter()
            .map(|record| (record.process, record.entry))
            .collect(),
        routing,
        allowed: state
            .network_rules
            .into_iter()
            .map(|rule| match rule.target {
                NetworkRuleTarget::App { app, at, .. } => Allowance::App { app, at },
                NetworkRuleTarget::Host(host) => Allowance::Host(host),
            })
            .collect(),
    }
}

/// How an app's requests are spread: as somebody set it, else as its stack has it.
pub fn routing_of(state: &AppState) -> Routing {
    let stack = state
        .slug
        .as_ref()
        .map_or(&state.app.stack, |slug| &slug.stack);
    match default_routing(stack) {
        Some(policy) if !state.app.has_routing => Routing {
            policy,
            ..Routing::default()
        },
        _ => state.app.routing,
    }
}

/// A release as the supervisor runs it.
pub(super) fn release_spec(release: &ReleaseRecord, slug: Option<&SlugRecord>) -> ReleaseSpec {
    ReleaseSpec {
        id: release.id,
        version: release.version,
        created: release.created,
        stack: StackRef {
            name: slug.map_or_else(StackName::host, |slug| slug.stack.clone()),
            version: release.stack_version,
        },
        slug: slug.and_then(|slug| {
            Some(SlugSpec {
                id: slug.id,
                digest: slug.digest?,
                process_types: slug.processes.clone(),
                commit: slug.commit.clone(),
            })
        }),
        config: release.config.clone(),
        is_trial: false,
    }
}
