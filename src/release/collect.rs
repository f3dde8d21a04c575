//! Removing what no release that can still run needs: slugs, builds of stacks, outputs, caches.
//!
//! What is kept: everything of the last N releases of each app, of its current one, of running
//! dynos, and the newest build of each stack. Rows change in one transaction, before the files go:
//! a release whose files are to go cannot be rolled back to any more. Nothing is collected while a
//! slug is being made or a release chosen (they hold [`Releases::storage`]).

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::Releases;
use crate::model::{Digest, ReleaseId};
use crate::rootfs::StackVersion;
use crate::store::{Keep, Kept, StoreError};

/// What went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files and directories that were removed.
    pub names: Vec<String>,
    /// What they took on disk.
    pub bytes: u64,
    /// False if a build was under way, and nothing was looked at.
    pub is_done: bool,
}

impl Releases {
    /// Held while files are made or chosen that no release names yet.
    pub async fn storage(&self) -> tokio::sync::OwnedRwLockReadGuard<()> {
        std::sync::Arc::clone(&self.inner.storage)
            .read_owned()
            .await
    }

    /// Collects; what cannot be removed is logged and tried again the next time.
    pub async fn collect(&self) -> Collected {
        let Ok(_storage) = std::sync::Arc::clone(&self.inner.storage).try_write_owned() else {
            return Collected::default();
        };
        match self.attempt().await {
            Ok(collected) => {
                for name in &collected.names {
                    tracing::info!(%name, "not needed any more: removed");
                }
                collected
            }
            Err(error) => {
                tracing::warn!(%error, "nothing was collected");
                Collected::default()
            }
        }
    }

    async fn attempt(&self) -> Result<Collected, StoreError> {
        let versions = self.inner.versions.clone();
        let all = tokio::task::spawn_blocking(move || versions.all()).await;
        let all = all.unwrap_or_default();
        let running: HashSet<ReleaseId> = {
            let snapshot = self.inner.supervisor.snapshot();
            let views = snapshot.apps.values();
            let specs = views.clone().filter_map(|view| view.spec.release_id());
            let dynos = views.flat_map(|view| view.dynos.iter().map(|dyno| dyno.release.0));
            specs.chain(dynos).collect()
        };
        let keep = Keep {
            releases: self.inner.settings.disk.keep_releases,
            running,
            stacks: newest(&all),
        };
        let kept = self.inner.store.collect(keep).await?;
        let (paths, versions) = (self.inner.settings.paths(), self.inner.versions.clone());
        let swept = tokio::task::spawn_blocking(move || {
            let mut collected = Collected {
                is_done: true,
                ..Collected::default()
            };
            for version in all.iter().filter(|v| !kept.stacks.contains(&v.digest)) {
                let bytes = version.run.bytes + version.build.bytes;
                match versions.remove(&version.digest) {
                    Ok(()) => {
                        collected.bytes += bytes;
                        let name = format!("stack {} {}", version.name, version.digest.short());
                        collected.names.push(name);
                    }
                    Err(error) => tracing::warn!(%error, "an old stack stays"),
                }
            }
            sweep(&paths.slugs(), &kept, &mut collected);
            sweep(&paths.trees(), &kept, &mut collected);
            for output in &kept.outputs {
                let path = paths.outputs().join(format!("{output}.log"));
                remove(&path, &mut collected);
            }
            caches(&paths.caches(), &kept, &mut collected);
            collected
        });
        Ok(swept.await.unwrap_or_default())
    }
}

/// The newest build of each stack: the next deploy runs on it.
fn newest(all: &[StackVersion]) -> HashSet<Digest> {
    let mut seen = HashSet::new();
    // By stack, the newest first.
    all.iter()
        .filter(|version| seen.insert(version.name.clone()))
        .map(|version| version.digest)
        .collect()
}

/// Removes slugs that nothing kept names; other names are not ours to judge.
fn sweep(dir: &Path, kept: &Kept, collected: &mut Collected) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let digest = name.strip_suffix(".tgz").unwrap_or(&name).parse::<Digest>();
        if digest.is_ok_and(|digest| !kept.slugs.contains(&digest)) {
            remove(&entry.path(), collected);
        }
    }
}

/// Removes the build caches of apps that are gone.
fn caches(dir: &Path, kept: &Kept, collected: &mut Collected) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let app = name.strip_suffix(".img").unwrap_or(&name).parse();
        if app.is_ok_and(|app| !kept.apps.contains(&app)) {
            remove(&entry.path(), collected);
        }
    }
}

fn remove(path: &Path, collected: &mut Collected) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    let bytes = crate::disk::freed(path);
    let removed = if metadata.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Ok(()) => {
            collected.bytes += bytes;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
            collected
                .names
                .push(format!("{}/{name}", parent.to_string_lossy()));
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "not removed"),
    }
}
