//! Config vars: the app's contract with its environment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most bytes of all keys and values of one app together.
/// Source: Dev Center, "Config Vars" (64 KB).
pub const TOTAL_BYTES_MAX: usize = 64 * 1024;

/// The config vars of a release, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigVars(BTreeMap<String, String>);

/// Why a set of config vars is refused. Values are never named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The key is not `[A-Za-z_][A-Za-z0-9_]*`.
    #[error(
        "config var key `{0}` is invalid: use letters, digits and underscores, not starting with a digit"
    )]
    Key(String),
    /// The key starts with `HEROKU_` or `__`.
    #[error("config var key `{0}` is reserved for the platform")]
    Reserved(String),
    /// The value has a NUL byte, which no environment can carry.
    #[error("the value of config var `{0}` contains a NUL byte")]
    Nul(String),
    /// Keys and values together pass [`TOTAL_BYTES_MAX`].
    #[error("config vars take {0} bytes together; at most 65536 are allowed")]
    TooLarge(usize),
}

impl ConfigVars {
    /// Applies a change (`None` removes) and checks the result; `self` is untouched on error.
    ///
    /// # Errors
    /// A key or value that is not allowed, or too much in all.
    pub fn changed<'a>(
        &self,
        change: impl IntoIterator<Item = (&'a String, &'a Option<String>)>,
    ) -> Result<Self, ConfigError> {
        let mut next = self.0.clone();
        for (key, value) in change {
            match value {
                None => {
                    next.remove(key);
                }
                Some(value) => {
                    check_key(key)?;
                    if value.contains('\0') {
                        return Err(ConfigError::Nul(key.clone()));
                    }
                    next.insert(key.clone(), value.clone());
                }
            }
        }
        let total: usize = next.iter().map(|(k, v)| k.len() + v.len()).sum();
        if total > TOTAL_BYTES_MAX {
            return Err(ConfigError::TooLarge(total));
        }
        Ok(Self(next))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// True without any config var.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn check_key(key: &str) -> Result<(), ConfigError> {
    let head = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let tail = |b: u8| head(b) || b.is_ascii_digit();
    let fits = key.bytes().next().is_some_and(head) && key.bytes().all(tail);
    if !fits {
        return Err(ConfigError::Key(key.to_owned()));
    }
    if key.starts_with("HEROKU_") || key.starts_with("__") {
        return Err(ConfigError::Reserved(key.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, value: &str, expected: &Result<(), ConfigError>) {
        let change = [(key.to_owned(), Some(value.to_owned()))];
        let got = ConfigVars::default().changed(change.iter().map(|(k, v)| (k, v)));
        assert_eq!(&got.map(|_| ()), expected, "{key:?}");
    }

    #[test]
    fn keys_values_and_the_total_are_checked() {
        check("A", "", &Ok(()));
        check("A_1", "a=b\nc", &Ok(()));
        check("1A", "x", &Err(ConfigError::Key("1A".into())));
        check("A-B", "x", &Err(ConfigError::Key("A-B".into())));
        check("", "x", &Err(ConfigError::Key(String::new())));
        check(
            "HEROKU_X",
            "x",
            &Err(ConfigError::Reserved("HEROKU_X".into())),
        );
        check("A", "x\0", &Err(ConfigError::Nul("A".into())));
        check("A", &"x".repeat(65_535), &Ok(()));
        check(
            "A",
            &"x".repeat(65_536),
            &Err(ConfigError::TooLarge(65_537)),
        );
    }
}
