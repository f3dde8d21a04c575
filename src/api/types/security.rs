//! What a dyno of an app can and cannot do: an own resource, made from the launch plan.

use serde::{Deserialize, Serialize};

use super::{Named, NetworkRule};

/// `GET /apps/A/security/TYPE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each type below says what it holds")]
pub struct Security {
    pub app: Named,
    /// The process type that was asked for.
    #[serde(rename = "type")]
    pub process: String,
    pub size: String,
    pub namespaces: Vec<Namespace>,
    pub user: SecurityUser,
    pub capabilities: Capabilities,
    pub seccomp: Seccomp,
    pub mounts: Vec<Mount>,
    /// Covered with nothing.
    pub masked: Vec<String>,
    /// Readable, never writable.
    pub read_only: Vec<String>,
    pub limits: Vec<Limit>,
    pub network: SecurityNetwork,
}

/// One of the kernel's kinds of namespace, a dyno's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// As in `/proc/PID/ns`.
    pub name: String,
    /// What it keeps apart.
    pub keeps_apart: String,
}

/// Who the app runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityUser {
    /// Inside.
    pub uid: u32,
    /// Inside.
    pub gid: u32,
    /// Ids inside that exist at all: 0 up to this.
    pub ids: u32,
    /// Host id of the first dyno's id 0; every dyno alive has a range of its own.
    pub host_first: u32,
}

/// What is left of root's powers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// In any of the five sets.
    pub kept: Vec<String>,
    /// Set-user-id programs and file capabilities give nothing.
    pub no_new_privileges: bool,
}

/// The filter of system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// False: the plan has no filter.
    pub is_on: bool,
    /// What a call on no list answers.
    pub default: String,
    /// How many calls are allowed as they are.
    pub allowed: usize,
    /// Calls whose arguments are looked at, and what is let through.
    pub checked: Vec<CheckedCall>,
    /// Calls that answer EPERM.
    pub denied: Vec<DeniedCalls>,
}

/// See [`Seccomp::checked`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedCall {
    /// The call.
    pub call: String,
    /// What of it is let through.
    pub allows: String,
}

/// See [`Seccomp::denied`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedCalls {
    /// Why.
    pub reason: String,
    /// Which.
    pub calls: Vec<String>,
}

/// A mount a dyno sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where.
    pub target: String,
    /// What.
    pub what: String,
    /// `ro` or `rw`, `nosuid`, `nodev`, `noexec`.
    pub flags: Vec<String>,
}

/// A bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Of what.
    pub name: String,
    /// How much.
    pub value: String,
}

/// What its packets reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each says it by its name")]
pub struct SecurityNetwork {
    /// In words, one a line.
    pub reaches: Vec<String>,
    pub does_not_reach: Vec<String>,
    pub resolvers: Vec<std::net::Ipv4Addr>,
    /// Tracked connections at once.
    pub connections_max: Option<u32>,
    /// What `network:allow` opened.
    pub rules: Vec<NetworkRule>,
    /// The firewall table: `nft list table NAME` shows it.
    pub table: String,
}
