//! `/disk`: where the bytes below the state directory are, and how writable layers are bounded.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use axum::extract::State;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::disk::Count;
use crate::settings::Paths;
use crate::sys::{self, TreeFlags};

pub(super) async fn show(State(api): State<Api>) -> Answer {
    let dynos = dynos(&api);
    let paths = api.paths.clone();
    let counted = tokio::task::spawn_blocking(move || parts(&paths));
    let counted = counted
        .await
        .map_err(|_| ApiError::invalid("the supervisor is stopping"))?;
    let total: u64 = counted.iter().map(|(_, bytes)| bytes).sum();
    let counted: Vec<Value> = counted
        .into_iter()
        .map(|(name, bytes)| json!({ "name": name, "bytes": bytes }))
        .collect();
    let room = api.supervisor.disk_room();
    reply::ok(&json!({
        "state": api.paths.state(),
        "mechanism": room.as_ref().map(|room| room.mechanism.clone()),
        "free_bytes": room.as_ref().map(|room| room.free_bytes),
        "reserve_bytes": room.as_ref().map(|room| room.reserve_bytes),
        "idle_bytes": room.as_ref().map(|room| room.idle_bytes),
        "total_bytes": total,
        "parts": counted,
        "dynos": dynos,
    }))
}

/// Every byte of the state directory by what it is for: the sum is what du(1) counts.
fn parts(paths: &Paths) -> Vec<(&'static str, u64)> {
    // A view without what is mounted below (the keeper's scratch, caches in use): the files that
    // lie there are counted, as by whoever looks from outside.
    let view = sys::open_tree(paths.state(), TreeFlags::Clone).ok();
    let root = view
        .as_ref()
        .map(|view| format!("/proc/self/fd/{}/.", view.as_raw_fd()));
    let paths = &root.map_or_else(|| paths.clone(), Paths::new);
    let database = paths.database();
    let beside = |tail: &str| {
        let mut path = database.clone().into_os_string();
        path.push(tail);
        PathBuf::from(path)
    };
    let known: [(&str, Vec<PathBuf>); 14] = [
        ("slugs", vec![paths.slugs()]),
        ("trees", vec![paths.trees()]),
        ("stacks", vec![paths.stacks()]),
        ("caches", vec![paths.caches()]),
        ("builds", vec![paths.builds()]),
        ("outputs", vec![paths.outputs()]),
        ("sources", vec![paths.sources()]),
        ("repositories", vec![paths.repositories()]),
        ("buildpacks", vec![paths.buildpacks(), paths.packs()]),
        ("volumes", vec![paths.volumes(), paths.dynos()]),
        ("logs", vec![paths.logs()]),
        (
            "database",
            vec![database.clone(), beside("-wal"), beside("-shm")],
        ),
        ("certificates", vec![paths.certs()]),
        ("other", vec![paths.state().to_owned()]),
    ];
    let mut count = Count::default();
    known
        .iter()
        .map(|(name, paths)| (*name, paths.iter().map(|path| count.taken(path)).sum()))
        .collect()
}

/// Removes what no release of the last few needs.
pub(super) async fn prune(State(api): State<Api>) -> Answer {
    let collected = api.releases.collect().await;
    if !collected.is_done {
        return Err(ApiError::conflict(
            "A build is under way, whose files must not be taken for old ones: try again when it ended.",
        ));
    }
    reply::ok(&json!({ "names": collected.names, "bytes": collected.bytes }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_add_up_to_what_du_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path());
        for (path, bytes) in [
            (paths.slugs().join("a.tgz"), 100_000),
            (paths.stacks().join("x/run/usr/lib"), 50_000),
            (paths.database(), 20_000),
            (paths.logs().join("app/1"), 10_000),
            (paths.state().join("strange"), 9_000),
        ] {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, vec![1; bytes]).expect("written");
        }
        let parts = parts(&paths);
        let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, crate::disk::du(dir.path()));
        let of = |name: &str| {
            parts
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, bytes)| *bytes)
        };
        assert!(
            of("slugs") >= Some(100_000) && of("other") >= Some(9_000),
            "{parts:?}"
        );
    }
}
