//! A root file system as bytes: tidied, then packed in one order with one time, only to be hashed.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::RootfsError;
use crate::model::Digest;

/// Times of files that are made while a stack is built, in seconds since 1970: packages' own files
/// are dated by their packages, and nothing else may tell one build from the next.
pub(super) const EPOCH: u64 = 1_700_000_000;

/// Directories that a dyno's mounts need.
const MOUNT_POINTS: &[&str] = &[
    "app", "dev", "etc", "home", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var",
    "var/tmp",
];

/// Mode bits that give a program another's rights: of no use in a dyno, which has
/// `no_new_privs`, and not wanted on the host's disk.
const SET_ID: u32 = 0o6000;

/// What an image is packed into.
#[derive(Default)]
struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A packed image's sha256, and the bytes that its files take on disk.
pub(super) fn digest(root: &Path) -> Result<(Digest, u64), RootfsError> {
    let mut builder = Builder::new(io::BufWriter::with_capacity(1 << 17, Hashing::default()));
    let mut bytes = 0;
    pack(&mut builder, root, Path::new("."), &mut bytes)?;
    let finish = || -> io::Result<Digest> {
        let hashing = builder.into_inner()?.into_inner()?;
        Ok(Digest(hashing.0.finalize().into()))
    };
    Ok((finish().map_err(RootfsError::io("pack", root))?, bytes))
}

fn pack<W: Write>(
    builder: &mut Builder<W>,
    root: &Path,
    at: &Path,
    bytes: &mut u64,
) -> Result<(), RootfsError> {
    for path in sorted(&root.join(at))? {
        let inner = at.join(path.file_name().unwrap_or_default());
        let failed = || RootfsError::io("pack", &path);
        let metadata = fs::symlink_metadata(&path).map_err(failed())?;
        *bytes += metadata.blocks() * 512;
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        header.set_mtime(seconds.min(EPOCH));
        header.set_size(0);
        if metadata.is_dir() {
            header.set_entry_type(EntryType::Directory);
            builder
                .append_data(&mut header, &inner, io::empty())
                .map_err(failed())?;
            pack(builder, root, &inner, bytes)?;
        } else if metadata.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            let target = fs::read_link(&path).map_err(failed())?;
            builder
                .append_link(&mut header, &inner, &target)
                .map_err(failed())?;
        } else {
            header.set_size(metadata.len());
            let file = File::open(&path).map_err(failed())?;
            builder
                .append_data(&mut header, &inner, file)
                .map_err(failed())?;
        }
    }
    Ok(())
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>, RootfsError> {
    let entries = fs::read_dir(dir).map_err(RootfsError::io("read", dir))?;
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(RootfsError::io("read", dir))?;
    paths.sort();
    Ok(paths)
}

/// Makes a root file system one that dynos can stand on: mount points are there, devices are not,
/// nothing carries a set-id bit.
///
/// # Errors
/// It is none (`reason` says why), or a file operation fails.
pub(super) fn tidy(root: &Path, file: &Path) -> Result<(), RootfsError> {
    let refuse = |reason: String| RootfsError::Import {
        path: file.to_owned(),
        reason,
    };
    let is_dir = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if !is_dir(&root.join("usr")) {
        return Err(refuse("there is no directory usr/ in it".to_owned()));
    }
    for name in ["bin", "lib", "sbin"] {
        // The launch plan relies on it. Source: Debian's merged /usr.
        if fs::symlink_metadata(root.join(name)).is_ok_and(|found| !found.is_symlink()) {
            return Err(refuse(format!("{name} is no link to usr/{name}")));
        }
    }
    for name in MOUNT_POINTS {
        let path = root.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => return Err(refuse(format!("{name} is no directory"))),
            Err(_) => fs::create_dir(&path).map_err(RootfsError::io("make", &path))?,
        }
        if name.ends_with("tmp") {
            let mode = Permissions::from_mode(0o1777);
            fs::set_permissions(&path, mode).map_err(RootfsError::io("change", &path))?;
        }
    }
    // A dyno has a /dev of its own.
    for path in sorted(&root.join("dev"))? {
        let removed = if is_dir(&path) {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(RootfsError::io("remove", &path))?;
    }
    disarm(root, root, file)
}

fn disarm(root: &Path, dir: &Path, file: &Path) -> Result<(), RootfsError> {
    for path in sorted(dir)? {
        let failed = || RootfsError::io("read", &path);
        let metadata = fs::symlink_metadata(&path).map_err(failed())?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            disarm(root, &path, file)?;
        } else if kind.is_file() {
            let mode = metadata.mode() & 0o7777;
            if mode & SET_ID != 0 {
                let mode = Permissions::from_mode(mode & !SET_ID);
                fs::set_permissions(&path, mode).map_err(RootfsError::io("change", &path))?;
            }
        } else if kind.is_block_device()
            || kind.is_char_device()
            || kind.is_fifo()
            || kind.is_socket()
        {
            let inner = path.strip_prefix(root).unwrap_or(&path).display();
            return Err(RootfsError::Import {
                path: file.to_owned(),
                reason: format!("{inner} is a device, socket or pipe"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn root(dir: &Path) {
        fs::create_dir_all(dir.join("usr/bin")).expect("made");
        fs::write(dir.join("usr/bin/su"), "su").expect("written");
        fs::set_permissions(dir.join("usr/bin/su"), Permissions::from_mode(0o4755)).expect("set");
        symlink("usr/bin", dir.join("bin")).expect("linked");
        symlink("/usr/bin/su", dir.join("usr/bin/doas")).expect("linked");
    }

    #[test]
    fn the_same_tree_has_the_same_digest_and_every_change_another() {
        let (one, two) = (tempfile::tempdir(), tempfile::tempdir());
        let (one, two) = (one.expect("a directory"), two.expect("a directory"));
        let of = |dir: &tempfile::TempDir| {
            root(dir.path());
            tidy(dir.path(), Path::new("f")).expect("a stack");
        };
        of(&one);
        of(&two);
        let first = digest(one.path()).expect("packed");
        assert_eq!(first.0, digest(two.path()).expect("packed").0);
        fs::write(two.path().join("usr/bin/su"), "so").expect("written");
        let other = digest(two.path()).expect("packed").0;
        assert_ne!(first.0, other);
        fs::set_permissions(two.path().join("usr/bin/su"), Permissions::from_mode(0o700))
            .expect("set");
        assert_ne!(other, digest(two.path()).expect("packed").0);
    }

    #[test]
    fn what_is_no_stack_is_refused_and_set_id_bits_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let refused = |dir: &Path| {
            tidy(dir, Path::new("f.tar"))
                .expect_err("refused")
                .to_string()
        };
        assert!(refused(dir.path()).contains("f.tar holds no stack: there is no directory usr/"));
        root(dir.path());
        tidy(dir.path(), Path::new("f.tar")).expect("a stack");
        let mode = fs::metadata(dir.path().join("usr/bin/su"))
            .expect("there")
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert!(dir.path().join("proc").is_dir());
        let socket = dir.path().join("usr/socket");
        let _socket = UnixListener::bind(&socket).expect("bound");
        assert!(refused(dir.path()).contains("usr/socket is a device, socket or pipe"));
        fs::remove_file(&socket).expect("removed");
        fs::remove_file(dir.path().join("bin")).expect("removed");
        fs::create_dir(dir.path().join("bin")).expect("made");
        assert!(refused(dir.path()).contains("bin is no link to usr/bin"));
    }
}
