//! Who owns files that a dyno's user is to own, and which file this program is.

use std::io;
use std::path::{Path, PathBuf};

/// Id of the `dyno` user on disk: layers are id-mapped, so disk ids are the dyno's ids.
pub const APP_ID: u32 = 1000;

/// Gives a path (no link followed) to the `dyno` user. Without root (tests) files stay the
/// caller's, who then is the user that "dynos" run as.
///
/// # Errors
/// The errno of lchown(2).
pub fn give_to_app(path: &Path) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::lchown(path, Some(APP_ID), Some(APP_ID))
    } else {
        Ok(())
    }
}

/// This program's file, to start it in another role; tests name it, since theirs is the test's.
///
/// # Errors
/// The errno of readlink(2).
pub fn own_program() -> io::Result<PathBuf> {
    match std::env::var_os("MANIFOLD_BIN") {
        Some(path) => Ok(path.into()),
        None => std::env::current_exe(),
    }
}
