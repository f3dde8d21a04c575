//! One build from archive to slug.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Output;
use crate::model::{AppId, AppName, BuildId, ConfigVars, Digest, DynoSize, ProcessType, StackName};
use crate::settings::Paths;
use crate::supervisor::Supervisor;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildOrder {
    /// Identity of the build.
    pub id: BuildId,
    /// Whose.
    pub app: (AppId, AppName),
    /// The stack to build on.
    pub stack: StackName,
    /// gzip tar with the app's files at its root.
    pub archive: PathBuf,
    /// Expected sha256 of the archive.
    pub checksum: Option<Digest>,
    /// Config vars, shown to buildpacks as files in ENV_DIR.
    pub config: ConfigVars,
    /// Commit or version text (`SOURCE_VERSION`).
    pub version: Option<String>,
    /// Limits of the build dyno.
    pub size: DynoSize,
}

/// A finished build: the slug's bytes are in place (`Paths::slug`), synced.
#[derive(Clone, Debug)]
pub struct Built {
    /// Names the bytes.
    pub digest: Digest,
    /// Compressed size in bytes.
    pub size_bytes: u64,
    /// Commands by type, Procfile over defaults.
    pub process_types: BTreeMap<ProcessType, String>,
    /// What detect printed (`Python`, `Node.js`).
    pub buildpack: String,
}

/// A build that made no slug. The output already says so in the contract's words.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No buildpack applies.
    #[error("no default language could be detected for this app")]
    NotDetected,
}

/// Runs a build to its end, writing to `output`. Changes nothing that runs.
///
/// # Errors
/// See [`BuildError`].
pub async fn run(
    supervisor: &Supervisor,
    paths: &Paths,
    order: BuildOrder,
    output: &Output,
) -> Result<Built, BuildError> {
    let _ = (supervisor, paths, order, output);
    todo!()
}
