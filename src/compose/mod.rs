//! The one place that knows all rooms: picks the role, starts the rooms in order and stops them
//! in reverse.

mod journal;
mod leftovers;
mod platform;
mod state_dir;
mod supervise;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{cli, keeper, slug};

pub use platform::{Doors, Platform, PlatformError};
pub use state_dir::{StateDir, StateError};

/// Entry point of every role. The first argument picks it: `supervise`, `__keep` (the dynos'
/// parent), `__unpack` (the confined unpacker), anything else is the CLI.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|role| role.to_str()) {
        Some("supervise") => supervise::main(&arguments),
        Some("__keep") => {
            journal::start();
            keeper::main(arguments.into_iter().skip(2).collect())
        }
        Some("__unpack") => slug::unpack_main(arguments.get(2..).unwrap_or_default()),
        _ => cli::main(&arguments),
    }
}
