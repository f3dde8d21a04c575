//! The one place that knows all rooms: picks the role, starts the rooms in order and stops them
//! in reverse.

mod doors;
mod journal;
mod leftovers;
mod platform;
mod stacks;
mod state_dir;
mod supervise;
mod uninstall;
mod upgrade;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::{cli, git, keeper, slug, sys};

pub use doors::{Doors, Kept};
pub use platform::{Platform, PlatformError};
pub use state_dir::{StateDir, StateError};

/// Entry point of every role. The first argument picks it: `supervise`, `uninstall`, `stacks:build`,
/// `stacks:import`, `__keep` (the dynos' parent), `__check` (what an upgrade asks of it), `__unpack`
/// (the confined unpacker), `__git` (a confined git), anything else is the CLI.
/// Under the name `git-remote-manifold` it is git's helper for remotes `manifold::APP`.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(std::path::Path::new);
    if name.and_then(|path| path.file_name()) == Some("git-remote-manifold".as_ref()) {
        return cli::git_remote_main(&arguments);
    }
    let role = arguments.get(1).and_then(|role| role.to_str());
    if matches!(role, Some("supervise" | "__unpack" | "__git")) {
        // A wrong name in a list is no reason not to run.
        let _ = sys::show_own_name();
    }
    match role {
        Some("supervise") => supervise::main(&arguments),
        Some("uninstall") => uninstall::main(&arguments),
        Some("stacks:build") => stacks::build_main(&arguments),
        Some("stacks:import") => stacks::import_main(&arguments),
        Some("__keep") => {
            journal::start();
            keeper::main(arguments.into_iter().skip(2).collect())
        }
        Some(upgrade::CHECK) => upgrade::main(arguments.get(2..).unwrap_or_default()),
        Some("__unpack") => slug::unpack_main(arguments.get(2..).unwrap_or_default()),
        Some("__git") => git::git_main(arguments.get(2..).unwrap_or_default()),
        _ => cli::main(&arguments),
    }
}
