//! The extractor: parses with the tar crate, writes through descriptors.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType};

use super::SlugError;
use super::digest::Hashing;
use super::walk::{make_dirs, open_dir, parts};
use crate::model::Digest;

/// Bounds of one archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of all files together, unpacked.
    pub(super) bytes: u64,
    /// Entries.
    pub(super) entries: u64,
    /// Every path must start with this directory.
    pub(super) prefix: Option<&'static str>,
}

/// Slugs: at most 4 GiB and 500,000 entries, all below `app/`.
pub(super) const SLUG: Bounds = Bounds {
    bytes: 4 << 30,
    entries: 500_000,
    prefix: Some("app"),
};

/// Sources: at most 1 GiB (Dev Center, "Deploying with Git": checked-out tree), 500,000 entries.
pub(super) const SOURCE: Bounds = Bounds {
    bytes: 1 << 30,
    entries: 500_000,
    prefix: None,
};

/// Unpacks a tar or gzip'd tar below `root`; returns the sha256 of all bytes of `input`.
pub(super) fn extract(
    input: impl Read,
    root: &OwnedFd,
    bounds: Bounds,
) -> Result<Digest, SlugError> {
    let unreadable = |e: io::Error| SlugError::Refused(format!("it cannot be read: {e}"));
    let mut hashing = BufReader::with_capacity(1 << 17, Hashing::new(input));
    let start = io::BufRead::fill_buf(&mut hashing).map_err(unreadable)?;
    let mut extractor = Extractor {
        root,
        bounds,
        bytes: 0,
        entries: 0,
        modes: Vec::new(),
    };
    if start.starts_with(&[0x1f, 0x8b]) {
        let mut decoder = MultiGzDecoder::new(&mut hashing);
        extractor.all(&mut decoder)?;
        extractor.drain(&mut decoder, None)?;
    } else {
        extractor.all(&mut hashing)?;
    }
    if extractor.entries == 0 {
        return Err(SlugError::Refused("it is empty".to_owned()));
    }
    // Bytes behind the end still belong to the checksum.
    io::copy(&mut hashing, &mut io::sink()).map_err(unreadable)?;
    extractor.finish()?;
    let (_, digest, _) = hashing.into_inner().finish();
    Ok(digest)
}

/// Most bytes of all headers that describe one entry (PAX, long names): they are read as a whole.
const HEADERS_MAX: u64 = 4 << 20;

/// What may still be read at this point, and whether the input had more.
#[derive(Clone, Default)]
struct Meter {
    left: Rc<Cell<u64>>,
    is_ended: Rc<Cell<bool>>,
}

/// Input that fails past its meter.
struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.meter.left.get();
        if left == 0 {
            let most = HEADERS_MAX >> 20;
            return Err(io::Error::other(format!(
                "the headers of an entry are larger than {most} MiB"
            )));
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.inner.read(&mut buffer[..most])?;
        self.meter.left.set(left - read as u64);
        if read == 0 && most > 0 {
            self.meter.is_ended.set(true);
        }
        Ok(read)
    }
}

struct Extractor<'a> {
    root: &'a OwnedFd,
    bounds: Bounds,
    bytes: u64,
    entries: u64,
    /// Directories with the modes they get when everything is inside.
    modes: Vec<(Vec<OsString>, u32)>,
}

/// Why an entry is refused whose headers readers take differently: what follows would be contents
/// to one and the next entry to another, which is how a second archive is smuggled in.
fn ambiguity(entry: &mut Entry<'_, impl Read>) -> Option<&'static str> {
    let kind = entry.header().entry_type();
    let has_contents = entry.size() > 0 || entry.header().entry_size().is_ok_and(|size| size > 0);
    let is_bare = kind.is_dir() || kind.is_symlink() || kind.is_hard_link();
    if is_bare && has_contents {
        return Some("has contents, which its kind cannot have");
    }
    let Ok(records) = entry.pax_extensions() else {
        return Some("has a header that cannot be read");
    };
    let mut seen = Vec::new();
    for record in records.into_iter().flatten() {
        let Ok(record) = record else {
            return Some("has a header that cannot be read");
        };
        let key = record.key_bytes();
        if key.starts_with(b"GNU.sparse.") {
            return Some("is a sparse file, which a slug cannot hold");
        }
        let number = record
            .value()
            .ok()
            .and_then(|value| value.parse::<u64>().ok());
        if key == b"size" && number.is_none() {
            return Some("has a size that is no number");
        }
        if [&b"size"[..], b"path", b"linkpath"].contains(&key) {
            if seen.contains(&key) {
                return Some("has a header that says one thing twice");
            }
            seen.push(key);
        }
    }
    None
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

impl Extractor<'_> {
    fn all(&mut self, input: &mut impl Read) -> Result<(), SlugError> {
        let unreadable = |e: io::Error| SlugError::Refused(format!("it cannot be read: {e}"));
        let meter = Meter::default();
        let mut archive = Archive::new(Metered {
            inner: input,
            meter: meter.clone(),
        });
        let mut entries = archive.entries().map_err(unreadable)?;
        loop {
            meter.left.set(HEADERS_MAX);
            let Some(entry) = entries.next() else {
                break;
            };
            let mut entry = entry.map_err(unreadable)?;
            meter.left.set(u64::MAX);
            self.entries += 1;
            let path = entry.path_bytes().into_owned();
            if self.entries > self.bounds.entries {
                let most = self.bounds.entries;
                return Err(SlugError::Refused(format!(
                    "it has more than {most} entries: entry `{}` is one too many",
                    shown(&path)
                )));
            }
            self.one(&mut entry)?;
            self.drain(&mut entry, Some(&path))?;
        }
        if meter.is_ended.get() {
            return Err(SlugError::Refused(
                "it is cut off: the mark of its end is missing".to_owned(),
            ));
        }
        Ok(())
    }

    /// What nobody wants (contents of a link, padding, a second archive) is bounded like the rest.
    fn drain(&mut self, input: &mut impl Read, of: Option<&[u8]>) -> Result<(), SlugError> {
        let left = self.bounds.bytes.saturating_sub(self.bytes);
        let tail = io::copy(&mut input.take(left + 1), &mut io::sink())
            .map_err(|e| SlugError::Refused(format!("it cannot be read: {e}")))?;
        if tail > left {
            return Err(self.too_large(of));
        }
        self.bytes += tail;
        Ok(())
    }

    /// The entry that passes the bound, unless it is what comes behind all of them.
    fn too_large(&self, path: Option<&[u8]>) -> SlugError {
        let most = self.bounds.bytes;
        let what = path.map_or_else(
            || "what follows its last entry".to_owned(),
            |path| format!("entry `{}`", shown(path)),
        );
        SlugError::Refused(format!(
            "it unpacks to more than {most} bytes: {what} is too large for what is left of them"
        ))
    }

    fn one(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), SlugError> {
        let path = entry.path_bytes().into_owned();
        let refuse = |why: &str| SlugError::Refused(format!("entry `{}` {why}", shown(&path)));
        let names = parts(&path).ok_or_else(|| {
            refuse("has a path that leaves the root, or that is too long or too deep")
        })?;
        if let Some(prefix) = self.bounds.prefix
            && names
                .first()
                .is_some_and(|first| *first != OsStr::new(prefix))
        {
            return Err(refuse("is not below ./app/"));
        }
        if let Some(why) = ambiguity(entry) {
            return Err(refuse(why));
        }
        let failed = |e: io::Error| refuse(&format!("cannot be written: {e}"));
        let kind = entry.header().entry_type();
        let Some((name, above)) = names.split_last() else {
            return Ok(());
        };
        if above.is_empty() && self.bounds.prefix.is_some() && kind != EntryType::Directory {
            return Err(refuse("must be a directory"));
        }
        match kind {
            EntryType::Directory => self.directory(entry, &names).map_err(failed),
            EntryType::Regular | EntryType::Continuous => {
                let dir = make_dirs(self.root, above).map_err(failed)?;
                let left = self.bounds.bytes.saturating_sub(self.bytes);
                let written = file(entry, &dir, name, left).map_err(failed)?;
                let Some(written) = written else {
                    return Err(self.too_large(Some(&path)));
                };
                self.bytes += written;
                Ok(())
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| refuse("is a link to nothing"))?;
                let dir = make_dirs(self.root, above).map_err(failed)?;
                clear(&dir, name).map_err(failed)?;
                symlinkat(OsStr::from_bytes(&target), &dir, *name).map_err(|e| failed(e.into()))
            }
            EntryType::Link => {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| refuse("is a link to nothing"))?;
                let target = parts(&target).ok_or_else(|| refuse("links outside of the root"))?;
                self.hard_link(&target, above, name).map_err(failed)
            }
            EntryType::XGlobalHeader | EntryType::XHeader => Ok(()),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                Err(refuse("is a device or a FIFO"))
            }
            _ => Err(refuse("is of a kind that a slug cannot hold")),
        }
    }

    fn directory(&mut self, entry: &Entry<'_, impl Read>, names: &[&OsStr]) -> io::Result<()> {
        let (name, above) = names.split_last().expect("checked by the caller");
        let dir = make_dirs(self.root, above)?;
        if open_dir(&dir, name).is_err() {
            clear(&dir, name)?;
            mkdirat(&dir, *name, Mode::from_bits_truncate(0o755))?;
        }
        let mode = entry.header().mode().unwrap_or(0o755) & 0o777;
        if mode != 0o755 {
            self.modes
                .push((names.iter().map(|n| (*n).to_owned()).collect(), mode));
        }
        Ok(())
    }

    fn hard_link(&self, target: &[&OsStr], above: &[&OsStr], name: &OsStr) -> io::Result<()> {
        let Some((target_name, target_above)) = target.split_last() else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let mut from = self.root.try_clone()?;
        for part in target_above {
            from = open_dir(&from, part)?;
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let target = openat(&from, *target_name, flags, Mode::empty())?;
        if !File::from(target).metadata()?.is_file() {
            return Err(io::Error::from_raw_os_error(libc::EMLINK));
        }
        let dir = make_dirs(self.root, above)?;
        clear(&dir, name)?;
        Ok(linkat(&from, *target_name, &dir, name, AtFlags::empty())?)
    }

    /// Modes of directories last, the deepest first: one without its write bit may have children.
    fn finish(mut self) -> Result<(), SlugError> {
        self.modes
            .sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        for (path, mode) in &self.modes {
            let names: Vec<&OsStr> = path.iter().map(OsString::as_os_str).collect();
            let set = || -> io::Result<()> {
                let mut dir = self.root.try_clone()?;
                for name in &names {
                    dir = open_dir(&dir, name)?;
                }
                Ok(fchmod(&dir, Mode::from_bits_truncate(*mode))?)
            };
            // Replaced by a later entry of the same name: then it has that one's mode.
            match set() {
                Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {}
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => {
                    other.map_err(|e| SlugError::Refused(format!("a directory's mode: {e}")))?;
                }
            }
        }
        Ok(())
    }
}

/// Removes what has the name, unless it is a directory with something in it.
fn clear(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    use nix::errno::Errno;
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {
            unlinkat(dir, name, UnlinkatFlags::RemoveDir).map_err(io::Error::from)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Writes a regular file; `None` when it would pass `left` bytes.
fn file(
    entry: &mut Entry<'_, impl Read>,
    dir: &OwnedFd,
    name: &OsStr,
    left: u64,
) -> io::Result<Option<u64>> {
    if entry.size() > left {
        return Ok(None);
    }
    clear(dir, name)?;
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let mut out = File::from(openat(dir, name, flags, Mode::from_bits_truncate(0o600))?);
    let written = io::copy(&mut entry.take(left + 1), &mut out)?;
    if written > left {
        return Ok(None);
    }
    let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
    fchmod(out.as_fd(), Mode::from_bits_truncate(mode))?;
    // Year 2106 at most: file systems differ in what they can hold.
    let seconds = entry.header().mtime().unwrap_or(0).min(u64::from(u32::MAX));
    let time = TimeSpec::new(i64::try_from(seconds).unwrap_or(0), 0);
    futimens(out.as_fd(), &time, &time)?;
    Ok(Some(written))
}

#[cfg(test)]
mod tests;
