//! JSON shapes of the Platform API (v3), as in the public schema, and the attach frames.
//!
//! Shared with the CLI, which knows nothing else. Unknown keys are ignored on reading.

pub mod attach;
mod certs;
mod changes;
pub mod git;
mod network;
mod resources;
mod routing;
mod security;
mod traffic;

pub use certs::*;
pub use changes::*;
pub use network::*;
pub use resources::*;
pub use routing::*;
pub use security::*;
pub use traffic::*;
