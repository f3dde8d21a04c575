//! Dyno names, states and exit statuses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ProcessType;

/// `TYPE.N`: `web.1`, `run.4711`, `release.1234`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DynoName {
    /// The process type, or `run`, `release`, `build` for one-offs.
    pub process: ProcessType,
    /// From 1 within a formation; a random four-digit number for one-offs.
    pub number: u32,
}

/// A text that is no dyno name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a dyno name: write it like web.1")]
pub struct DynoNameError(pub String);

impl DynoName {
    /// The name of dyno `number` of a process type.
    pub fn new(process: ProcessType, number: u32) -> Self {
        Self { process, number }
    }
}

impl fmt::Display for DynoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.process, self.number)
    }
}

impl FromStr for DynoName {
    type Err = DynoNameError;

    fn from_str(text: &str) -> Result<Self, DynoNameError> {
        let error = || DynoNameError(text.to_owned());
        let (process, number) = text.rsplit_once('.').ok_or_else(error)?;
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        if !digits || number.starts_with('0') {
            return Err(error());
        }
        Ok(Self {
            process: process.parse().map_err(|_| error())?,
            number: number.parse().map_err(|_| error())?,
        })
    }
}

impl TryFrom<String> for DynoName {
    type Error = DynoNameError;

    fn try_from(text: String) -> Result<Self, DynoNameError> {
        text.parse()
    }
}

impl From<DynoName> for String {
    fn from(name: DynoName) -> Self {
        name.to_string()
    }
}

/// What the API and `ps` show of a dyno. Source: Platform API, dyno `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DynoState {
    /// Launched or about to be; a web dyno has not bound `$PORT` yet.
    Starting,
    /// Serving (web: bound its port; others: exec'd).
    Up,
    /// Ended by itself or killed by the platform; waits for its next start.
    Crashed,
    /// Asleep for want of requests.
    Idle,
    /// Scaled away or stopped.
    Down,
    /// A one-off that ended. Only in log lines.
    Complete,
}

impl fmt::Display for DynoState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Crashed => "crashed",
            Self::Idle => "idle",
            Self::Down => "down",
            Self::Complete => "complete",
        })
    }
}

/// How a dyno's command ended, as a shell reports it: 0–255, 128 + n for signal n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExitStatus(pub u8);

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dyno_names_round_trip_and_junk_is_refused() {
        for good in ["web.1", "my-worker.12", "run.4711"] {
            let name: DynoName = good.parse().expect("a dyno name");
            assert_eq!(name.to_string(), good);
        }
        for bad in [
            "web", "web.", ".1", "web.0", "web.01", "web.-1", "web.x", "we b.1", "../x.1",
        ] {
            assert!(bad.parse::<DynoName>().is_err(), "{bad:?}");
        }
    }
}
