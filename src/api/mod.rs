//! The Platform API (v3): the one door for the CLI and other clients, and for git.
//!
//! Handlers (one file per resource) read the store and the supervisor's snapshot, change things
//! only through `store`, `release` and `supervisor`, and answer in the public schema's shapes
//! (`types`). `error` alone knows HTTP statuses. Who may call: over the Unix socket root, the
//! supervisor's own user and members of the group `manifold`, told by the kernel (`SO_PEERCRED`);
//! over TCP (off unless set) who sends a token.
//! Source: Platform API Reference.

mod attach;
mod builds;
mod convert;
mod error;
mod extract;
mod files;
mod git;
mod handlers;
mod names;
mod peer;
mod prometheus;
mod range;
mod reply;
mod security;
mod server;
mod sessions;
mod state;
pub mod types;

pub use server::{ServeError, Server, bind, bind_remote};
pub use state::{Api, Parts, UpgradeRequest, Upgrades};
