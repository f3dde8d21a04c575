//! How an app's requests are spread.

use serde::{Deserialize, Deserializer, Serialize};

use super::Named;

/// An app's routing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Whose.
    pub app: Named,
    /// `least-in-flight`, `random`, `global-queue` or `round-robin`.
    pub policy: String,
    /// Requests that a dyno serves at once, as set; `null`: by default.
    pub concurrency: Option<u32>,
    /// The same, as it is in force; `null`: any number.
    pub limit: Option<u32>,
}

/// Body of `PATCH /apps/A/routing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingUpdate {
    /// Left out: as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Left out: as it is; `null`: back to the default.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Option<u32>>,
}

/// Tells `null` from a field that is not there.
#[expect(clippy::option_option, reason = "a field has three states here")]
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u32>>, D::Error> {
    Option::deserialize(from).map(Some)
}
