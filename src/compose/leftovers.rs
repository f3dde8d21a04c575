//! Files that no row names: of builds and apps that ended while a supervisor died.

use std::collections::HashSet;
use std::path::Path;

use crate::model::Buildpack;
use crate::settings::Paths;
use crate::store::{Store, StoreError};

/// Removes slug archives and unpacked trees no slug names, buildpacks no app names, caches and
/// repositories of apps that are gone, and
/// working directories of builds (none runs at start). What cannot be removed is logged.
///
/// # Errors
/// The store cannot be read.
pub(super) async fn remove(store: &Store, paths: &Paths) -> Result<(), StoreError> {
    let digests: HashSet<String> = store
        .digests()
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    let apps: HashSet<String> = store
        .apps()
        .await?
        .iter()
        .map(|app| app.id.to_string())
        .collect();
    let packs: HashSet<String> = store
        .all_buildpacks()
        .await?
        .iter()
        .filter_map(|buildpack| match buildpack {
            Buildpack::Uploaded { digest, .. } => Some(digest.to_string()),
            Buildpack::BuiltIn(_) | Buildpack::Remote(_) => None,
        })
        .collect();
    let wanted = [
        (paths.packs(), packs),
        (paths.slugs(), digests.clone()),
        (paths.trees(), digests),
        (paths.caches(), apps.clone()),
        (paths.repositories(), apps),
        (paths.builds(), HashSet::new()),
    ];
    for (directory, keep) in wanted {
        let sweep = tokio::task::spawn_blocking(move || sweep(&directory, &keep));
        if let Err(error) = sweep.await {
            tracing::warn!(%error, "leftovers not removed");
        }
    }
    Ok(())
}

/// Removes entries whose name (without `.tgz` or `.img`) is not in `keep`.
fn sweep(directory: &Path, keep: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.strip_suffix(".tgz").or(name.strip_suffix(".img"));
        if keep.contains(stem.unwrap_or(&name)) {
            continue;
        }
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(&path),
            _ => std::fs::remove_file(&path),
        };
        match removed {
            Ok(()) => tracing::info!(path = %path.display(), "leftover removed"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "leftover not removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["aa.tgz", "bb.tgz", "cc"] {
            std::fs::write(dir.path().join(name), "x").expect("written");
        }
        std::fs::create_dir_all(dir.path().join("dd/deep")).expect("made");
        sweep(
            dir.path(),
            &HashSet::from(["aa".to_owned(), "cc".to_owned()]),
        );
        let left = std::fs::read_dir(dir.path()).expect("a directory");
        let mut left: Vec<_> = left.map(|e| e.expect("an entry").file_name()).collect();
        left.sort();
        assert_eq!(left, ["aa.tgz", "cc"]);
    }
}
