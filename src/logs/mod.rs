//! Logs as data: every line of every dyno and every platform event of an app.
//!
//! `append` never blocks and never fails its caller; history is bounded in memory (1500 lines and
//! 4 MiB an app) and on disk (two segments an app); a slow tail loses lines and is told (L11). An
//! app whose dynos print without end loses lines of theirs, counted and told (L10), and is read
//! more slowly: no other app's lines suffer.

mod budget;
mod disk;
mod hub;
mod line;
mod pump;
mod split;
mod tail;

pub use hub::{Filter, Hub, HubError};
pub use line::{Line, Source};
pub use pump::pump;
pub use split::{LINE_MAX, Splitter};
pub use tail::Tail;
