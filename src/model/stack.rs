//! Stack names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The name of a stack: `host`, `cedar`. `^[a-z][a-z0-9-]{0,29}$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StackName(String);

/// A text that is no stack name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a stack name")]
pub struct StackNameError(pub String);

/// Which of a stack's two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StackImage {
    /// What dynos run on.
    Run,
    /// What builds run on: the run image and compilers.
    Build,
}

/// A stack that something runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StackRef {
    /// Its name.
    pub name: StackName,
    /// One of its builds; the newest if none is named.
    pub version: Option<Digest>,
}

impl StackRef {
    /// The newest build of a stack.
    pub fn newest(name: StackName) -> Self {
        Self {
            name,
            version: None,
        }
    }
}

impl StackName {
    /// The embedded stack: the host's own `/usr`, read-only.
    pub fn host() -> Self {
        Self("host".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StackName {
    type Err = StackNameError;

    fn from_str(text: &str) -> Result<Self, StackNameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let head = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if head && text.len() <= 30 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StackNameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for StackName {
    type Error = StackNameError;

    fn try_from(text: String) -> Result<Self, StackNameError> {
        text.parse()
    }
}

impl From<StackName> for String {
    fn from(name: StackName) -> Self {
        name.0
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
