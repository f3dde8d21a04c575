//! JSON shapes of the Platform API (v3), as in the public schema, and the attach frames.
//!
//! Shared with the CLI, which knows nothing else. Unknown keys are ignored on reading.

pub mod attach;
mod certs;
pub mod git;
mod resources;

pub use certs::*;
pub use resources::*;
