//! The tree of a slug, made beside it while it is packed, of the same bytes.
//!
//! What is written here is what unpacking the slug would give. A file that is the same in the tree
//! of the slug before becomes another name of that one: trees are only read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::same;
use super::walk::{open_dir, open_file};
use crate::sys::APP_ID;

/// A directory of the tree that is made.
#[derive(Debug)]
pub(super) struct Twin {
    here: OwnedFd,
    /// The same directory of the tree before.
    before: Option<OwnedFd>,
    /// Without root (tests) everything is ours.
    owner: Option<(Uid, Gid)>,
}

/// What a slug keeps of a file beside its name and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) mode: u32,
    pub(super) time: u64,
    pub(super) size: u64,
}

impl Twin {
    /// `root`, an empty directory, gets an `app` as unpacking would make it. `before` is an unpacked
    /// slug.
    pub(super) fn new(root: &Path, before: Option<&Path>) -> io::Result<Self> {
        let is_root = nix::unistd::geteuid().is_root();
        let above = Self {
            here: File::open(root)?.into(),
            before: before.and_then(|tree| File::open(tree).ok().map(OwnedFd::from)),
            owner: is_root.then(|| (Uid::from_raw(APP_ID), Gid::from_raw(APP_ID))),
        };
        above.directory(OsStr::new("app"))
    }

    /// A new directory in this one. Ended by [`Twin::finish`].
    pub(super) fn directory(&self, name: &OsStr) -> io::Result<Self> {
        mkdirat(&self.here, name, Mode::S_IRWXU)?;
        Ok(Self {
            here: open_dir(&self.here, name)?,
            before: self
                .before
                .as_ref()
                .and_then(|dir| open_dir(dir, name).ok()),
            owner: self.owner,
        })
    }

    /// Everything is inside: one without its write bit may have children.
    pub(super) fn finish(self, mode: u32) -> io::Result<()> {
        fchmod(&self.here, Mode::from_bits_truncate(mode & 0o777))?;
        self.give(&self.here)
    }

    pub(super) fn link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        symlinkat(target, &self.here, name)?;
        if let Some((uid, gid)) = self.owner {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(&self.here, name, Some(uid), Some(gid), flags)?;
        }
        Ok(())
    }

    /// A file of these bytes.
    pub(super) fn small(&self, name: &OsStr, kept: Kept, bytes: &[u8]) -> io::Result<()> {
        let is_same = |mut before: File| -> io::Result<bool> {
            let mut theirs = Vec::with_capacity(bytes.len() + 1);
            before.read_to_end(&mut theirs)?;
            Ok(theirs == bytes)
        };
        if self.is_known(name, kept, is_same) {
            return Ok(());
        }
        self.write(name, kept, |out| out.write_all(bytes))
    }

    /// A file that is read once more.
    pub(super) fn large(&self, name: &OsStr, kept: Kept, file: &mut File) -> io::Result<()> {
        file.rewind()?;
        if self.is_known(name, kept, |before| same::files(&mut *file, before)) {
            return Ok(());
        }
        self.write(name, kept, |out| {
            file.rewind()?;
            io::copy(&mut file.take(kept.size), out).map(drop)
        })
    }

    /// True if the tree before has the file, which has a second name here now. Whatever prevents
    /// that, it is written instead.
    fn is_known(
        &self,
        name: &OsStr,
        kept: Kept,
        is_same: impl FnOnce(File) -> io::Result<bool>,
    ) -> bool {
        let Some(before) = &self.before else {
            return false;
        };
        let linked = || -> io::Result<bool> {
            let file = open_file(before, name)?;
            if !self.would_be(&file, kept)? || !is_same(file)? {
                return Ok(false);
            }
            // Neither tree is written to by anybody else: the name still means that file.
            linkat(before, name, &self.here, name, AtFlags::empty())?;
            Ok(true)
        };
        linked().unwrap_or(false)
    }

    /// All but the bytes.
    fn would_be(&self, file: &File, kept: Kept) -> io::Result<bool> {
        let found = file.metadata()?;
        let owner = self.owner.map(|(uid, gid)| (uid.as_raw(), gid.as_raw()));
        Ok(found.is_file()
            && found.size() == kept.size
            && found.mode() & 0o7777 == kept.mode & 0o777
            && u64::try_from(found.mtime()) == Ok(kept.time)
            && found.mtime_nsec() == 0
            && owner.is_none_or(|owner| owner == (found.uid(), found.gid())))
    }

    fn write(
        &self,
        name: &OsStr,
        kept: Kept,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let made = openat(&self.here, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut out = File::from(made);
        fill(&mut out)?;
        let out = OwnedFd::from(out);
        fchmod(&out, Mode::from_bits_truncate(kept.mode & 0o777))?;
        let time = TimeSpec::new(i64::try_from(kept.time).unwrap_or(0), 0);
        futimens(out.as_fd(), &time, &time)?;
        self.give(&out)
    }

    /// The last thing: whoever gives a file away may not be allowed to change it any more.
    fn give(&self, what: &OwnedFd) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(what, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;
    use crate::model::Digest;
    use crate::settings::Paths;
    use crate::slug::extract::{SLUG, extract};
    use crate::slug::{Lately, Trees};

    /// An app, and the state directory of its slugs.
    struct Bench {
        dir: tempfile::TempDir,
        paths: Paths,
        lately: Lately,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let paths = Paths::new(dir.path().join("state"));
            for made in [paths.slugs(), paths.trees()] {
                fs::create_dir_all(made).expect("made");
            }
            let bench = Self {
                dir,
                paths,
                lately: Lately::default(),
            };
            fs::create_dir_all(bench.app().join("a/b")).expect("made");
            for at in 0..200_u32 {
                let text = format!("{at} is not {}\n", at.wrapping_mul(2_654_435_761));
                bench.put(&format!("a/file{at}"), text.repeat(500).as_bytes());
            }
            bench.put("a/b/run", b"#!/bin/sh\n");
            bench.put("a/b/large", &vec![7; (4 << 20) + 5]);
            bench.put("z", b"");
            bench.put(&"n".repeat(200), b"a long name");
            bench.mode("a/b/run", 0o755);
            bench.mode("a/b", 0o555);
            symlink("a/b/run", bench.app().join("link")).expect("linked");
            symlink("nowhere", bench.app().join("a/broken")).expect("linked");
            bench
        }

        fn app(&self) -> PathBuf {
            self.dir.path().join("app")
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            fs::write(self.app().join(name), bytes).expect("written");
        }

        fn mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.app().join(name), Permissions::from_mode(mode)).expect("set");
        }

        fn pack(&self, before: Option<Digest>) -> Digest {
            let trees = Trees::new(&self.paths);
            let (packed, made) = trees
                .pack(&self.app(), before, &self.lately)
                .expect("packed");
            made.keep();
            packed.digest
        }

        /// What a tree is, without what is not kept of a slug.
        fn tree(&self, digest: Digest) -> BTreeMap<PathBuf, String> {
            told(&self.paths.tree(&digest))
        }

        /// The same of the slug, unpacked as any other.
        fn unpacked(&self, digest: Digest) -> BTreeMap<PathBuf, String> {
            let out = tempfile::tempdir_in(self.dir.path()).expect("a directory");
            let root = OwnedFd::from(File::open(out.path()).expect("opened"));
            let slug = File::open(self.paths.slug(&digest)).expect("opened");
            assert_eq!(extract(slug, &root, SLUG).expect("unpacked"), digest);
            told(out.path())
        }

        fn inode(&self, digest: Digest, name: &str) -> u64 {
            let path = self.paths.tree(&digest).join("app").join(name);
            fs::symlink_metadata(path).expect("there").ino()
        }
    }

    fn told(tree: &Path) -> BTreeMap<PathBuf, String> {
        let mut all = BTreeMap::new();
        let mut open = vec![tree.join("app")];
        while let Some(path) = open.pop() {
            let found = fs::symlink_metadata(&path).expect("there");
            let kind = found.mode();
            let text = if found.is_dir() {
                let below = fs::read_dir(&path).expect("listed").flatten();
                open.extend(below.map(|entry| entry.path()));
                format!("{kind:o}")
            } else if found.is_symlink() {
                format!("{kind:o} {:?}", fs::read_link(&path).expect("read"))
            } else {
                let bytes = fs::read(&path).expect("read");
                let (digest, _) = crate::slug::digest_of(&bytes[..]).expect("hashed");
                let (seconds, rest) = (found.mtime(), found.mtime_nsec());
                format!("{kind:o} {seconds}.{rest} {} {digest}", bytes.len())
            };
            let name = path.strip_prefix(tree).expect("below").to_owned();
            all.insert(name, text);
        }
        all
    }

    #[test]
    fn the_tree_is_what_unpacking_the_slug_gives() {
        let bench = Bench::new();
        let digest = bench.pack(None);
        let tree = bench.tree(digest);
        assert_eq!(tree, bench.unpacked(digest));
        assert!(tree.len() > 200, "{}", tree.len());
        bench.mode("a/b", 0o755);
    }

    #[test]
    fn what_did_not_change_is_the_same_file_and_the_slug_tells_nothing_of_it() {
        let bench = Bench::new();
        let first = bench.pack(None);
        bench.mode("a/b", 0o755);
        bench.put("a/file7", b"changed");
        bench.put("a/file8", &[b'x'; 5000]);
        bench.put("a/b/large", &vec![8; (4 << 20) + 5]);
        // The bytes are the same.
        bench.mode("a/file9", 0o755);
        fs::remove_file(bench.app().join("z")).expect("removed");
        fs::create_dir(bench.app().join("z")).expect("made");
        let second = bench.pack(Some(first));
        assert_ne!(first, second);
        assert_eq!(bench.tree(second), bench.unpacked(second));
        assert_eq!(bench.tree(first), bench.unpacked(first));
        let is_shared = |name: &str| bench.inode(first, name) == bench.inode(second, name);
        for name in ["a/file10", "a/b/run"] {
            assert!(is_shared(name), "{name}");
        }
        for name in [
            "a/file7",
            "a/file8",
            "a/file9",
            "a/b/large",
            "link",
            "z",
            "a",
        ] {
            assert!(!is_shared(name), "{name}");
        }
        // Nothing of before: neither is its tree, nor are its blocks.
        let fresh = Trees::new(&bench.paths).pack(&bench.app(), None, &Lately::default());
        let (packed, made) = fresh.expect("packed");
        assert_eq!(packed.digest, second);
        made.keep();
        // A large file that stays as it is.
        let third = {
            bench.put("a/file7", b"once more");
            bench.pack(Some(second))
        };
        assert_eq!(
            bench.inode(second, "a/b/large"),
            bench.inode(third, "a/b/large")
        );
        assert_eq!(bench.tree(third), bench.unpacked(third));
    }

    #[test]
    fn a_first_slug_has_blocks_of_another_app_s_and_no_file_of_it() {
        let bench = Bench::new();
        let trees = Trees::new(&bench.paths);
        let alike = || trees.alike(&bench.app(), &bench.lately);
        bench.pack(None);
        assert_eq!(alike(), None, "no buildpack was there");
        fs::create_dir(bench.app().join(".profile.d")).expect("made");
        bench.put(".profile.d/python.sh", b"");
        assert_eq!(alike(), None);
        let other = bench.pack(None);
        assert_eq!(alike(), Some(other));
        bench.put("z", b"an app of its own");
        let first = bench.pack(None);
        assert_eq!(bench.tree(first), bench.unpacked(first));
        assert_ne!(bench.inode(other, "a/file1"), bench.inode(first, "a/file1"));
        // And the bytes are those that they would be without.
        let fresh = Trees::new(&bench.paths).pack(&bench.app(), None, &Lately::default());
        let (packed, made) = fresh.expect("packed");
        assert_eq!(packed.digest, first);
        made.keep();
        bench.put(".profile.d/ruby.sh", b"");
        assert_eq!(alike(), None);
    }

    #[test]
    fn a_tree_or_slug_that_is_not_what_it_was_is_not_taken_from() {
        let bench = Bench::new();
        let first = bench.pack(None);
        bench.mode("a/b", 0o755);
        // The disk, or somebody, changed both in place.
        let tree = bench.paths.tree(&first).join("app/a/file1");
        let time = fs::metadata(&tree)
            .expect("there")
            .modified()
            .expect("a time");
        let mut text = fs::read(&tree).expect("read");
        text[0] ^= 1;
        fs::write(&tree, text).expect("written");
        let file = File::options().write(true).open(&tree).expect("opened");
        file.set_modified(time).expect("set");
        let path = bench.paths.slug(&first);
        let mut slug = fs::read(&path).expect("read");
        for byte in slug.iter_mut().skip(100) {
            *byte ^= 0x55;
        }
        fs::write(&path, slug).expect("written");
        bench.put("a/file7", b"changed");
        let second = bench.pack(Some(first));
        assert_eq!(bench.tree(second), bench.unpacked(second));
        assert_ne!(
            bench.inode(first, "a/file1"),
            bench.inode(second, "a/file1")
        );
        assert_eq!(
            bench.inode(first, "a/file2"),
            bench.inode(second, "a/file2")
        );
    }

    #[test]
    fn nothing_is_made_through_a_link_and_nothing_is_left_of_a_failure() {
        let bench = Bench::new();
        let first = bench.pack(None);
        bench.mode("a/b", 0o755);
        // A directory of the tree before that leads elsewhere is not entered.
        let lured = bench.paths.tree(&first).join("app/a");
        fs::rename(&lured, bench.dir.path().join("elsewhere")).expect("moved");
        symlink(bench.dir.path().join("elsewhere"), &lured).expect("linked");
        bench.put("z", b"changed");
        let second = bench.pack(Some(first));
        assert_eq!(bench.tree(second), bench.unpacked(second));
        let elsewhere = fs::metadata(bench.dir.path().join("elsewhere/file2")).expect("there");
        assert_ne!(elsewhere.ino(), bench.inode(second, "a/file2"));

        let fifo = bench.app().join("pipe");
        nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).expect("made");
        let count = || fs::read_dir(bench.paths.trees()).expect("listed").count();
        let trees = count();
        let failed = Trees::new(&bench.paths).pack(&bench.app(), Some(second), &bench.lately);
        assert!(failed.is_err());
        assert_eq!(count(), trees);
    }
}
