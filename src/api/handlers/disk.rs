//! `/disk`: where the bytes below the state directory are, and how writable layers are bounded.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use axum::extract::State;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;

pub(super) async fn show(State(api): State<Api>) -> Answer {
    let dynos = dynos(&api);
    let paths = api.paths.clone();
    let parts: Vec<(&str, PathBuf)> = vec![
        ("slugs", paths.slugs()),
        ("trees", paths.trees()),
        ("stacks", paths.stacks()),
        ("caches", paths.caches()),
        ("builds", paths.builds()),
        ("volumes", paths.volumes()),
        ("logs", paths.logs()),
    ];
    let counted = tokio::task::spawn_blocking(move || {
        let count = |(name, path): &(&str, PathBuf)| json!({ "name": name, "bytes": taken(path) });
        parts.iter().map(count).collect::<Vec<Value>>()
    });
    let counted = counted
        .await
        .map_err(|_| ApiError::invalid("the supervisor is stopping"))?;
    let room = api.supervisor.disk_room();
    reply::ok(&json!({
        "state": api.paths.state(),
        "mechanism": room.as_ref().map(|room| room.mechanism.clone()),
        "free_bytes": room.as_ref().map(|room| room.free_bytes),
        "reserve_bytes": room.as_ref().map(|room| room.reserve_bytes),
        "idle_bytes": room.as_ref().map(|room| room.idle_bytes),
        "parts": counted,
        "dynos": dynos,
    }))
}

fn dynos(api: &Api) -> Vec<Value> {
    let snapshot = api.supervisor.snapshot();
    let mut found = Vec::new();
    for view in snapshot.apps.values() {
        for dyno in &view.dynos {
            let sample = api.supervisor.sample(dyno.id);
            let Some((usage, limit)) = sample.and_then(|sample| sample.disk) else {
                continue;
            };
            found.push(json!({
                "app": view.spec.name,
                "dyno": dyno.name,
                "size": dyno.size.name,
                "used_bytes": usage.used_bytes,
                "limit_bytes": limit.bytes,
                "used_inodes": usage.used_inodes,
                "limit_inodes": limit.inodes,
                "host_bytes": usage.host_bytes,
            }));
        }
    }
    found
}

/// Bytes on disk below a path; other file systems and links are not entered.
fn taken(path: &Path) -> u64 {
    let Ok(top) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    let mut total = 0;
    let mut open = vec![path.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            total += found.blocks() * 512;
            if found.is_dir() && found.dev() == top.dev() {
                open.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_nothing_and_a_missing_directory_is_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(taken(&dir.path().join("none")), 0);
        let sparse = std::fs::File::create(dir.path().join("sparse")).expect("made");
        sparse.set_len(1 << 30).expect("sized");
        std::fs::create_dir(dir.path().join("sub")).expect("made");
        std::fs::write(dir.path().join("sub/data"), vec![1; 100_000]).expect("written");
        let found = taken(dir.path());
        assert!((100_000..1_000_000).contains(&found), "{found}");
    }
}
