//! The state directory: made, locked, tidied of what an earlier run left half done.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::settings::Paths;
use crate::sys;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another supervisor has it.
    #[error(
        "another supervisor{} uses {state}: stop it, or give this one its own --state and --socket",
        pid.as_ref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    Locked {
        /// The state directory.
        state: PathBuf,
        /// Who, as it wrote itself.
        pid: Option<String>,
    },
    /// A file operation failed.
    #[error("cannot {act} {path}")]
    Io {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A state directory that is ours as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    /// Eight hex digits: the prefix of all we make in the kernel.
    pub instance: String,
    _lock: Flock<File>,
}

fn fail(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { act, path, source }
}

impl StateDir {
    /// Makes what is missing (mode 0700), takes the lock and removes half-done uploads.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn open(paths: &Paths) -> Result<Self, StateError> {
        make(paths.state())?;
        let lock = lock(paths)?;
        for directory in [
            paths.slugs(),
            paths.trees(),
            paths.dynos(),
            paths.stacks(),
            paths.builds(),
            paths.outputs(),
            paths.sources(),
            paths.logs(),
            paths.buildpacks(),
            paths.caches(),
            paths.volumes(),
        ] {
            make(&directory)?;
        }
        // ext4 without a journal takes no inode that was freed lately, and looks at each of them: beside
        // a tree that was removed, one of a thousand files took seconds.
        // Source: Linux, fs/ext4/ialloc.c, `recently_deleted`.
        let spread = File::open(paths.trees()).and_then(|dir| sys::spread_out(dir.as_fd()));
        if let Err(error) = spread {
            tracing::debug!(%error, "trees lie where the file system puts them");
        }
        // Upload URLs do not outlive a supervisor, so neither do the uploads.
        remove_files(&paths.sources(), |_| true)?;
        remove_files(&paths.slugs(), |path| {
            path.extension() != Some("tgz".as_ref())
        })?;
        Ok(Self {
            instance: instance(&paths.instance())?,
            _lock: lock,
        })
    }
}

fn make(directory: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(fail("make directory", directory))
}

/// The kernel frees the lock with its last holder, however that ends.
fn lock(paths: &Paths) -> Result<Flock<File>, StateError> {
    let path = paths.lock();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(fail("open", &path))?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => {
            let pid = std::fs::read_to_string(&path).ok();
            let pid = pid.map(|pid| pid.trim().to_owned());
            return Err(StateError::Locked {
                state: paths.state().to_owned(),
                pid: pid.filter(|pid| !pid.is_empty()),
            });
        }
        Err((_, errno)) => return Err(fail("lock", &path)(errno.into())),
    };
    // For the message of the next one only; the lock itself does not depend on it.
    lock.set_len(0).map_err(fail("write", &path))?;
    writeln!(&*lock, "{}", std::process::id()).map_err(fail("write", &path))?;
    Ok(lock)
}

fn remove_files(directory: &Path, is_unwanted: fn(&Path) -> bool) -> Result<(), StateError> {
    let entries = std::fs::read_dir(directory).map_err(fail("read directory", directory))?;
    for entry in entries {
        let entry = entry.map_err(fail("read directory", directory))?;
        let path = entry.path();
        if is_unwanted(&path) {
            std::fs::remove_file(&path).map_err(fail("remove", &path))?;
        }
    }
    Ok(())
}

/// Made once, then kept for ever: leftovers of earlier runs are found by it.
fn instance(path: &Path) -> Result<String, StateError> {
    match std::fs::read_to_string(path) {
        Ok(text) if is_instance(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => {
            let error = io::Error::new(io::ErrorKind::InvalidData, "not eight hex digits");
            return Err(fail("use", path)(error));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("read", path)(error)),
    }
    let made = format!("{:08x}", rand::random::<u32>());
    let written = sys::replace_file(path, format!("{made}\n").as_bytes(), 0o644);
    written.map_err(fail("write", path))?;
    Ok(made)
}

fn is_instance(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_second_supervisor_is_refused_and_told_who_has_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path().join("state"));
        let first = StateDir::open(&paths).expect("opened");
        let error = StateDir::open(&paths).expect_err("refused").to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!("(pid {pid}) uses")), "{error}");
        let instance = first.instance.clone();
        drop(first);
        let again = StateDir::open(&paths).expect("free again");
        assert_eq!(again.instance, instance);
    }

    #[test]
    fn directories_are_private_and_half_done_uploads_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path().join("state"));
        drop(StateDir::open(&paths).expect("opened"));
        let mode = std::fs::metadata(paths.state())
            .expect("there")
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        let keep = paths.slugs().join("aa.tgz");
        let part = paths.slugs().join("bb.part");
        let source = paths.sources().join("cc.tgz");
        for path in [&keep, &part, &source] {
            std::fs::write(path, "x").expect("written");
        }
        drop(StateDir::open(&paths).expect("opened"));
        assert!(keep.exists() && !part.exists() && !source.exists());
    }
}
