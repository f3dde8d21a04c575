//! Source → slug: buildpacks run in an isolated build dyno.
//!
//! Knows no HTTP and no SQL: the API hands it an order, and records what comes back.

mod output;
mod run;

pub use output::Output;
pub use run::{BuildError, BuildOrder, Built, run};
