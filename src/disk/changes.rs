//! What became of a writable layer: the files that differ from the layers below it.
//!
//! The tree is hostile and still written to while it is read: nothing is opened through a link,
//! what vanishes meanwhile is passed over, and time, entries and depth are bounded.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use crate::sys;

/// Most changes that are listed; the rest is counted.
const LISTED_MAX: usize = 1000;

/// Most entries that are looked at.
const ENTRIES_MAX: usize = 200_000;

/// Longest look.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Most directories above an entry.
const DEPTH_MAX: usize = 128;

/// Longest path that is told, in bytes (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is new.
    Added,
    /// It was written to, replaced, or its mode was changed.
    Modified,
    /// It is gone, with what was in it.
    Deleted,
}

/// What a file is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, a FIFO or a device.
    Other,
}

/// One file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub how: How,
    /// What it is; of a deleted file, what it was.
    pub kind: FileKind,
    /// Absolute inside the dyno. Any bytes but NUL.
    pub path: PathBuf,
    /// Of a file or link that is there.
    pub size_bytes: Option<u64>,
}

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Sorted by path; at most 1000.
    pub listed: Vec<Change>,
    /// Changes that were seen and are not listed.
    pub left_out: usize,
    /// True if a bound on time, entries or depth ended the look early.
    pub is_cut: bool,
}

#[derive(Clone, Copy)]
struct Bounds {
    listed: usize,
    entries: usize,
    depth: usize,
    deadline: Instant,
}

/// Compares an upper layer with the layers under it (the topmost first). Files of `given` (path
/// below the root, content) were put there by the platform and count only if they differ from
/// that. Blocks, at most for about five seconds.
///
/// # Errors
/// A layer cannot be opened, or a directory not be read.
pub fn changes(upper: &Path, lowers: &[PathBuf], given: &[(&str, String)]) -> io::Result<Changes> {
    let bounds = Bounds {
        listed: LISTED_MAX,
        entries: ENTRIES_MAX,
        depth: DEPTH_MAX,
        deadline: Instant::now() + TIME_MAX,
    };
    look(upper, lowers, given, bounds)
}

fn look(
    upper: &Path,
    lowers: &[PathBuf],
    given: &[(&str, String)],
    bounds: Bounds,
) -> io::Result<Changes> {
    let open = |path: &Path| Ok::<_, io::Error>(OwnedFd::from(File::open(path)?));
    let upper = open(upper)?;
    let lowers = lowers.iter().map(|path| open(path));
    let lowers = lowers.collect::<io::Result<Vec<_>>>()?;
    let mut walk = Walk {
        bounds,
        given,
        seen: 0,
        found: Changes::default(),
    };
    let top = Place {
        path: b"",
        depth: 0,
        is_hidden: false,
    };
    walk.directory(&upper, &lowers, &top)?;
    Ok(walk.found)
}

/// Where the walk is.
struct Place<'a> {
    path: &'a [u8],
    depth: usize,
    /// A directory above it, or itself, hides all that lies below.
    is_hidden: bool,
}

struct Walk<'a> {
    bounds: Bounds,
    given: &'a [(&'a str, String)],
    seen: usize,
    found: Changes,
}

/// What the lower layers have under one name.
struct Below {
    kind: FileKind,
    /// Of a directory: its parts in each layer.
    dirs: Vec<OwnedFd>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        upper: &OwnedFd,
        lowers: &[OwnedFd],
        place: &Place<'_>,
    ) -> io::Result<()> {
        // True: in the upper layer.
        let mut names = BTreeMap::new();
        if place.is_hidden {
            for lower in lowers {
                self.names(lower, false, &mut names)?;
            }
        }
        self.names(upper, true, &mut names)?;
        for (name, is_there) in names {
            self.seen += 1;
            if self.seen > self.bounds.entries || Instant::now() > self.bounds.deadline {
                self.found.is_cut = true;
                return Ok(());
            }
            let path = [place.path, b"/", name.as_bytes()].concat();
            if path.len() > PATH_MAX {
                self.found.is_cut = true;
                continue;
            }
            let below = find(lowers, &name)?;
            let inner = Place {
                path: &path,
                depth: place.depth + 1,
                is_hidden: place.is_hidden,
            };
            if is_there {
                self.entry(upper, &name, below, &inner)?;
            } else if let Some(below) = below {
                self.note(How::Deleted, below.kind, &path, None);
            }
        }
        Ok(())
    }

    /// Adds the names in a directory, as many as may still be looked at.
    fn names(
        &mut self,
        dir: &OwnedFd,
        is_there: bool,
        names: &mut BTreeMap<OsString, bool>,
    ) -> io::Result<()> {
        let here = open_dir(dir, OsStr::new("."))?;
        for entry in Dir::from_fd(here)?.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if self.seen + names.len() >= self.bounds.entries {
                self.found.is_cut = true;
                break;
            }
            names.insert(name.to_owned(), is_there);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        below: Option<Below>,
        place: &Place<'_>,
    ) -> io::Result<()> {
        let Some(stat) = stat(dir, name)? else {
            return Ok(());
        };
        let kind = kind(&stat);
        let how = if below.is_some() {
            How::Modified
        } else {
            How::Added
        };
        if is_whiteout(&stat) {
            if let Some(below) = below {
                self.note(How::Deleted, below.kind, place.path, None);
            }
            return Ok(());
        }
        if kind != FileKind::Directory {
            if !self.is_as_given(dir, name, place.path, kind)? {
                let has_size = matches!(kind, FileKind::File | FileKind::Link);
                let size = has_size.then(|| u64::try_from(stat.st_size).unwrap_or(0));
                self.note(how, kind, place.path, size);
            }
            return Ok(());
        }
        let dirs = match below {
            // Made by the copy of what changed in it.
            Some(below) if below.kind == FileKind::Directory => below.dirs,
            _ => {
                self.note(how, kind, place.path, None);
                Vec::new()
            }
        };
        if place.depth >= self.bounds.depth {
            self.found.is_cut = true;
            return Ok(());
        }
        let Some(inner) = gone(open_dir(dir, name))? else {
            return Ok(());
        };
        let is_hidden = !dirs.is_empty() && (place.is_hidden || sys::is_opaque(inner.as_fd())?);
        let place = Place {
            is_hidden,
            ..*place
        };
        self.directory(&inner, &dirs, &place)
    }

    /// True for a file that is what the platform put there.
    fn is_as_given(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        kind: FileKind,
    ) -> io::Result<bool> {
        let mut given = self.given.iter();
        let given = given.find(|(name, _)| path.strip_prefix(b"/") == Some(name.as_bytes()));
        let Some((_, text)) = given.filter(|_| kind == FileKind::File) else {
            return Ok(false);
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(dir, name, flags, Mode::empty()).map_err(io::Error::from);
        let Some(file) = gone(opened)? else {
            return Ok(true);
        };
        let mut bytes = Vec::new();
        let most = text.len() as u64 + 1;
        File::from(file).take(most).read_to_end(&mut bytes)?;
        Ok(bytes == text.as_bytes())
    }

    fn note(&mut self, how: How, kind: FileKind, path: &[u8], size_bytes: Option<u64>) {
        if self.found.listed.len() >= self.bounds.listed {
            self.found.left_out += 1;
            return;
        }
        self.found.listed.push(Change {
            how,
            kind,
            path: PathBuf::from(OsStr::from_bytes(path)),
            size_bytes,
        });
    }
}

/// What the layers have under a name: the topmost that has it decides, and directories add up.
fn find(lowers: &[OwnedFd], name: &OsStr) -> io::Result<Option<Below>> {
    let mut below: Option<Below> = None;
    for lower in lowers {
        let Some(stat) = stat(lower, name)? else {
            continue;
        };
        let kind = kind(&stat);
        if kind != FileKind::Directory {
            let dirs = Vec::new();
            return Ok(below.or(Some(Below { kind, dirs })));
        }
        let found = below.get_or_insert(Below {
            kind,
            dirs: Vec::new(),
        });
        found.dirs.push(open_dir(lower, name)?);
    }
    Ok(below)
}

fn stat(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    gone(stat.map_err(io::Error::from))
}

/// `None` for what is not there, or not any more, or is another kind of file by now.
fn gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    const GONE: [Errno; 5] = [
        Errno::ENOENT,
        Errno::ENOTDIR,
        Errno::ELOOP,
        Errno::ENXIO,
        Errno::ESTALE,
    ];
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => {
            let errno = error.raw_os_error().map(Errno::from_raw);
            if errno.is_some_and(|errno| GONE.contains(&errno)) {
                Ok(None)
            } else {
                Err(error)
            }
        }
    }
}

fn kind(stat: &FileStat) -> FileKind {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => FileKind::File,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFLNK => FileKind::Link,
        _ => FileKind::Other,
    }
}

/// A character device 0:0. Source: `filesystems/overlayfs.rst`.
fn is_whiteout(stat: &FileStat) -> bool {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    kind == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn open_dir(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// An upper layer, a slug and a stack; names that end in `/` are directories.
    fn layers(upper: &[&str], slug: &[&str], stack: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (layer, names) in [("upper", upper), ("slug", slug), ("stack", stack)] {
            let layer = dir.path().join(layer);
            std::fs::create_dir(&layer).expect("made");
            for name in names {
                let path = layer.join(name);
                if name.ends_with('/') {
                    std::fs::create_dir_all(&path).expect("made");
                } else {
                    let parent = path.parent().expect("a parent");
                    std::fs::create_dir_all(parent).expect("made");
                    std::fs::write(&path, "four").expect("written");
                }
            }
        }
        dir
    }

    fn bounds() -> Bounds {
        Bounds {
            listed: 100,
            entries: 100,
            depth: 20,
            deadline: Instant::now() + Duration::from_mins(1),
        }
    }

    fn seen(dir: &Path, bounds: Bounds) -> Changes {
        let given = [("etc/hosts", "four".to_owned())];
        let lowers = [dir.join("slug"), dir.join("stack")];
        look(&dir.join("upper"), &lowers, &given, bounds).expect("looked at")
    }

    fn shown(changes: &Changes) -> Vec<String> {
        let line = |change: &Change| {
            let letter = match change.how {
                How::Added => 'A',
                How::Modified => 'M',
                How::Deleted => 'D',
            };
            let size = change.size_bytes.map_or("-".to_owned(), |s| s.to_string());
            format!(
                "{letter} {} {size} {:?}",
                change.path.display(),
                change.kind
            )
        };
        changes.listed.iter().map(line).collect()
    }

    #[test]
    fn new_and_changed_files_are_told_apart_by_the_layers_below() {
        let dir = layers(
            &[
                "app/new/one",
                "app/server",
                "etc/hosts",
                "usr/tool",
                "same/",
            ],
            &["app/server"],
            &["etc/hosts", "usr/tool", "same/", "app/"],
        );
        symlink("/etc/shadow", dir.path().join("upper/app/link")).expect("linked");
        assert_eq!(
            shown(&seen(dir.path(), bounds())),
            [
                "A /app/link 11 Link",
                "A /app/new - Directory",
                "A /app/new/one 4 File",
                "M /app/server 4 File",
                "M /usr/tool 4 File",
            ]
        );
        // What the platform put there counts once it is something else.
        std::fs::write(dir.path().join("upper/etc/hosts"), "more").expect("written");
        let all = shown(&seen(dir.path(), bounds()));
        assert!(all.contains(&"M /etc/hosts 4 File".to_owned()), "{all:?}");
    }

    #[test]
    fn a_link_is_never_followed_and_a_file_may_take_a_directorys_place() {
        let dir = layers(&["dir", "file/inside"], &["dir/old", "file"], &[]);
        std::fs::remove_file(dir.path().join("upper/dir")).expect("removed");
        symlink("../slug", dir.path().join("upper/dir")).expect("linked");
        assert_eq!(
            shown(&seen(dir.path(), bounds())),
            [
                "M /dir 7 Link",
                "M /file - Directory",
                "A /file/inside 4 File"
            ]
        );
    }

    #[test]
    fn what_is_over_a_bound_is_counted_or_said() {
        let names: Vec<String> = (0..50).map(|n| format!("f{n:02}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let dir = layers(&names, &[], &[]);
        let few = Bounds {
            listed: 10,
            ..bounds()
        };
        let found = seen(dir.path(), few);
        assert_eq!((found.listed.len(), found.left_out), (10, 40));
        assert!(!found.is_cut);
        assert_eq!(found.listed[9].path, Path::new("/f09"));
        let cut = Bounds {
            entries: 20,
            ..bounds()
        };
        let found = seen(dir.path(), cut);
        assert!(found.is_cut && found.listed.len() <= 20, "{found:?}");
        let late = Bounds {
            deadline: Instant::now(),
            ..bounds()
        };
        assert!(seen(dir.path(), late).is_cut);
        let dir = layers(&["a/a/a/a/deep"], &[], &[]);
        let shallow = Bounds {
            depth: 2,
            ..bounds()
        };
        let found = seen(dir.path(), shallow);
        assert!(found.is_cut, "{found:?}");
        assert_eq!(shown(&found), ["A /a - Directory", "A /a/a - Directory"]);
    }
}
