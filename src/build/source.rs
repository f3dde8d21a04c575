//! A build's working directory: the source, cleaned, and what the build dyno gets beside it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::ignore::{self, Ignore};
use super::tree::{self, Found};
use crate::disk::Keep;
use crate::model::{BuildId, ConfigVars};
use crate::settings::Paths;
use crate::supervisor::Supervisor;
use crate::sys;

/// Config vars that would break the build itself. Source: Dev Center, "Buildpack API" (the list
/// that buildpacks are told to leave out).
const DENIED: &[&str] = &[
    "PATH",
    "GIT_DIR",
    "CPATH",
    "CPPATH",
    "LD_PRELOAD",
    "LIBRARY_PATH",
];

/// Deepest directory that `.slugignore` looks into; deeper ones do not get into a slug either.
const DEPTH_MAX: usize = 256;

/// The directory of one build. Removed when dropped, in any case.
#[derive(Debug)]
pub(super) struct Workdir {
    builds: PathBuf,
    name: String,
    is_removed: bool,
    /// Who bounds it, and is told when it ends.
    bounds: Option<Supervisor>,
}

impl Workdir {
    /// Makes it on a volume of its own, so that no build fills the host's disk.
    ///
    /// # Errors
    /// It cannot be made, or the host's disk has no room to spare.
    pub(super) async fn bounded(
        supervisor: &Supervisor,
        paths: &Paths,
        id: BuildId,
    ) -> io::Result<Self> {
        let mut workdir = Self::empty(paths, id)?;
        let bound = supervisor.bound(workdir.path(), Keep::Nothing).await;
        bound.map_err(|failure| io::Error::other(failure.reason))?;
        workdir.bounds = Some(supervisor.clone());
        workdir.fill()?;
        Ok(workdir)
    }

    /// Makes it, with `source`, `env` and `result` in it, all of the `dyno` user.
    ///
    /// # Errors
    /// It cannot be made.
    #[cfg(test)]
    pub(super) fn make(paths: &Paths, id: BuildId) -> io::Result<Self> {
        let workdir = Self::empty(paths, id)?;
        workdir.fill()?;
        Ok(workdir)
    }

    fn empty(paths: &Paths, id: BuildId) -> io::Result<Self> {
        let workdir = Self {
            builds: paths.builds(),
            name: id.to_string(),
            is_removed: false,
            bounds: None,
        };
        make(&workdir.path(), 0o700)?;
        Ok(workdir)
    }

    fn fill(&self) -> io::Result<()> {
        for part in [self.source(), self.env(), self.packs(), self.result()] {
            make(&part, 0o755)?;
            sys::give_to_app(&part)?;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.builds.join(&self.name)
    }

    /// The app's files: what becomes `/app`.
    pub(super) fn source(&self) -> PathBuf {
        self.path().join("source")
    }

    /// Config vars as files.
    pub(super) fn env(&self) -> PathBuf {
        self.path().join("env")
    }

    /// Buildpacks that were uploaded, unpacked.
    pub(super) fn packs(&self) -> PathBuf {
        self.path().join("packs")
    }

    /// Where the driver script leaves what it found out.
    pub(super) fn result(&self) -> PathBuf {
        self.path().join("result")
    }

    /// Its bound in bytes, if that is reached.
    pub(super) fn filled(&self) -> Option<u64> {
        self.bounds.as_ref()?.filled(&self.path())
    }

    /// The blocking work of removing it.
    fn removal(&mut self) -> impl FnOnce() + Send + use<> {
        let (builds, name) = (self.builds.clone(), self.name.clone());
        let bounds = self.bounds.take();
        move || {
            if let Some(supervisor) = bounds {
                supervisor.unbound(&builds.join(&name));
            }
            remove(&builds, &name);
        }
    }

    /// Removes it; what cannot be removed is logged (and swept at the next start).
    pub(super) async fn remove(mut self) {
        self.is_removed = true;
        let removing = tokio::task::spawn_blocking(self.removal());
        if let Err(error) = removing.await {
            tracing::warn!(%error, "a build's directory was not removed");
        }
    }
}

impl Drop for Workdir {
    /// A cancelled build.
    fn drop(&mut self) {
        if !self.is_removed {
            sys::in_background(self.removal());
        }
    }
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn remove(builds: &Path, name: &str) {
    let removed = File::open(builds).and_then(|dir| tree::remove(&dir, OsStr::new(name)));
    if let Err(error) = removed {
        tracing::warn!(build = name, %error, "a build's directory was not removed");
    }
}

/// Writes config vars as files: name = key, contents = value, no newline added. Returns keys that
/// no file can be named after.
///
/// # Errors
/// A file cannot be written.
pub(super) fn write_env(dir: &Path, config: &ConfigVars) -> io::Result<Vec<String>> {
    let mut left_out = Vec::new();
    for (key, value) in config.iter() {
        if DENIED.contains(&key) {
            continue;
        }
        if key.len() > 255 {
            left_out.push(key.to_owned());
            continue;
        }
        let path = dir.join(key);
        fs::write(&path, value)?;
        fs::set_permissions(&path, Permissions::from_mode(0o400))?;
        sys::give_to_app(&path)?;
    }
    Ok(left_out)
}

/// Most bytes of a `.gitmodules`.
const GITMODULES_MAX: u64 = 1 << 20;

/// Puts what names the submodules where the driver finds it: the cleaned source has it no more.
///
/// # Errors
/// A file cannot be read or written.
pub(super) fn keep_submodules(
    workdir: &Workdir,
    submodules: &[(String, String)],
) -> io::Result<()> {
    if submodules.is_empty() {
        return Ok(());
    }
    let text = match tree::read_file(&workdir.source(), ".gitmodules", GITMODULES_MAX)? {
        Found::Bytes(bytes) => bytes,
        // The driver says what is missing.
        Found::Missing | Found::Refused(_) => Vec::new(),
    };
    let mut list = String::new();
    for (commit, path) in submodules {
        list.extend([commit, "\t", path, "\n"]);
    }
    for (name, bytes) in [("gitmodules", text), ("submodules", list.into_bytes())] {
        let path = workdir.result().join(name);
        fs::write(&path, bytes)?;
        sys::give_to_app(&path)?;
    }
    Ok(())
}

/// Removes what never gets into a build: `.git`, `.gitmodules`, the contents of `log/` and
/// `tmp/`, then what `.slugignore` names. Returns warnings. Source: Dev Center, "Slug Compiler".
///
/// # Errors
/// Something cannot be removed, or it takes longer than until `deadline`.
pub(super) fn clean(source: &Path, deadline: Instant) -> io::Result<Vec<String>> {
    let root = OwnedFd::from(File::open(source)?);
    for name in [".git", ".gitmodules"] {
        tree::remove(&root, OsStr::new(name))?;
    }
    for name in ["log", "tmp"] {
        // Missing, a file or a link: nothing to empty.
        let Ok(dir) = tree::open_dir(&root, OsStr::new(name)) else {
            continue;
        };
        for (name, _) in tree::names(&dir)? {
            tree::remove(&dir, &name)?;
        }
    }
    let ignore = match tree::read_file(source, ".slugignore", ignore::BYTES_MAX)? {
        Found::Missing => return Ok(Vec::new()),
        Found::Refused(why) => return Ok(vec![format!(".slugignore {why}: it is not used")]),
        Found::Bytes(bytes) => Ignore::parse(&bytes),
    };
    if !ignore.is_empty() {
        let sweep = Sweep {
            ignore: &ignore,
            deadline,
        };
        sweep.directory(&root, &[])?;
    }
    Ok(ignore.warnings)
}

struct Sweep<'a> {
    ignore: &'a Ignore,
    deadline: Instant,
}

impl Sweep<'_> {
    fn directory(&self, dir: &OwnedFd, above: &[&[u8]]) -> io::Result<()> {
        for (name, is_directory) in tree::names(dir)? {
            // The app chooses the patterns and the files, so it chooses how long this takes.
            if Instant::now() > self.deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it has too many patterns for so many files",
                ));
            }
            let mut path = above.to_vec();
            path.push(name.as_bytes());
            if self.ignore.matches(&path, is_directory) {
                tree::remove(dir, &name)?;
            } else if is_directory && path.len() < DEPTH_MAX {
                self.directory(&tree::open_dir(dir, &name)?, &path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn fill(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("below the root")).expect("made");
            fs::write(path, file).expect("written");
        }
    }

    fn files(root: &Path, below: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for entry in fs::read_dir(root.join(below)).expect("listed") {
            let entry = entry.expect("an entry");
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("a type").is_dir() {
                all.extend(files(root, &format!("{name}/")));
                all.insert(format!("{name}/"));
            } else {
                all.insert(name);
            }
        }
        all
    }

    #[test]
    fn history_logs_and_ignored_files_stay_out_of_the_build() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        fill(
            root,
            &[
                ".git/HEAD",
                ".gitmodules",
                "log/a.log",
                "tmp/deep/b",
                "lib/log/kept",
                "art/big.psd",
                "docs/a.md",
                "app.rb",
            ],
        );
        fs::write(root.join(".slugignore"), "*.psd\n/docs/\n!x\n").expect("written");
        let warnings = clean(root, soon()).expect("cleaned");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let left = [
            ".slugignore",
            "app.rb",
            "art/",
            "lib/",
            "lib/log/",
            "lib/log/kept",
            "log/",
            "tmp/",
        ];
        assert_eq!(files(root, ""), left.map(str::to_owned).into());
    }

    #[test]
    fn links_are_never_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("in"), dir.path().join("out"));
        fill(&outside, &["a", "secret"]);
        fill(&root, &["x"]);
        symlink(&outside, root.join("log")).expect("linked");
        symlink(&outside, root.join(".git")).expect("linked");
        symlink(outside.join("secret"), root.join(".slugignore")).expect("linked");
        symlink(&outside, root.join("dir")).expect("linked");
        let warnings = clean(&root, soon()).expect("cleaned");
        assert!(warnings[0].contains("symbolic link"), "{warnings:?}");
        fs::remove_file(root.join(".slugignore")).expect("removed");
        fs::write(root.join(".slugignore"), "a\nsecret\n").expect("written");
        clean(&root, soon()).expect("cleaned");
        assert_eq!(files(&outside, "").len(), 2);
        assert!(!root.join(".git").is_symlink());
        assert!(root.join("dir").is_symlink());
    }

    #[test]
    fn cleaning_ends_at_its_deadline() {
        let dir = tempfile::tempdir().expect("a directory");
        fill(dir.path(), &["a", "b"]);
        fs::write(dir.path().join(".slugignore"), "nothing\n").expect("written");
        let past = Instant::now()
            .checked_sub(Duration::from_secs(1))
            .expect("a time");
        let error = clean(dir.path(), past).expect_err("too late");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn config_vars_are_files_with_nothing_added() {
        let dir = tempfile::tempdir().expect("a directory");
        let long = "K".repeat(300);
        let change = [
            ("A", "x\ny"),
            ("PATH", "/evil"),
            ("EMPTY", ""),
            (&long, "x"),
        ]
        .map(|(k, v)| (k.to_owned(), Some(v.to_owned())));
        let config = ConfigVars::default();
        let config = config
            .changed(change.iter().map(|(k, v)| (k, v)))
            .expect("allowed");
        assert_eq!(write_env(dir.path(), &config).expect("written"), [long]);
        assert_eq!(
            files(dir.path(), ""),
            ["A", "EMPTY"].map(str::to_owned).into()
        );
        assert_eq!(fs::read(dir.path().join("A")).expect("read"), b"x\ny");
    }

    #[test]
    fn the_working_directory_goes_with_its_build() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path());
        let workdir = Workdir::make(&paths, BuildId::new()).expect("made");
        fill(&workdir.source(), &["a/b/c"]);
        assert_eq!(fs::read_dir(paths.builds()).expect("listed").count(), 1);
        drop(workdir);
        assert_eq!(fs::read_dir(paths.builds()).expect("listed").count(), 0);
    }
}
