//! JSON shapes of the Platform API (v3), as in the public schema, and the attach frames.
//!
//! Shared with the CLI, which knows nothing else. Unknown keys are ignored on reading.

pub mod attach;
mod certs;
pub mod git;
mod resources;
mod routing;
mod traffic;

pub use certs::*;
pub use resources::*;
pub use routing::*;
pub use traffic::*;
