//! One log line.

use jiff::Timestamp;

/// Who speaks. Source: Dev Center, "Logging".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Output of the app's dynos, and API actions (`app[api]`).
    App,
    /// The platform: states, router, codes.
    Heroku,
}

/// `TIME SOURCE[PROCESS]: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it was received, microseconds.
    pub time: Timestamp,
    /// Who speaks.
    pub source: Source,
    /// `web.1`, `router`, `api`.
    pub process: String,
    /// The text without its newline; bytes of an app need not be UTF-8.
    pub message: Vec<u8>,
}
