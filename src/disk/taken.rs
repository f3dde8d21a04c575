//! What files take on disk, as du(1) counts it.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Counts bytes on disk; what has several names counts once, under the first that is asked for.
#[derive(Debug, Default)]
pub struct Count {
    seen: HashSet<(u64, u64)>,
}

impl Count {
    /// Bytes on disk of a path and all below it; other file systems and links are not entered.
    pub fn taken(&mut self, path: &Path) -> u64 {
        let mut total = 0;
        walk(path, |found| {
            let is_new = self.seen.insert((found.dev(), found.ino()));
            total += if is_new { found.blocks() * 512 } else { 0 };
        });
        total
    }
}

/// Bytes on disk that come free with a path and all below it: what has further names elsewhere
/// stays.
pub fn freed(path: &Path) -> u64 {
    let mut names: HashMap<(u64, u64), u64> = HashMap::new();
    let mut total = 0;
    walk(path, |found| {
        let seen = names.entry((found.dev(), found.ino())).or_default();
        *seen += 1;
        if found.is_dir() || *seen == found.nlink() {
            total += found.blocks() * 512;
        }
    });
    total
}

/// Shows a path and all below it; other file systems and links are not entered.
fn walk(path: &Path, mut show: impl FnMut(&Metadata)) {
    let Ok(top) = std::fs::symlink_metadata(path) else {
        return;
    };
    show(&top);
    let mut open = Vec::new();
    if top.is_dir() {
        open.push(path.to_owned());
    }
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.dev() != top.dev() {
                continue;
            }
            show(&found);
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
}

/// What du(1) says of a directory, for tests to compare with.
#[cfg(test)]
pub(crate) fn du(dir: &Path) -> u64 {
    let output = std::process::Command::new("du")
        .args(["-s", "-x", "--block-size=1"])
        .arg(dir)
        .output()
        .expect("du runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_as_du_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut count = Count::default();
        assert_eq!(count.taken(&dir.path().join("none")), 0);
        let sparse = std::fs::File::create(dir.path().join("sparse")).expect("made");
        sparse.set_len(1 << 30).expect("sized");
        std::fs::create_dir(dir.path().join("sub")).expect("made");
        let data = dir.path().join("sub/data");
        std::fs::write(&data, vec![1; 100_000]).expect("written");
        std::fs::hard_link(&data, dir.path().join("again")).expect("linked");
        std::os::unix::fs::symlink("/usr", dir.path().join("link")).expect("linked");
        assert_eq!(count.taken(dir.path()), du(dir.path()));
        assert_eq!(count.taken(&data), 0, "each counts once");
    }
}
