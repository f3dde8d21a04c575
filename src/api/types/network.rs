//! Network rules: an own resource, in the schema's style.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Named, User};

/// A hole in the wall around an app's dynos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names as in the public schema")]
pub struct NetworkRule {
    pub id: Uuid,
    pub app: Named,
    /// An app's name, or `ADDRESS:PORT` (with `/udp`).
    pub target: String,
    /// `app` or `host`.
    pub kind: String,
    /// What the dynos connect to.
    pub address: std::net::Ipv4Addr,
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    pub user: User,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Body of `POST /apps/A/network-rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRuleCreate {
    /// See [`NetworkRule::target`].
    pub target: String,
}
