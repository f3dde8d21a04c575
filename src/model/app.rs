//! App names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A valid app name: `^[a-z][a-z0-9-]{1,28}[a-z0-9]$`, 3 to 30 characters.
/// Source: Platform API, app `name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(String);

/// Why a text is no app name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Shorter than 3 or longer than 30 characters.
    #[error("Name must be between 3 and 30 characters long.")]
    Length,
    /// A character outside `[a-z0-9-]`, or one of them in the wrong place.
    #[error(
        "Name must start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes."
    )]
    Characters,
}

impl AppName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        match (bytes.first(), bytes.last()) {
            (Some(first), Some(last))
                if first.is_ascii_lowercase() && *last != b'-' && bytes.iter().all(allowed) => {}
            (None, _) => return Err(NameError::Length),
            _ => return Err(NameError::Characters),
        }
        if !(3..=30).contains(&bytes.len()) {
            return Err(NameError::Length);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for AppName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), NameError>) {
        assert_eq!(text.parse::<AppName>().map(|_| ()), expected, "{text:?}");
    }

    #[test]
    fn app_names_follow_the_platform_rule() {
        check("warm-frost-1289", Ok(()));
        check("abc", Ok(()));
        check(&"a".repeat(30), Ok(()));
        check(&"a".repeat(31), Err(NameError::Length));
        check("ab", Err(NameError::Length));
        check("", Err(NameError::Length));
        for bad in [
            "1abc", "abc-", "-abc", "aBc", "a_bc", "../x", "a;id", "$(id)", "a\nb", "äbc",
        ] {
            check(bad, Err(NameError::Characters));
        }
    }
}
