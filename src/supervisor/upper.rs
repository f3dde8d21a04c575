//! A dyno's writable layer: what it begins with, and what became of it.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, Changes, Volume};
use crate::rootfs;

/// The upper layer, empty but for two files. Its ids are host ids (only lowers are id-mapped), so
/// its root and the dyno's own files belong to the dyno's root.
pub(super) fn make(dir: &Path, owner: u32, hostname: &str) -> io::Result<()> {
    let give = |path: &Path| chown(path, Some(owner), Some(owner));
    let upper = dir.join("upper");
    give(&upper)?;
    give(&upper.join("etc"))?;
    for (name, text) in rootfs::dyno_files(hostname) {
        let path = upper.join(name);
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o644);
        options.open(&path)?.write_all(text.as_bytes())?;
        give(&path)?;
    }
    Ok(())
}

/// The files that the dyno changed. The volume lives as long as the look at it.
pub(super) async fn changes(
    volume: Arc<Volume>,
    lowers: Vec<PathBuf>,
    hostname: String,
) -> io::Result<Changes> {
    let look = move || {
        let given = rootfs::dyno_files(&hostname);
        disk::changes(&volume.path().join("upper"), &lowers, &given)
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|_| io::Error::other("the supervisor is stopping"))?
}
