//! Anything that makes a new vN, and what follows from it.
//!
//! A change is one store transaction, then log lines, then the app's whole desired state goes to
//! the supervisor. Per app these steps are taken in turn under one lock, so that the supervisor
//! never sees an older state after a newer one. A release whose slug declares a `release` process
//! is `pending` while that command runs; until it ends, further releases of the app are refused
//! (deploys wait), and the release before stays current.
//! Source: Dev Center, "Releases", "Release Phase".

mod collect;
mod create;
mod describe;
mod phase;
mod publish;
mod upgrade;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::logs::Hub;
use crate::model::{AppId, StackName};
use crate::rootfs::{StackVersion, Versions};
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use crate::supervisor::{CommandError, ReleaseSpec, Supervisor};

pub use collect::Collected;
pub use create::{Order, Reason};
pub use describe::{config_change, deploy, formation_line};
pub use publish::routing_of;
pub use upgrade::Upgrade;

/// A release that was not made, or was made but not yet applied.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The store refused or failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored, but the supervisor did not take it; it is applied at the next start.
    #[error("the change is stored, but not applied yet")]
    Apply(#[source] CommandError),
    /// A dyno of the app could not be stopped; nothing was deleted.
    #[error("the app's dynos could not be stopped")]
    Forget(#[source] CommandError),
    /// The app has no code yet.
    #[error("the app has nothing to run yet")]
    NoSlug,
    /// Its stack has no builds.
    #[error("the stack {0} has no builds here")]
    NoStack(StackName),
    /// An earlier release phase did not end in time.
    #[error("an earlier release did not finish its release command in time")]
    Busy,
}

/// Makes releases and keeps the supervisor's picture of every app up to date. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Releases {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    supervisor: Supervisor,
    hub: Hub,
    settings: Arc<Settings>,
    /// One lock per app that was changed since start.
    turns: Mutex<HashMap<AppId, Arc<tokio::sync::Mutex<()>>>>,
    /// Told whenever a release phase ended.
    phase_ended: Notify,
    /// Release phases and trials that run.
    tasks: TaskTracker,
    /// Builds of stacks.
    versions: Versions,
    /// Releases on trial: what the supervisor is to run meanwhile.
    trials: Mutex<HashMap<AppId, ReleaseSpec>>,
    /// Read by those who make files that no row names yet, written by those who remove files.
    storage: Arc<tokio::sync::RwLock<()>>,
}

impl Releases {
    /// Nothing is applied yet: see [`Releases::start`].
    pub fn new(store: Store, supervisor: Supervisor, hub: Hub, settings: Arc<Settings>) -> Self {
        let inner = Inner {
            versions: Versions::new(&settings.paths()),
            trials: Mutex::default(),
            storage: Arc::default(),
            store,
            supervisor,
            hub,
            settings,
            turns: Mutex::default(),
            phase_ended: Notify::new(),
            tasks: TaskTracker::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Waits until every running release phase was recorded. Call after the supervisor's dynos
    /// are gone and nothing makes releases any more.
    pub async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Waits for the app's turn. Tokio's lock is fair: first come, first served.
    async fn turn(&self, app: AppId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut turns = self
                .inner
                .turns
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(app).or_default())
        };
        lock.lock_owned().await
    }

    fn trials(&self) -> std::sync::MutexGuard<'_, HashMap<AppId, ReleaseSpec>> {
        let trials = &self.inner.trials;
        trials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest build of a stack; its record is read from disk.
    async fn newest_stack(&self, name: &StackName) -> Option<StackVersion> {
        let (versions, name) = (self.inner.versions.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || versions.newest(&name)).await;
        found.ok().flatten()
    }

    /// Drops the lock of an app that is gone.
    fn drop_turn(&self, app: AppId) {
        let mut turns = self
            .inner
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        turns.remove(&app);
    }
}
