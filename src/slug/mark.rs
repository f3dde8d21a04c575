//! Which trees are on disk, whatever happens.
//!
//! A tree is put in its place before its bytes are on disk: a push would wait too long. They are
//! written beside what goes on, and then the tree is marked. After a power loss a tree without its
//! mark may be anything; it is made anew from the slug, which is synced before anybody names it.
//! While the machine runs, it is what was written, even to a supervisor that came later.
//!
//! The mark is the time of the tree's directory: it cannot be there without the tree, and no dyno
//! sees it as a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;
use nix::unistd::syncfs;

use crate::model::Digest;
use crate::settings::Paths;
use crate::sys;

/// 2000-01-01, which no directory gets by itself.
const MARK: i64 = 946_684_800;

/// Names this start of the machine.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Waits until the tree's bytes are on disk, and marks it.
pub(super) fn settle(tree: &Path) {
    let settled = || -> io::Result<()> {
        let dir = File::open(tree)?;
        syncfs(&dir)?;
        let time = TimeSpec::new(MARK, 0);
        Ok(futimens(&dir, &time, &time)?)
    };
    match settled() {
        Ok(()) => {}
        // Its app was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(tree = %tree.display(), %error, "a tree is perhaps not on disk");
        }
    }
}

/// True if the tree is on disk as it was made.
fn is_settled(tree: &Path) -> bool {
    std::fs::symlink_metadata(tree)
        .is_ok_and(|found| found.mtime() == MARK && found.mtime_nsec() == 0)
}

/// Removes the trees that the machine's last end may have spoilt; those without a mark that it
/// cannot have are returned. To be called before any tree is used or made.
pub(super) fn review(paths: &Paths) -> Vec<PathBuf> {
    let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
    review_at(paths, boot.trim())
}

fn review_at(paths: &Paths, boot: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(paths.trees());
    let trees = entries.into_iter().flatten().flatten();
    let mut open: Vec<PathBuf> = trees
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .parse::<Digest>()
                .is_ok()
        })
        .map(|entry| entry.path())
        .filter(|tree| !is_settled(tree))
        .collect();
    let last = std::fs::read_to_string(paths.boot());
    if last.as_ref().is_ok_and(|last| last == boot) {
        return open;
    }
    // Without a record there was no version of ours that kept one: nothing is known of the machine's
    // last end, and dynos that are taken over may run on these trees.
    if last.is_ok() {
        open.retain(|tree| !remove(tree));
    }
    // On disk before the first tree of this start is made.
    if let Err(error) = sys::replace_file(&paths.boot(), boot.as_bytes(), 0o644) {
        tracing::warn!(%error, "trees may be made anew at the next start");
    }
    open
}

fn remove(tree: &Path) -> bool {
    let shown = tree.display();
    match std::fs::remove_dir_all(tree) {
        Ok(()) => {
            tracing::info!("{shown} was perhaps not on disk when the machine ended: removed");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "{shown} was perhaps not on disk when the machine ended, and stays");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree(paths: &Paths, byte: u8) -> PathBuf {
        let tree = paths.tree(&Digest([byte; 32]));
        fs::create_dir_all(tree.join("app")).expect("made");
        tree
    }

    #[test]
    fn a_tree_without_its_mark_does_not_outlive_the_machine_s_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path());
        let (marked, open) = (tree(&paths, 1), tree(&paths, 2));
        let other = paths.trees().join("not-ours");
        fs::create_dir(&other).expect("made");
        settle(&marked);
        // Of a version that kept no record: nobody knows.
        assert_eq!(review_at(&paths, "one"), std::slice::from_ref(&open));
        // The same start of the machine: a supervisor that came later.
        assert_eq!(review_at(&paths, "one"), std::slice::from_ref(&open));
        assert!(marked.is_dir() && open.is_dir());
        assert!(review_at(&paths, "two").is_empty());
        assert!(marked.is_dir() && !open.exists() && other.is_dir());
        let open = tree(&paths, 3);
        assert_eq!(review_at(&paths, "two"), std::slice::from_ref(&open));
        settle(&open);
        assert!(review_at(&paths, "three").is_empty());
        assert!(open.is_dir());
        // A record that was lost with the power.
        let open = tree(&paths, 4);
        fs::write(paths.boot(), "").expect("written");
        assert!(review_at(&paths, "three").is_empty());
        assert!(!open.exists() && marked.is_dir());
    }

    #[test]
    fn something_new_in_a_tree_takes_its_mark() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = tree(&Paths::new(dir.path()), 1);
        assert!(!is_settled(&tree));
        settle(&tree);
        assert!(is_settled(&tree));
        fs::write(tree.join("more"), "").expect("written");
        assert!(!is_settled(&tree));
    }
}
