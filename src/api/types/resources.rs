//! Resources. Source: Platform API Reference.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// `{id, name}` of another resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// `{id}` of another resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its id.
    pub id: Uuid,
}

/// `{id, email}` of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Stable id.
    pub id: Uuid,
    /// `NAME@HOST` for local users.
    pub email: String,
}

/// An error body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Machine-readable: `not_found`, `invalid_params`, …
    pub id: String,
    /// For people: what failed, why, what to do.
    pub message: String,
}

/// An app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct App {
    pub id: Uuid,
    pub name: String,
    pub web_url: String,
    pub git_url: String,
    pub stack: Named,
    pub build_stack: Named,
    pub owner: User,
    pub region: Named,
    pub team: Option<Named>,
    pub organization: Option<Named>,
    pub space: Option<Named>,
    pub acm: bool,
    pub internal_routing: bool,
    pub archived_at: Option<Timestamp>,
    pub buildpack_provided_description: Option<String>,
    pub created_at: Timestamp,
    pub released_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    pub maintenance: bool,
    pub repo_size: u64,
    pub slug_size: u64,
    pub generation: Named,
    pub create_status: String,
    pub process_tier: String,
}

/// Body of `POST /apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct AppCreate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

/// Body of `PATCH /apps/A`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct AppUpdate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_stack: Option<String>,
}

/// `{id, version}` of a dyno's release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynoRelease {
    /// Release id.
    pub id: Uuid,
    /// Its number.
    pub version: u32,
}

/// A dyno.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Dyno {
    pub id: Uuid,
    pub name: String,
    #[serde(rename = "type")]
    pub process: String,
    pub state: String,
    pub size: String,
    pub command: String,
    /// `/attach/SECRET` on the same socket (single use), for attached one-offs.
    pub attach_url: Option<String>,
    pub release: DynoRelease,
    pub app: Named,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Body of `POST /apps/A/dynos`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct DynoCreate {
    pub command: String,
    pub attach: bool,
    /// Text or number values are accepted (`COLUMNS`, `LINES` come as numbers).
    pub env: BTreeMap<String, serde_json::Value>,
    pub force_no_tty: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_live: Option<u64>,
}

/// A formation entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Formation {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub process: String,
    pub quantity: u32,
    pub size: String,
    pub dyno_size: Named,
    pub command: String,
    pub app: Named,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Body of `PATCH /apps/A/formation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormationBatch {
    /// All or nothing.
    pub updates: Vec<FormationUpdate>,
}

/// One entry of [`FormationBatch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct FormationUpdate {
    #[serde(rename = "type", alias = "process")]
    pub process: String,
    /// `2`, `"2"`, `"+1"` or `"-1"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
}

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Release {
    pub id: Uuid,
    pub version: u32,
    pub description: String,
    pub user: User,
    pub status: String,
    pub current: bool,
    pub app: Named,
    pub slug: Option<Reference>,
    pub output_stream_url: Option<String>,
    pub eligible_for_rollback: bool,
    pub addon_plan_names: Vec<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Stack of its slug; only in the answer for one release (not of the public schema).
    #[serde(default)]
    pub stack: Option<String>,
    /// The build of the stack that it runs on (not of the public schema).
    #[serde(default)]
    pub stack_version: Option<String>,
}

/// Body of `POST /apps/A/releases`: exactly one of `slug` and `release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct ReleaseCreate {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Id or version number (with or without `v`): roll back to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where a source or slug lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct SourceBlob {
    pub url: String,
    /// `SHA256:` and 64 hex digits.
    #[serde(default)]
    pub checksum: Option<String>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub version_description: Option<String>,
}

/// Reply of `POST /sources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Where to put it and what to name it as in `POST builds`.
    pub source_blob: SourceUrls,
}

/// The two URLs of a [`Source`]: paths on the same socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceUrls {
    /// Give this as `source_blob.url`.
    pub get_url: String,
    /// `PUT` the bytes here.
    pub put_url: String,
}

/// Body of `POST /apps/A/builds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildCreate {
    /// What to build.
    pub source_blob: SourceBlob,
    /// By which, for this build alone; left out or empty: the app's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buildpacks: Option<Vec<BuildBuildpack>>,
}

/// A buildpack of one build: `url` or `name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildBuildpack {
    /// A git or tarball URL, or as in a [`BuildpackUpdate`].
    #[serde(default)]
    pub url: Option<String>,
    /// `heroku/NAME`.
    #[serde(default)]
    pub name: Option<String>,
}

/// Body of `PUT /apps/A/buildpack-installations`: the whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildpackUpdates {
    /// In order.
    #[serde(default)]
    pub updates: Vec<BuildpackUpdate>,
}

/// One of [`BuildpackUpdates`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildpackUpdate {
    /// `heroku/NAME`, a URL, or the `get_url` of an upload and `#NAME`.
    pub buildpack: String,
}

/// A buildpack of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildpackInstallation {
    /// Its place, from 0.
    pub ordinal: usize,
    /// Which.
    pub buildpack: BuildpackReference,
}

/// Which buildpack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct BuildpackReference {
    pub name: String,
    pub url: String,
}

/// Body of `POST /oauth/authorizations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationCreate {
    /// What the token is for.
    pub description: Option<String>,
    /// Its life in seconds; for ever if left out.
    pub expires_in: Option<i64>,
}

/// A token for callers over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Authorization {
    pub id: Uuid,
    pub description: String,
    pub access_token: AccessToken,
    pub user: User,
    pub created_at: Timestamp,
}

/// The token of an [`Authorization`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// Shown once, when it was made.
    pub token: Option<String>,
    /// Seconds it has left, if it ends.
    pub expires_in: Option<i64>,
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Build {
    pub id: Uuid,
    pub app: Reference,
    /// `pending`, `succeeded` or `failed`.
    pub status: String,
    /// Path on the same socket; plain text that ends with the build.
    pub output_stream_url: String,
    pub source_blob: SourceBlob,
    /// Those that it was asked for with; `null`: its app's.
    #[serde(default)]
    pub buildpacks: Option<Vec<BuildBuildpack>>,
    pub slug: Option<Reference>,
    pub release: Option<Reference>,
    pub stack: String,
    pub user: User,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A slug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Slug {
    pub id: Uuid,
    pub blob: Blob,
    pub process_types: BTreeMap<String, String>,
    pub commit: Option<String>,
    pub commit_description: Option<String>,
    pub checksum: Option<String>,
    pub size: Option<u64>,
    pub stack: Named,
    pub buildpack_provided_description: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How to fetch or send bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Blob {
    pub method: String,
    pub url: String,
}

/// Body of `POST /apps/A/log-sessions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct LogSessionCreate {
    #[serde(alias = "dyno_name", skip_serializing_if = "Option::is_none")]
    pub dyno: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<u32>,
    pub tail: bool,
}

/// A log session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct LogSession {
    pub id: Uuid,
    /// Path on the same socket: plain text lines, or an event stream if `Accept` asks for one.
    pub logplex_url: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Domain {
    pub id: Uuid,
    pub hostname: String,
    /// `heroku` for the app's default name, else `custom`.
    pub kind: String,
    pub cname: Option<String>,
    pub status: String,
    pub acm_status: Option<String>,
    pub acm_status_reason: Option<String>,
    pub sni_endpoint: Option<Named>,
    pub app: Named,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Body of `POST /apps/A/domains`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainCreate {
    /// The name.
    pub hostname: String,
}

/// A switch of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Feature {
    pub id: Uuid,
    pub name: String,
    pub display_name: String,
    pub description: String,
    pub doc_url: String,
    pub feedback_email: String,
    pub enabled: bool,
    pub state: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Body of `PATCH /apps/A/features/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureUpdate {
    /// On or off.
    pub enabled: bool,
}

/// The caller's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Account {
    pub id: Uuid,
    pub email: String,
    pub name: Option<String>,
    pub verified: bool,
    pub two_factor_authentication: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Stack {
    pub id: Uuid,
    pub name: String,
    pub state: String,
    pub default: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// What the name stands for here (not of the public schema).
    #[serde(default)]
    pub stands_for: Option<String>,
    /// Its builds on this host, the newest first (not of the public schema).
    #[serde(default)]
    pub versions: Vec<StackVersion>,
}

/// A build of a stack. Not of the public schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of the stack's own record")]
pub struct StackVersion {
    pub digest: String,
    pub built_at: Timestamp,
    pub origin: String,
    pub run_bytes: u64,
    pub build_bytes: u64,
    /// Names of the apps whose dynos run on it.
    pub apps: Vec<String>,
    /// Name and sha256 of each signed `InRelease` file.
    pub sources: Vec<(String, String)>,
    /// Debian packages of the run image: name and version. Only in the answer for one stack.
    #[serde(default)]
    pub run_packages: Vec<(String, String)>,
    /// Those of the build image.
    #[serde(default)]
    pub build_packages: Vec<(String, String)>,
}

/// A dyno size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct Size {
    pub id: Uuid,
    pub name: String,
    /// GB.
    pub memory: f64,
    pub compute: u64,
    pub dedicated: bool,
    pub precise_dyno_units: f64,
}
