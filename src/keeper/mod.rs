//! HOW a dyno is made and kept: the small single-threaded parent of every dyno.
//!
//! The supervisor has threads, so it never forks a dyno. The keeper clones, applies the plan step
//! by step, names the step that failed, waits for its children and reports how they ended. It
//! parses nothing that a tenant wrote (commands and values pass through as opaque text), runs no
//! async code, and starts (and restarts) the supervisor, whose dynos outlive it: what the next one
//! needs lies beside each in a parcel that the keeper does not open.

mod ahead;
mod child;
mod client;
mod filter;
mod heirs;
mod init;
mod parcel;
mod privileges;
mod protocol;
mod ready;
mod reasons;
mod reign;
mod scratch;
mod serve;
mod steps;
mod users;

pub use client::{Client, ClientError, LaunchFds, LaunchReply};
pub use filter::compile as compile_filter;
pub use heirs::{Greeting, HAND_OVER, Heir, Inheritance, RENEW, greet, protocol_version};
pub use parcel::{look, pack};
pub use protocol::{Mark, StepFailure};
pub use ready::OOM_SCORE;
pub use reasons::{CHECKED, DENIED, Denied, allowed_calls};
pub use reign::{KeeperError, main, start};
