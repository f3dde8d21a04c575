//! What an earlier run left, removed before the first launch.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use crate::cgroup::Manager;
use crate::settings::Paths;
use crate::slug::Trees;

/// Kills and removes what carries our prefix, but is not of the `living` groups: cgroups (and so every
/// process that was in a dyno), writable layers, half-unpacked slugs. The firewall table is replaced when the network opens.
/// What cannot be removed is logged: it must not keep the platform down.
pub fn sweep(paths: &Paths, cgroups: &Manager, living: &BTreeSet<String>) {
    match cgroups.sweep(living) {
        Ok(0) => {}
        Ok(count) => tracing::info!("removed {count} cgroups of an earlier run"),
        Err(error) => tracing::warn!(%error, "a cgroup of an earlier run stays"),
    }
    let entries = fs::read_dir(paths.dynos()).into_iter().flatten().flatten();
    let mut count = 0;
    for entry in entries {
        match fs::remove_dir_all(entry.path()) {
            Ok(()) => count += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "{} stays", entry.path().display()),
        }
    }
    if count > 0 {
        tracing::info!("removed the writable layers of {count} dynos of an earlier run");
    }
    Trees::new(paths).sweep();
}

/// Leaves a mark for `uninstall` if it was us who turned IP forwarding on.
pub(super) fn remember_forwarding(paths: &Paths, was_on: bool) {
    if was_on || !crate::network::is_forwarding() {
        return;
    }
    if let Err(error) = fs::write(paths.forwarding(), "") {
        tracing::warn!(%error, "uninstall will not know that IP forwarding was off");
    }
}
