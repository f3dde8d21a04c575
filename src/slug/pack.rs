//! Packing a built app into a slug.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::Crc;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{SFlag, fstatat};
use tar::{Builder, EntryType, Header};

use super::SlugError;
use super::beside::{Beside, Piece};
use super::blocks::{Blocks, Source};
use super::digest::Hashing;
use super::extract::SLUG;
use super::gzip::Gzip;
use super::twin::{Kept, Twin};
use super::walk::{DEPTH_MAX, open_dir, open_file, parts};
use crate::model::Digest;

/// The time of everything in a slug: 2000-01-01. What a build made has the time of that build,
/// and the same tree has to give the same bytes.
const TIME: u64 = 946_684_800;

/// Files are later than that by their content, at most eight years: web servers tell versions of
/// a file apart by its time and size.
const TIME_SPREAD: u32 = 1 << 28;

/// Files up to this size are read once.
const SMALL: u64 = 4 << 20;

/// A slug in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Its sha256.
    pub digest: Digest,
    /// Compressed.
    pub size_bytes: u64,
    /// `DEST/DIGEST.tgz`.
    pub path: PathBuf,
}

/// Packs the tree of `app_dir` as `./app/...` into `dest_dir`, named by its sha256, synced.
///
/// The tree is hostile: nothing is opened through a link; devices, sockets and FIFOs are refused,
/// and what no slug may have.
///
/// # Errors
/// Unreadable entries, refused kinds, a full disk. Nothing is left in `dest_dir` then.
pub fn pack(app_dir: &Path, dest_dir: &Path) -> Result<Packed, SlugError> {
    let (packed, _, _) = pack_beside(app_dir, dest_dir, None, None)?;
    Ok(packed)
}

/// As [`pack`]: what `before` has is taken from there, and `tree` becomes what unpacking the slug
/// would give; if it cannot, that is told beside.
pub(super) fn pack_beside(
    app_dir: &Path,
    dest_dir: &Path,
    before: Option<Source>,
    tree: Option<Twin>,
) -> Result<(Packed, Blocks, io::Result<()>), SlugError> {
    let part = dest_dir.join(format!(".part-{}", uuid::Uuid::new_v4()));
    let result = write(app_dir, dest_dir, &part, before, tree);
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result
}

fn write(
    app_dir: &Path,
    dest_dir: &Path,
    part: &Path,
    before: Option<Source>,
    twin: Option<Twin>,
) -> Result<(Packed, Blocks, io::Result<()>), SlugError> {
    let root = File::open(app_dir).map_err(SlugError::file("open", app_dir))?;
    let file = File::options().write(true).create_new(true).open(part);
    let file = file.map_err(SlugError::file("make", part))?;
    let out = BufWriter::with_capacity(1 << 17, Hashing::new(file));
    let gzip = Gzip::new(out, before).map_err(SlugError::file("write", part))?;
    let beside = twin.map(Beside::start).transpose();
    let mut walk = Packer::new(gzip, beside.map_err(SlugError::file("write", part))?);
    let metadata = root.metadata().map_err(SlugError::file("read", app_dir))?;
    walk.directory(OsStr::new("./app"), &root.into(), metadata.mode(), 0)?;
    let Packer {
        builder, beside, ..
    } = walk;
    let finish = || -> io::Result<(Digest, u64, Blocks)> {
        let (out, blocks) = builder.into_inner()?.finish()?;
        let (file, digest, bytes) = out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .finish();
        file.sync_all()?;
        Ok((digest, bytes, blocks))
    };
    let (digest, size_bytes, blocks) = finish().map_err(SlugError::file("write", part))?;
    let path = dest_dir.join(format!("{digest}.tgz"));
    std::fs::rename(part, &path).map_err(SlugError::file("name", &path))?;
    File::open(dest_dir)
        .and_then(|dir| dir.sync_all())
        .map_err(SlugError::file("sync", dest_dir))?;
    let packed = Packed {
        digest,
        size_bytes,
        path,
    };
    // What is done beside must not fail the slug, which can be unpacked instead.
    let made = beside.map_or(Ok(()), Beside::end);
    Ok((packed, blocks, made))
}

/// Walks the tree.
struct Packer {
    builder: Builder<Gzip<BufWriter<Hashing<File>>>>,
    entries: u64,
    bytes: u64,
    /// Makes the tree.
    beside: Option<Beside>,
}

impl Packer {
    fn new(gzip: Gzip<BufWriter<Hashing<File>>>, beside: Option<Beside>) -> Self {
        Self {
            builder: Builder::new(gzip),
            entries: 0,
            bytes: 0,
            beside,
        }
    }

    /// A directory, and all below it.
    fn directory(
        &mut self,
        path: &OsStr,
        dir: &OwnedFd,
        mode: u32,
        depth: usize,
    ) -> Result<(), SlugError> {
        let shown = Path::new(path);
        if depth > DEPTH_MAX {
            let at = shown.display();
            return Err(SlugError::Refused(format!(
                "`{at}` is more than {DEPTH_MAX} directories deep"
            )));
        }
        self.begin(path, 0)?;
        append_directory(&mut self.builder, path, mode).map_err(SlugError::file("pack", shown))?;
        for name in names(dir).map_err(SlugError::file("list", shown))? {
            let mut path = path.to_owned();
            path.push("/");
            path.push(&name);
            self.entry(dir, &name, &path, depth)?;
        }
        self.beside(|| Piece::End(mode));
        Ok(())
    }

    /// Counts an entry, which has to be within the bounds of what is unpacked.
    fn begin(&mut self, path: &OsStr, size: u64) -> Result<(), SlugError> {
        let shown = Path::new(path).display();
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(size);
        if self.entries > SLUG.entries || self.bytes > SLUG.bytes {
            return Err(SlugError::Refused(format!(
                "`{shown}` is too much: a slug may have {} entries of {} GiB in all",
                SLUG.entries,
                SLUG.bytes >> 30
            )));
        }
        if parts(path.as_bytes()).is_none() {
            return Err(SlugError::Refused(format!(
                "`{shown}` is too long or too deep"
            )));
        }
        let cut = self.builder.get_mut().entry(path.as_bytes());
        cut.map_err(SlugError::file("pack", Path::new(path)))
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &OsStr,
        depth: usize,
    ) -> Result<(), SlugError> {
        let shown = Path::new(path);
        let failed = || SlugError::file("pack", shown);
        let stat =
            fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| failed()(e.into()))?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFDIR {
            let below = open_dir(dir, name).map_err(failed())?;
            self.beside(|| Piece::Directory(name.to_owned()));
            return self.directory(path, &below, stat.st_mode, depth + 1);
        }
        if kind == SFlag::S_IFLNK {
            self.begin(path, 0)?;
            let target = readlinkat(dir, name).map_err(|e| failed()(e.into()))?;
            let mut header = header(EntryType::Symlink, 0o777, TIME, 0);
            self.builder
                .append_link(&mut header, shown, &target)
                .map_err(failed())?;
            self.beside(|| Piece::Link(name.to_owned(), target));
            return Ok(());
        }
        if kind == SFlag::S_IFREG {
            let file = open_file(dir, name).map_err(failed())?;
            let metadata = file.metadata().map_err(failed())?;
            self.begin(path, metadata.size())?;
            let found = (metadata.mode(), metadata.size());
            return self.file(path, name, file, found).map_err(failed());
        }
        let shown = shown.display();
        Err(SlugError::Refused(format!(
            "`{shown}` is a device, a socket or a FIFO"
        )))
    }

    fn file(
        &mut self,
        path: &OsStr,
        name: &OsStr,
        mut file: File,
        (mode, size): (u32, u64),
    ) -> io::Result<()> {
        if size > SMALL {
            let mut crc = Crc::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    read => crc.update(&buffer[..read]),
                }
            }
            file.rewind()?;
            let time = time_of(&crc);
            let mut header = header(EntryType::Regular, mode, time, size);
            self.builder
                .append_data(&mut header, path, (&mut file).take(size))?;
            let kept = Kept { mode, time, size };
            self.beside(|| Piece::Large(name.to_owned(), kept, file));
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        file.take(size).read_to_end(&mut bytes)?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        let (time, size) = (time_of(&crc), bytes.len() as u64);
        let mut header = header(EntryType::Regular, mode, time, size);
        self.builder.append_data(&mut header, path, &bytes[..])?;
        let kept = Kept { mode, time, size };
        self.beside(|| Piece::Small(name.to_owned(), kept, bytes));
        Ok(())
    }

    fn beside(&mut self, piece: impl FnOnce() -> Piece) {
        if let Some(beside) = &mut self.beside {
            beside.add(piece());
        }
    }
}

/// Sorted, so that the same tree gives the same bytes.
pub(super) fn names(dir: &OwnedFd) -> io::Result<BTreeSet<OsString>> {
    let here = open_dir(dir, OsStr::new("."))?;
    let mut names = BTreeSet::new();
    for entry in Dir::from_fd(here)?.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.insert(name);
        }
    }
    Ok(names)
}

fn time_of(content: &Crc) -> u64 {
    TIME + u64::from(content.sum() % TIME_SPREAD)
}

fn append_directory<W: io::Write>(
    builder: &mut Builder<W>,
    path: &OsStr,
    mode: u32,
) -> io::Result<()> {
    let mut name = path.to_owned();
    name.push("/");
    let mut header = header(EntryType::Directory, mode, TIME, 0);
    builder.append_data(&mut header, name, io::empty())
}

fn header(kind: EntryType, mode: u32, time: u64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time);
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::slug::extract::extract;

    fn app() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let app = dir.path().join("src");
        std::fs::create_dir_all(app.join("a/b")).expect("made");
        std::fs::write(app.join("a/b/run"), "#!/bin/sh\n").expect("written");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(app.join("a/b/run"), mode).expect("set");
        symlink("a/b/run", app.join("link")).expect("linked");
        let long = "n".repeat(200);
        std::fs::write(app.join(&long), "long").expect("written");
        dir
    }

    #[test]
    fn what_is_packed_unpacks_the_same_and_bytes_are_stable() {
        let dir = app();
        let one = pack(&dir.path().join("src"), dir.path()).expect("packed");
        let two = pack(&dir.path().join("src"), dir.path()).expect("packed again");
        assert_eq!(one, two);
        let out = tempfile::tempdir().expect("a directory");
        let root = OwnedFd::from(File::open(out.path()).expect("opened"));
        let digest =
            extract(File::open(&one.path).expect("opened"), &root, SLUG).expect("unpacked");
        assert_eq!(digest, one.digest);
        let app = out.path().join("app");
        let mode = std::fs::metadata(app.join("a/b/run"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(app.join("link").is_symlink());
        assert!(app.join("n".repeat(200)).is_file());
    }

    /// What packing says of a tree in which so many entries were packed already.
    fn refused(dir: &tempfile::TempDir, entries: u64) -> String {
        let out = File::create(dir.path().join("out")).expect("made");
        let out = BufWriter::new(Hashing::new(out));
        let mut walk = Packer::new(Gzip::new(out, None).expect("begun"), None);
        walk.entries = entries;
        let root = File::open(dir.path().join("src")).expect("opened");
        walk.directory(OsStr::new("./app"), &root.into(), 0o755, 0)
            .expect_err("refused")
            .to_string()
    }

    #[test]
    fn what_is_too_much_is_refused_by_name() {
        let dir = app();
        // `./app`, `a`, `a/b` and `a/b/run` come first.
        let error = refused(&dir, SLUG.entries - 3);
        assert!(
            error.contains("`./app/a/b/run` is too much: a slug may have 500000 entries"),
            "{error}"
        );
        let large = File::create(dir.path().join("src/a/large")).expect("made");
        large.set_len(SLUG.bytes + 1).expect("set");
        let error = refused(&dir, 0);
        assert!(
            error.contains("`./app/a/large` is too much") && error.contains("of 4 GiB in all"),
            "{error}"
        );
    }

    #[test]
    fn a_fifo_is_refused_by_name_and_nothing_is_left() {
        let dir = app();
        let fifo = dir.path().join("src/pipe");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("made");
        let dest = tempfile::tempdir().expect("a directory");
        let error = pack(&dir.path().join("src"), dest.path())
            .expect_err("refused")
            .to_string();
        assert!(error.contains("./app/pipe"), "{error}");
        assert_eq!(std::fs::read_dir(dest.path()).expect("listed").count(), 0);
    }
}
