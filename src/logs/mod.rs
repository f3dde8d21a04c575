//! Logs as data: every line of every dyno and every platform event of an app.
//!
//! `append` never blocks and never fails its caller; history is bounded in memory
//! (1500 lines an app) and on disk (segments); a slow tail loses lines and is told (L11).

mod hub;
mod line;

pub use hub::{Filter, Hub, Tail};
pub use line::{Line, Source};
