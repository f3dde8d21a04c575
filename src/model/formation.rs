//! Process types, formation entries and the scale grammar.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DynoSize;

/// Most process types of one app.
pub const PROCESS_TYPES_MAX: usize = 256;

/// Longest command of a process type or one-off dyno, in bytes. The kernel takes 128 KiB in one
/// argument. Source: `execve(2)`, "Limits on size of arguments and environment".
pub const COMMAND_BYTES_MAX: usize = 64 << 10;

/// A process type: `^[A-Za-z0-9_-]{1,63}$`, case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessType(String);

/// A text that is no process type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a process type: use 1 to 63 letters, digits, dashes or underscores")]
pub struct ProcessTypeError(pub String);

impl ProcessType {
    /// The only type that receives HTTP and is promised a `$PORT`.
    pub fn web() -> Self {
        Self("web".to_owned())
    }

    /// The prefix of one-off dynos.
    pub fn run() -> Self {
        Self("run".to_owned())
    }

    /// The prefix of build dynos.
    pub fn build() -> Self {
        Self("build".to_owned())
    }

    /// The type whose command is the release phase; never part of a formation.
    pub fn release() -> Self {
        Self("release".to_owned())
    }

    /// True for `web`.
    pub fn is_web(&self) -> bool {
        self.0 == "web"
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProcessType {
    type Err = ProcessTypeError;

    fn from_str(text: &str) -> Result<Self, ProcessTypeError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ProcessTypeError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ProcessType {
    type Error = ProcessTypeError;

    fn try_from(text: String) -> Result<Self, ProcessTypeError> {
        text.parse()
    }
}

impl From<ProcessType> for String {
    fn from(process: ProcessType) -> Self {
        process.0
    }
}

impl fmt::Display for ProcessType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many dynos of a type are asked for, and how large each is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormationEntry {
    /// Dynos of this type, 0 to [`FormationEntry::QUANTITY_MAX`].
    pub quantity: u32,
    /// Size of each.
    pub size: DynoSize,
}

impl FormationEntry {
    /// Most dynos of one type. (Heroku: 100; one machine holds more small ones.)
    pub const QUANTITY_MAX: u32 = 1000;
}

/// One word of `ps:scale`: `web=2`, `web+1`, `web=2:standard-2x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleRequest {
    /// Which type.
    pub process: ProcessType,
    /// `2`, `+1` or `-1`, as the API takes it.
    pub quantity: String,
    /// Size name as typed, if given.
    pub size: Option<String>,
}

/// A word that is no scale request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scale request: write TYPE=N, TYPE+N or TYPE-N, with :SIZE if you like")]
pub struct ScaleError(pub String);

impl FromStr for ScaleRequest {
    type Err = ScaleError;

    /// `^([\w-]+)([=+-]\d+)(?::([\w-]+))?$`; the type is as long as can be, so `my-worker-1`
    /// is type `my-worker` and delta `-1`.
    fn from_str(text: &str) -> Result<Self, ScaleError> {
        let error = || ScaleError(text.to_owned());
        let (word, size) = match text.split_once(':') {
            Some((word, size)) if !size.is_empty() => (word, Some(size.to_owned())),
            Some(_) => return Err(error()),
            None => (text, None),
        };
        let at = word.rfind(['=', '+', '-']).ok_or_else(error)?;
        let (process, amount) = word.split_at(at);
        let digits = &amount[1..];
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        Ok(Self {
            process: process.parse().map_err(|_| error())?,
            quantity: amount.strip_prefix('=').unwrap_or(amount).to_owned(),
            size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str, Option<&str>)>) {
        let got = text.parse::<ScaleRequest>().ok();
        let got = got
            .as_ref()
            .map(|r| (r.process.as_str(), r.quantity.as_str(), r.size.as_deref()));
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn scale_words_follow_the_clients_grammar() {
        check("web=2", Some(("web", "2", None)));
        check("web+1", Some(("web", "+1", None)));
        check("my-worker-1", Some(("my-worker", "-1", None)));
        check("web=3:standard-2x", Some(("web", "3", Some("standard-2x"))));
        for bad in [
            "web", "web=", "=2", "web=x", "web=2:", "web==2", "web=-1", "we b=1", "2",
        ] {
            check(bad, None);
        }
    }
}
