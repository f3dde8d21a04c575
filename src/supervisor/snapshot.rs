//! What the driver publishes after every change. Reads never pass through the driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{AppSpec, Backend};
use crate::model::{AppId, DynoId, DynoName, DynoSize, DynoState, ReleaseId, ReleaseVersion};
use crate::traffic::{AppTraffic, DynoTraffic};

/// All apps and dynos at one instant.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By app id.
    pub apps: BTreeMap<AppId, Arc<AppView>>,
}

/// One app of a snapshot.
pub fn app_view(snapshot: &Snapshot, app: AppId) -> Option<&AppView> {
    snapshot.apps.get(&app).map(Arc::as_ref)
}

/// One app.
#[derive(Clone, Debug)]
pub struct AppView {
    /// What was asked for, last applied.
    pub spec: Arc<AppSpec>,
    /// Its dynos, sorted by name; one-offs included; old ones that drain during a roll too
    /// (`is_stopping`).
    pub dynos: Vec<Arc<DynoView>>,
    /// Its requests.
    pub traffic: Arc<AppTraffic>,
    /// The last release that was on trial, and how that stands.
    pub trial: Option<(ReleaseId, Trial)>,
}

/// How the trial of a release stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Its dynos are being started.
    Running,
    /// Every dyno runs on it.
    Passed,
    /// The dynos went back to the release before; this is why.
    Failed(String),
}

/// A web dyno's part in a roll that starts the new dynos before the old ones leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Serves, as ever.
    #[default]
    Server,
    /// Serves until its successor does; `ps` shows the successor.
    Predecessor,
    /// Not routed to before all of its roll are up.
    Successor,
}

/// One dyno.
#[derive(Clone, Debug)]
pub struct DynoView {
    /// Identity of this run.
    pub id: DynoId,
    /// `web.1`.
    pub name: DynoName,
    /// Current state.
    pub state: DynoState,
    /// When it entered that state (API `updated_at`).
    pub since: Timestamp,
    /// When this run was made (API `created_at`).
    pub created: Timestamp,
    /// The command as declared (`$PORT` is expanded in the log only).
    pub command: String,
    /// Its size.
    pub size: DynoSize,
    /// The release it runs.
    pub release: (ReleaseId, ReleaseVersion),
    /// True once it was signalled: out of routing, hidden from `ps`.
    pub is_stopping: bool,
    /// Its part in a roll.
    pub part: Part,
    /// True for builds: never shown.
    pub is_build: bool,
    /// `$PORT` of a web dyno.
    pub port: Option<u16>,
    /// Where that port is.
    pub backend: Backend,
    /// Its requests.
    pub traffic: Arc<DynoTraffic>,
}

impl DynoView {
    /// True if the router may send it a request.
    pub fn is_routable(&self) -> bool {
        self.state == DynoState::Up
            && self.port.is_some()
            && !self.is_stopping
            && self.part != Part::Successor
    }
}
