//! The `manifold` commands, as the `heroku` CLI names and prints them.
//!
//! Purpose: turn words into calls of the Platform API over the Unix socket and answers into text.
//! One file per topic; `arguments` is the whole grammar, `client` the only one that talks,
//! `output` the only one that prints, `exit` the list of exit statuses.
//!
//! Invariants: data goes to stdout, all else to stderr; every wait has a deadline but for those
//! that follow a stream; a terminal in raw mode is restored however the command ends.
//! Deliberately absent: any knowledge of how the platform does its work.

mod apps;
mod arguments;
mod authorizations;
mod buildpacks;
mod builds;
mod certs;
mod client;
mod config;
mod deploy;
mod diff;
mod disk;
mod dispatch;
mod domains;
mod exit;
mod features;
mod git;
mod logs;
mod network;
mod orders;
mod output;
mod pack;
mod path;
mod promote;
mod ps;
mod quote;
mod releases;
mod routing;
mod run;
mod security;
mod stack;
mod terminal;
mod time;
mod traffic;
mod upgrade;

#[cfg(test)]
mod fake;

pub use dispatch::{command, main};
pub use exit::Exit;
pub use git::git_remote_main;
