//! The hub every line goes through.

use super::{Line, Source};
use crate::model::AppId;

/// Takes lines of all apps, keeps their history and feeds tails. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {}

/// Which lines a reader wants. Applied before counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Exact `web.1`, or a prefix `web` that matches `web.N`; `router` and `api` too.
    pub dyno: Option<String>,
    /// Only this source.
    pub source: Option<Source>,
}

/// A follower: the history first, then every new line, until dropped.
#[derive(Debug)]
pub struct Tail {}

impl Hub {
    /// Appends a line now, stamped by the caller. Never blocks.
    pub fn append(&self, app: AppId, line: Line) {
        let _ = (app, line);
        todo!()
    }

    /// Appends a platform line: `heroku[PROCESS]: MESSAGE`.
    pub fn platform(&self, app: AppId, process: &str, message: impl Into<String>) {
        let _ = (app, process, message.into());
        todo!()
    }

    /// Appends an API line: `app[api]: MESSAGE`.
    pub fn api(&self, app: AppId, message: impl Into<String>) {
        let _ = (app, message.into());
        todo!()
    }

    /// The last `lines` (1 to 1500) that match, oldest first.
    pub fn history(&self, app: AppId, filter: &Filter, lines: usize) -> Vec<Line> {
        let _ = (app, filter, lines);
        todo!()
    }

    /// History as [`Hub::history`], then live lines.
    pub fn tail(&self, app: AppId, filter: Filter, lines: usize) -> Tail {
        let _ = (app, filter, lines);
        todo!()
    }

    /// Forgets an app and removes its segments.
    pub fn forget(&self, app: AppId) {
        let _ = app;
        todo!()
    }
}

impl Tail {
    /// The next line; `None` when the app was forgotten. Cancel-safe.
    pub async fn next(&mut self) -> Option<Line> {
        todo!()
    }
}
