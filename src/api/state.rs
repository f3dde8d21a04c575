//! What handlers share.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attach::Attaches;
use super::builds::Builds;
use super::files::Uploads;
use super::git::Gits;
use super::sessions::Sessions;
use crate::certs::Certs;
use crate::logs::Hub;
use crate::release::Releases;
use crate::settings::{Paths, Settings};
use crate::store::Store;
use crate::supervisor::Supervisor;

/// The rooms the API stands on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// State that survives.
    pub store: Store,
    /// The driver.
    pub supervisor: Supervisor,
    /// Logs.
    pub hub: Hub,
    /// Makes releases.
    pub releases: Releases,
    /// Certificates.
    pub certs: Certs,
    /// The host's settings.
    pub settings: Arc<Settings>,
    /// Who makes way for another version.
    pub upgrades: Upgrades,
}

/// How one asks for an upgrade: the answer says what will happen, or why nothing does.
pub type UpgradeRequest = oneshot::Sender<Result<String, String>>;

/// Where requests for an upgrade go; by default nobody hears them.
#[derive(Clone, Debug, Default)]
pub struct Upgrades(Option<mpsc::Sender<UpgradeRequest>>);

impl Upgrades {
    /// The way in, and where they arrive.
    pub fn channel() -> (Self, mpsc::Receiver<UpgradeRequest>) {
        let (sender, requests) = mpsc::channel(1);
        (Self(Some(sender)), requests)
    }

    /// Asks; what will happen, or why nothing does.
    pub(super) async fn ask(&self) -> Result<String, String> {
        let nobody = || "the supervisor is stopping, or cannot be replaced".to_owned();
        let (reply, answer) = oneshot::channel();
        let sender = self.0.as_ref().ok_or_else(nobody)?;
        sender.send(reply).await.map_err(|_| nobody())?;
        answer.await.unwrap_or_else(|_| Err(nobody()))
    }
}

/// The API's state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    inner: Arc<Inner>,
}

/// What an [`Api`] shares among its clones.
#[derive(Debug)]
pub struct Inner {
    pub(super) store: Store,
    pub(super) supervisor: Supervisor,
    pub(super) hub: Hub,
    pub(super) releases: Releases,
    pub(super) certs: Certs,
    pub(super) settings: Arc<Settings>,
    pub(super) paths: Paths,
    pub(super) sessions: Sessions,
    pub(super) attaches: Attaches,
    pub(super) uploads: Uploads,
    pub(super) builds: Builds,
    pub(super) gits: Gits,
    pub(super) upgrades: Upgrades,
    /// Builds and attached clients.
    pub(super) tasks: TaskTracker,
    /// Set when the supervisor stops: open streams end.
    pub(super) stop: CancellationToken,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Api {
    /// An API over these rooms.
    pub fn new(parts: Parts) -> Self {
        let paths = parts.settings.paths();
        let inner = Inner {
            sessions: Sessions::new(parts.settings.timings.session_lifetime),
            attaches: Attaches::default(),
            uploads: Uploads::new(paths.sources()),
            builds: Builds::default(),
            gits: Gits::default(),
            store: parts.store,
            supervisor: parts.supervisor,
            hub: parts.hub,
            releases: parts.releases,
            certs: parts.certs,
            settings: parts.settings,
            upgrades: parts.upgrades,
            paths,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Ends log tails and refuses new attached one-offs and builds.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Waits until builds and attached clients are done. Call after the dynos are gone.
    pub async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}
