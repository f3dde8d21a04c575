//! HOW a dyno is made and kept: the small single-threaded parent of every dyno.
//!
//! The supervisor has threads, so it never forks a dyno. The keeper clones, applies the plan step
//! by step, names the step that failed, waits for its children and reports how they ended. It
//! parses nothing that a tenant wrote (commands and values pass through as opaque text), runs no
//! async code, and starts (and restarts) the supervisor.

mod child;
mod client;
mod filter;
mod init;
mod privileges;
mod protocol;
mod ready;
mod reasons;
mod serve;
mod steps;
mod users;

pub use client::{Client, ClientError, LaunchFds, LaunchReply};
pub use protocol::StepFailure;
pub use ready::OOM_SCORE;
pub use reasons::{CHECKED, DENIED, Denied, allowed_calls};
pub use serve::{KeeperError, main, start};
