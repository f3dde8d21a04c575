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
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use tar::{Builder, EntryType, Header};

use super::SlugError;
use super::digest::Hashing;
use super::gzip::Gzip;
use super::walk::{DEPTH_MAX, open_dir};
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

/// Packs the tree of `app_dir` as `./app/...` into `dest_dir`, named by its sha256, synced. The
/// same bytes go into `also`, a pipe, as long as somebody reads there.
///
/// The tree is hostile: nothing is opened through a link; devices, sockets and FIFOs are refused.
///
/// # Errors
/// Unreadable entries, refused kinds, a full disk. Nothing is left in `dest_dir` then.
pub fn pack(app_dir: &Path, dest_dir: &Path, also: Option<File>) -> Result<Packed, SlugError> {
    let part = dest_dir.join(format!(".part-{}", uuid::Uuid::new_v4()));
    let result = write(app_dir, dest_dir, &part, also);
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result
}

/// A file, and a pipe to which the same goes.
struct Fork {
    file: File,
    pipe: Option<File>,
}

impl io::Write for Fork {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(pipe) = &mut self.pipe
            && pipe.write_all(&bytes[..written]).is_err()
        {
            // Whoever read has ended, and tells why.
            self.pipe = None;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(
    app_dir: &Path,
    dest_dir: &Path,
    part: &Path,
    also: Option<File>,
) -> Result<Packed, SlugError> {
    let root = File::open(app_dir).map_err(SlugError::file("open", app_dir))?;
    let file = File::options().write(true).create_new(true).open(part);
    let file = file.map_err(SlugError::file("make", part))?;
    let fork = Fork { file, pipe: also };
    let out = BufWriter::with_capacity(1 << 17, Hashing::new(fork));
    let gzip = Gzip::new(out).map_err(SlugError::file("write", part))?;
    let mut builder = Builder::new(gzip);
    let metadata = root.metadata().map_err(SlugError::file("read", app_dir))?;
    let app = OsString::from("./app");
    append_directory(&mut builder, &app, metadata.mode())
        .map_err(SlugError::file("pack", app_dir))?;
    tree(&mut builder, &root.into(), &app, 0)?;
    let finish = || -> io::Result<(Digest, u64)> {
        let out = builder.into_inner()?.finish()?;
        let (fork, digest, bytes) = out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .finish();
        // Its reader need not wait for the disk.
        drop(fork.pipe);
        fork.file.sync_all()?;
        Ok((digest, bytes))
    };
    let (digest, size_bytes) = finish().map_err(SlugError::file("write", part))?;
    let path = dest_dir.join(format!("{digest}.tgz"));
    std::fs::rename(part, &path).map_err(SlugError::file("name", &path))?;
    File::open(dest_dir)
        .and_then(|dir| dir.sync_all())
        .map_err(SlugError::file("sync", dest_dir))?;
    Ok(Packed {
        digest,
        size_bytes,
        path,
    })
}

fn tree<W: io::Write>(
    builder: &mut Builder<W>,
    dir: &OwnedFd,
    at: &OsStr,
    depth: usize,
) -> Result<(), SlugError> {
    let shown = Path::new(at);
    if depth > DEPTH_MAX {
        let at = shown.display();
        return Err(SlugError::Refused(format!(
            "`{at}` is more than {DEPTH_MAX} directories deep"
        )));
    }
    for name in names(dir).map_err(SlugError::file("list", shown))? {
        let mut path = at.to_owned();
        path.push("/");
        path.push(&name);
        entry(builder, dir, &name, &path, depth)?;
    }
    Ok(())
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

fn entry<W: io::Write>(
    builder: &mut Builder<W>,
    dir: &OwnedFd,
    name: &OsStr,
    path: &OsStr,
    depth: usize,
) -> Result<(), SlugError> {
    let shown = Path::new(path);
    let failed = || SlugError::file("pack", shown);
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|e| failed()(e.into()))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        append_directory(builder, path, stat.st_mode).map_err(failed())?;
        let below = open_dir(dir, name).map_err(failed())?;
        return tree(builder, &below, path, depth + 1);
    }
    if kind == SFlag::S_IFLNK {
        let target = readlinkat(dir, name).map_err(|e| failed()(e.into()))?;
        let mut header = header(EntryType::Symlink, 0o777, TIME, 0);
        return builder
            .append_link(&mut header, shown, &target)
            .map_err(failed());
    }
    if kind == SFlag::S_IFREG {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(dir, name, flags, Mode::empty()).map_err(|e| failed()(e.into()))?;
        return append_file(builder, path, File::from(opened)).map_err(failed());
    }
    let shown = shown.display();
    Err(SlugError::Refused(format!(
        "`{shown}` is a device, a socket or a FIFO"
    )))
}

fn append_file<W: io::Write>(
    builder: &mut Builder<W>,
    path: &OsStr,
    mut file: File,
) -> io::Result<()> {
    let metadata = file.metadata()?;
    let (mode, size) = (metadata.mode(), metadata.len());
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
        let mut header = header(EntryType::Regular, mode, time_of(&crc), size);
        return builder.append_data(&mut header, path, file.take(size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(size).read_to_end(&mut bytes)?;
    let mut crc = Crc::new();
    crc.update(&bytes);
    let mut header = header(EntryType::Regular, mode, time_of(&crc), bytes.len() as u64);
    builder.append_data(&mut header, path, &bytes[..])
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
    use crate::slug::extract::{SLUG, extract};

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
        let one = pack(&dir.path().join("src"), dir.path(), None).expect("packed");
        let two = pack(&dir.path().join("src"), dir.path(), None).expect("packed again");
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

    #[test]
    fn a_fifo_is_refused_by_name_and_nothing_is_left() {
        let dir = app();
        let fifo = dir.path().join("src/pipe");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("made");
        let dest = tempfile::tempdir().expect("a directory");
        let error = pack(&dir.path().join("src"), dest.path(), None)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("./app/pipe"), "{error}");
        assert_eq!(std::fs::read_dir(dest.path()).expect("listed").count(), 0);
    }
}
