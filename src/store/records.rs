//! Rows as the other rooms see them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::{
    AppId, AppName, BuildId, Buildpack, ConfigVars, Digest, Feature, FormationEntry, HostPort,
    Hostname, ProcessType, ReleaseId, ReleaseStatus, ReleaseVersion, Routing, SlugId, StackName,
};

/// An app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRecord {
    /// Identity.
    pub id: AppId,
    /// Unique name.
    pub name: AppName,
    /// Who made it (`NAME@HOST`).
    pub owner: String,
    /// Stack of its next build.
    pub stack: StackName,
    /// Router answers H80.
    pub maintenance: bool,
    /// How its requests are spread.
    pub routing: Routing,
    /// Somebody said so; else it is the default.
    pub has_routing: bool,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// An app to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApp {
    /// Its name.
    pub name: AppName,
    /// Who makes it.
    pub owner: String,
    /// Its stack.
    pub stack: StackName,
}

/// What changes of an app; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppChange {
    /// New name.
    pub name: Option<AppName>,
    /// Maintenance on or off.
    pub maintenance: Option<bool>,
    /// Stack of its next build.
    pub stack: Option<StackName>,
    /// How its requests are spread.
    pub routing: Option<Routing>,
}

/// What a deleted app leaves to be removed from disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Slug bytes no other app's release uses.
    pub slugs: Vec<Digest>,
    /// Builds, whose outputs can go.
    pub builds: Vec<BuildId>,
    /// Releases, whose outputs can go.
    pub releases: Vec<ReleaseId>,
}

/// The code of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlugRecord {
    /// Identity.
    pub id: SlugId,
    /// The app it was made for.
    pub app: AppId,
    /// Names the bytes; `None` until they were sent.
    pub digest: Option<Digest>,
    /// What the bytes have to be that are still to come, if it was told.
    pub expected: Option<Digest>,
    /// Compressed size in bytes.
    pub size_bytes: u64,
    /// The stack it was built on.
    pub stack: StackName,
    /// Commit or version text.
    pub commit: Option<String>,
    /// `Python`, `Node.js`.
    pub buildpack: Option<String>,
    /// Commands by type.
    pub processes: BTreeMap<ProcessType, String>,
    /// When it was made.
    pub created: Timestamp,
    /// When its bytes came.
    pub updated: Timestamp,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// Identity.
    pub id: ReleaseId,
    /// Whose.
    pub app: AppId,
    /// Its number.
    pub version: ReleaseVersion,
    /// `Deploy f7bee2dd`.
    pub description: String,
    /// Who made it.
    pub user: String,
    /// Where it is on its way.
    pub status: ReleaseStatus,
    /// Its code.
    pub slug: Option<SlugId>,
    /// The build of its slug's stack; `None` is the newest.
    pub stack_version: Option<Digest>,
    /// Its files are gone: nobody can go back to it.
    pub is_collected: bool,
    /// All its config vars.
    pub config: ConfigVars,
    /// When it was made.
    pub created: Timestamp,
    /// When its status last changed.
    pub updated: Timestamp,
}

/// What a new release changes against the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Other code, and the build of its stack to run it on.
    Slug(SlugId, Option<Digest>),
    /// Another build of the same stack; pending until it was tried.
    Stack(Digest),
    /// Other config vars (`None` removes).
    Config(BTreeMap<String, Option<String>>),
    /// Code, stack and config vars of an earlier release.
    Rollback(ReleaseId),
}

/// A release to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRelease {
    /// Whose.
    pub app: AppId,
    /// Who makes it.
    pub user: String,
    /// `Set FOO config vars`.
    pub description: String,
    /// What changes.
    pub change: Change,
}

/// A release that was made or became current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedRelease {
    /// As stored; `Pending` when its slug declares a release phase.
    pub release: ReleaseRecord,
    /// Its code.
    pub slug: Option<SlugRecord>,
    /// Entries that the first deploy scaled up (`web` = 1).
    pub scaled: Vec<FormationRecord>,
}

/// A formation entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormationRecord {
    /// The type.
    pub process: ProcessType,
    /// How many, how large.
    pub entry: FormationEntry,
    /// When the type first appeared.
    pub created: Timestamp,
    /// When it was last scaled.
    pub updated: Timestamp,
}

/// A custom domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainRecord {
    /// Identity.
    pub id: Uuid,
    /// The name.
    pub hostname: Hostname,
    /// When it was added.
    pub created: Timestamp,
}

/// One hole in the wall around an app's dynos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// Identity.
    pub id: Uuid,
    /// Where to.
    pub target: NetworkRuleTarget,
    /// Who opened it.
    pub user: String,
    /// When.
    pub created: Timestamp,
}

/// Where a hole leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkRuleTarget {
    /// To the web dynos of an app.
    App {
        /// Which.
        app: AppId,
        /// Its name now.
        name: AppName,
        /// Where it answers.
        at: std::net::Ipv4Addr,
    },
    /// To a port.
    Host(HostPort),
}

impl std::fmt::Display for NetworkRuleTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::App { name, .. } => name.fmt(f),
            Self::Host(host) => host.fmt(f),
        }
    }
}

impl NetworkRule {
    /// True if `key` is its id or its target as `network:allow` takes it.
    pub fn is_named(&self, key: &str) -> bool {
        key == self.id.to_string()
            || key == self.target.to_string()
            || matches!((&self.target, key.parse()), (NetworkRuleTarget::Host(own), Ok(other)) if *own == other)
    }
}

/// Where a build is on its way. Source: Platform API, build `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStatus {
    /// Waits or runs.
    Pending,
    /// Made a slug.
    Succeeded,
    /// Made none.
    Failed,
}

impl BuildStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRecord {
    /// Identity.
    pub id: BuildId,
    /// Whose.
    pub app: AppId,
    /// Who asked for it.
    pub user: String,
    /// Where it is.
    pub status: BuildStatus,
    /// The stack it builds on.
    pub stack: StackName,
    /// Where its source came from, as asked.
    pub source_url: String,
    /// Expected checksum of the source, as asked.
    pub checksum: Option<String>,
    /// Commit or version text.
    pub version: Option<String>,
    /// Those of this build alone; none: its app's.
    pub buildpacks: Vec<Buildpack>,
    /// The slug it made.
    pub slug: Option<SlugId>,
    /// The release it made.
    pub release: Option<ReleaseId>,
    /// When it was asked for.
    pub created: Timestamp,
    /// When its status last changed.
    pub updated: Timestamp,
}

/// All that makes an app run, from one consistent read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppState {
    /// The app.
    pub app: AppRecord,
    /// Latest succeeded release.
    pub release: ReleaseRecord,
    /// Its code.
    pub slug: Option<SlugRecord>,
    /// By type, sorted.
    pub formation: Vec<FormationRecord>,
    /// Custom domains.
    pub domains: Vec<DomainRecord>,
    /// What is open for its dynos.
    pub network_rules: Vec<NetworkRule>,
    /// Switches that are on.
    pub features: BTreeSet<Feature>,
    /// Its domains get certificates by ACME.
    pub has_auto_certificates: bool,
}

/// What the last supervisor left unfinished, now marked failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupted {
    /// Builds.
    pub builds: Vec<(AppId, BuildId)>,
    /// Release phases.
    pub releases: Vec<(AppId, ReleaseVersion)>,
}

/// A token's description; the token itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationRecord {
    /// Identity.
    pub id: uuid::Uuid,
    /// Who calls with it.
    pub user: String,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, if it does.
    pub expires: Option<Timestamp>,
}
