//! Telling whether a built app is what a slug holds already.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstatat};

use super::pack::names;
use super::walk::{open_dir, open_file};

/// Bytes that are compared at once.
const PIECE: usize = 1 << 16;

/// What is looked at. Most changes show in what costs next to nothing to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Names, kinds, modes, sizes and targets of links.
    Outside,
    /// Contents of files.
    Inside,
}

/// True if packing the tree of `app_dir` would give the slug that was unpacked to `tree`: all that
/// [`super::pack`] writes down of an entry is the same. Both are read, none through a link.
///
/// # Errors
/// Something cannot be read.
pub fn is_unpacked(app_dir: &Path, tree: &Path) -> io::Result<bool> {
    let (ours, theirs) = (File::open(app_dir)?, File::open(tree.join("app"))?);
    if mode(ours.metadata()?.mode()) != mode(theirs.metadata()?.mode()) {
        return Ok(false);
    }
    let (ours, theirs) = (ours.into(), theirs.into());
    for look in [Look::Outside, Look::Inside] {
        if !directories(&ours, &theirs, look)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As deep as the slug, which has a bound of its own.
fn directories(ours: &OwnedFd, theirs: &OwnedFd, look: Look) -> io::Result<bool> {
    let all = names(theirs)?;
    if look == Look::Outside && names(ours)? != all {
        return Ok(false);
    }
    for name in &all {
        if !entries(ours, theirs, name, look)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn entries(ours: &OwnedFd, theirs: &OwnedFd, name: &OsStr, look: Look) -> io::Result<bool> {
    let stat = |dir: &OwnedFd| fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    let (one, other) = (stat(ours)?, stat(theirs)?);
    let kind = kind(&one);
    if kind != self::kind(&other) {
        return Ok(false);
    }
    if kind == SFlag::S_IFDIR {
        return Ok(mode(one.st_mode) == mode(other.st_mode)
            && directories(&open_dir(ours, name)?, &open_dir(theirs, name)?, look)?);
    }
    if kind == SFlag::S_IFLNK {
        return Ok(readlinkat(ours, name)? == readlinkat(theirs, name)?);
    }
    if kind != SFlag::S_IFREG
        || mode(one.st_mode) != mode(other.st_mode)
        || one.st_size != other.st_size
    {
        return Ok(false);
    }
    Ok(look == Look::Outside || files(open_file(ours, name)?, open_file(theirs, name)?)?)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// What a slug keeps of it.
fn mode(mode: u32) -> u32 {
    mode & 0o777
}

pub(super) fn files(mut ours: impl Read, mut theirs: impl Read) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (read, also) = (fill(&mut ours, &mut one)?, fill(&mut theirs, &mut other)?);
        if one[..read] != other[..also] {
            return Ok(false);
        }
        if read < PIECE {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file at its end.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::slug::extract::{SLUG, extract};
    use crate::slug::pack;

    fn app() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let app = dir.path().join("src");
        fs::create_dir_all(app.join("a/b")).expect("made");
        fs::write(app.join("a/b/run"), "#!/bin/sh\n").expect("written");
        fs::write(app.join("big"), vec![7; 3 * PIECE + 5]).expect("written");
        symlink("a/b/run", app.join("link")).expect("linked");
        dir
    }

    #[test]
    fn what_was_packed_is_known_again_and_every_change_is_seen() {
        let dir = app();
        let (app, tree) = (dir.path().join("src"), dir.path().join("tree"));
        let packed = pack(&app, dir.path()).expect("packed");
        fs::create_dir(&tree).expect("made");
        let root = OwnedFd::from(File::open(&tree).expect("opened"));
        let slug = File::open(&packed.path).expect("opened");
        extract(slug, &root, SLUG).expect("unpacked");
        let is_same = || is_unpacked(&app, &tree).expect("compared");
        assert!(is_same());
        // Times are not kept; what is in a file is.
        let big = File::options().write(true).open(app.join("big"));
        let big = big.expect("opened");
        big.set_modified(std::time::UNIX_EPOCH).expect("set");
        assert!(is_same());

        let other = |change: &dyn Fn(&Path)| {
            let copy = dir.path().join("copy");
            let status = std::process::Command::new("cp")
                .arg("-a")
                .args([&app, &copy])
                .status();
            assert!(status.expect("started").success());
            assert!(is_unpacked(&copy, &tree).expect("compared"));
            change(&copy);
            assert!(!is_unpacked(&copy, &tree).expect("compared"));
            fs::remove_dir_all(&copy).expect("removed");
        };
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
        };
        other(&|app| {
            let mut bytes = vec![7; 3 * PIECE + 5];
            bytes[3 * PIECE + 4] = 8;
            fs::write(app.join("big"), bytes).expect("written");
        });
        other(&|app| fs::write(app.join("a/b/run"), "#!/bin/sh\n\n").expect("written"));
        other(&|app| fs::write(app.join("a/more"), "").expect("written"));
        other(&|app| fs::remove_file(app.join("a/b/run")).expect("removed"));
        other(&|app| fs::rename(app.join("a/b"), app.join("a/c")).expect("renamed"));
        other(&|app| mode(&app.join("a/b/run"), 0o755));
        other(&|app| mode(&app.join("a"), 0o700));
        other(&|app| mode(app, 0o700));
        other(&|app| {
            fs::remove_file(app.join("link")).expect("removed");
            symlink("a/b/rum", app.join("link")).expect("linked");
        });
        // What it names has the same bytes: a link is no file.
        other(&|app| {
            fs::remove_file(app.join("link")).expect("removed");
            fs::copy(app.join("a/b/run"), app.join("link")).expect("copied");
        });
        other(&|app| {
            fs::rename(app.join("a"), app.join("z")).expect("renamed");
            symlink("z", app.join("a")).expect("linked");
        });
    }
}
