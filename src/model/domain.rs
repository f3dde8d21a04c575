//! Host names that route to an app.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A lower-case DNS host name, or a wildcard for its left-most label (`*.example.com`).
/// Source: Dev Center, "Custom Domain Names for Apps".
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(String);

/// Why a text is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// More than 253 bytes, or empty.
    #[error("a domain name has 1 to 253 characters")]
    Length,
    /// A label that is empty, longer than 63, or with a character outside `[a-z0-9-]`.
    #[error(
        "`{0}` is not a label of a domain name: use letters, digits and inner dashes (punycode for other scripts)"
    )]
    Label(String),
}

impl Hostname {
    /// The name as text, lower case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For `*.example.com`: `example.com`.
    pub fn wildcard_base(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl FromStr for Hostname {
    type Err = HostnameError;

    fn from_str(text: &str) -> Result<Self, HostnameError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if text.is_empty() || text.len() > 253 {
            return Err(HostnameError::Length);
        }
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        for (at, label) in text.split('.').enumerate() {
            let wildcard = at == 0 && label == "*" && text.len() > 2;
            let fits = (1..=63).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-');
            if !wildcard && !fits {
                return Err(HostnameError::Label(label.to_owned()));
            }
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for Hostname {
    type Error = HostnameError;

    fn try_from(text: String) -> Result<Self, HostnameError> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_lowered_and_checked() {
        let ok = |text: &str| text.parse::<Hostname>().map(String::from);
        assert_eq!(ok("WWW.Example.com.").as_deref(), Ok("www.example.com"));
        assert_eq!(ok("*.example.com").as_deref(), Ok("*.example.com"));
        for bad in [
            "",
            ".",
            "a..b",
            "a b",
            "www.*.com",
            "*",
            "-a.com",
            "a-.com",
            "a/b",
            "ä.com",
        ] {
            assert!(ok(bad).is_err(), "{bad:?}");
        }
    }
}
