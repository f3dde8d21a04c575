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

/// This program, to start it in another role; tests name it, since theirs is the test's. Not its
/// path: an upgrade puts another version there, and the roles of one version belong together.
/// Source: proc(5), `/proc/pid/exe`.
pub fn own_program() -> PathBuf {
    match std::env::var_os("MANIFOLD_BIN") {
        Some(path) => path.into(),
        None => "/proc/self/exe".into(),
    }
}

/// The file that an upgrade puts another version in: where this program was found when it was
/// started. Source: proc(5), `/proc/pid/exe`.
pub fn installed_program() -> PathBuf {
    let path = std::fs::read_link("/proc/self/exe").unwrap_or_else(|_| own_program());
    // Replaced meanwhile: the kernel says so behind the name.
    let text = path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"));
    text.map(PathBuf::from).unwrap_or(path)
}

/// The name that a process so started shows in lists; the kernel would call it `exe`.
///
/// # Errors
/// The errno of prctl(2).
pub fn show_own_name() -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(c"manifold")?)
}

/// The name of a process that waits to become a dyno's first.
///
/// # Errors
/// The errno of prctl(2).
pub fn show_as_spare() -> io::Result<()> {
    Ok(nix::sys::prctl::set_name(c"manifold-spare")?)
}
