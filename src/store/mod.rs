//! State that survives: apps, releases with their config vars, slugs, formations, domains, builds.
//!
//! The only SQL. SQLite behind one writer thread (a bounded queue; callers wait when it is full)
//! and one reader thread. WAL with `synchronous=FULL`: what was acknowledged is on disk.
//! Versions count up per app inside the transaction that makes the release, so they are neither
//! reused nor doubled. Deliberately absent: what a change means (that is `release`), and bytes
//! (slugs, outputs and logs are files).

mod apps;
mod authorizations;
mod buildpacks;
mod builds;
mod certificates;
mod collect;
mod column;
mod domains;
mod features;
mod formation;
mod network;
mod records;
mod releases;
mod schema;
mod slugs;
#[cfg(test)]
mod tests;
mod worker;

use crate::model::{AppName, ConfigError, Hostname, ProcessType, ReleaseVersion};

pub use certificates::{AutoRecord, CertificateRecord};
pub use collect::{Keep, Kept};
pub use formation::Scale;
pub use records::{
    AppChange, AppRecord, AppState, AuthorizationRecord, BuildRecord, BuildStatus, Change,
    CreatedRelease, DomainRecord, FormationRecord, Interrupted, NetworkRule, NetworkRuleTarget,
    NewApp, NewRelease, ReleaseRecord, Removed, SlugRecord,
};
pub use worker::Store;

/// A read or change that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("cannot open the database {path}")]
    Open {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database was written by a newer manifold.
    #[error(
        "the database is of a newer manifold (schema {found}, this one knows {known}): run that version"
    )]
    Newer {
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A statement failed (disk full, damaged file).
    #[error("cannot {act}")]
    Sql {
        /// What was attempted.
        act: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// No space is left on the disk of the state directory.
    #[error("cannot {act}: the disk is full")]
    DiskFull {
        /// What was attempted.
        act: &'static str,
    },
    /// The store was closed.
    #[error("the store is closed: the supervisor is stopping")]
    Closed,
    /// Another app has that name.
    #[error("Name {0} is already taken")]
    NameTaken(AppName),
    /// The app is gone, or never was.
    #[error("Couldn't find that app.")]
    UnknownApp,
    /// No such release of that app.
    #[error("Couldn't find that release.")]
    UnknownRelease,
    /// No such slug, or its bytes were never sent.
    #[error("Couldn't find that slug.")]
    UnknownSlug,
    /// No such domain of that app.
    #[error("Couldn't find that domain.")]
    UnknownDomain,
    /// No such token.
    #[error("Couldn't find that authorization.")]
    UnknownAuthorization,
    /// No such certificate of that app.
    #[error("Couldn't find that certificate.")]
    UnknownCertificate,
    /// More certificates than an app may have.
    #[error("An app can have at most {0} certificates.")]
    CertificatesFull(u32),
    /// The current release has no such process type.
    #[error("Couldn't find that process type ({0}).")]
    UnknownProcess(ProcessType),
    /// A quantity below 0 or above the most.
    #[error("Cannot scale {process} to {quantity}: give 0 to {max} dynos.")]
    Quantity {
        /// Which.
        process: ProcessType,
        /// What it would be.
        quantity: i64,
        /// The most.
        max: u32,
    },
    /// A rollback target that cannot run.
    #[error("Cannot roll back to {version}: {reason}.")]
    NotEligible {
        /// Which.
        version: ReleaseVersion,
        /// Why.
        reason: &'static str,
    },
    /// The release phase of an earlier release still runs.
    #[error(
        "Release {0} still runs its release command; try again when it ended (`manifold releases`)."
    )]
    Pending(ReleaseVersion),
    /// The change of config vars is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another app (or this one) already has that domain.
    #[error("{0} is currently in use by another app.")]
    DomainTaken(Hostname),
    /// This app already has that domain.
    #[error("{0} is already added to this app.")]
    DomainHere(Hostname),
    /// An app to be reached does not exist.
    #[error("Couldn't find the app {0}.")]
    UnknownTarget(String),
    /// An app needs no rule to be itself; its dynos do not reach each other.
    #[error("An app cannot be opened to itself: its dynos are apart from each other, too.")]
    TargetIsSelf,
    /// No such rule of that app.
    #[error("Couldn't find that network rule.")]
    UnknownNetworkRule,
    /// More rules than an app may have.
    #[error("An app can have at most {0} network rules.")]
    NetworkRulesFull(usize),
    /// More domains than an app may have.
    #[error("An app can have at most {0} domains.")]
    DomainsFull(usize),
}

impl StoreError {
    /// Names the attempt behind an SQL error.
    fn sql(act: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull { act },
            _ => Self::Sql { act, source },
        }
    }
}
