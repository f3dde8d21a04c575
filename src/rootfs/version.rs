//! Builds of stacks on this host: `stacks/NAME/SHA256`, each with its two images and a record.
//!
//! A version is named by its images' bytes, put in place by one rename, and not changed afterwards
//! (but for what depends on the host, see [`super::Stacks`]). The newest is what deploys get.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Alias, RootfsError, image, recipe};
use crate::model::{Digest, StackImage, StackName};
use crate::settings::Paths;
use crate::sys;

/// The record beside a version's images.
const RECORD: &str = "stack.json";

/// How half-made versions are called.
const SCRATCH: &str = ".new-";

/// A build of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackVersion {
    /// The stack.
    pub name: StackName,
    /// sha256 over both images' digests: its name.
    pub digest: Digest,
    /// When it came here last.
    pub built: Timestamp,
    /// Where it came from: a Debian release, or a file's name.
    pub origin: String,
    /// What dynos run on.
    pub run: ImageRecord,
    /// What builds run on.
    pub build: ImageRecord,
    /// What was signed: the name and sha256 of each `InRelease` file.
    pub sources: Vec<(String, String)>,
}

/// An image of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Of the packed image.
    pub sha256: Digest,
    /// What it takes on disk.
    pub bytes: u64,
    /// Debian packages: name and version, sorted.
    pub packages: Vec<(String, String)>,
}

/// The versions of one state directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Versions {
    paths: Paths,
}

/// Where a version is made; removed when dropped, unless it was put in its place.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Scratch {
    /// Where an image is made.
    pub fn image(&self, image: StackImage) -> PathBuf {
        self.dir.join("version").join(folder(image))
    }

    /// For whatever else is needed meanwhile.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What was killed may take a moment to be gone.
        for _ in 0..20 {
            match fs::remove_dir_all(&self.dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                _ => return,
            }
        }
        tracing::warn!(path = %self.dir.display(), "a half-made stack stays");
    }
}

pub(super) fn folder(image: StackImage) -> &'static str {
    match image {
        StackImage::Run => "run",
        StackImage::Build => "build",
    }
}

impl Versions {
    /// Those below a state directory.
    pub fn new(paths: &Paths) -> Self {
        Self {
            paths: paths.clone(),
        }
    }

    /// All, by stack, the newest first.
    pub fn all(&self) -> Vec<StackVersion> {
        let mut all = Vec::new();
        for stack in entries(&self.paths.stacks()) {
            let versions = entries(&stack).into_iter();
            all.extend(versions.filter_map(|version| read(&version)));
        }
        all.sort_by(|a, b| (&a.name, b.built, a.digest).cmp(&(&b.name, a.built, b.digest)));
        all
    }

    /// What a name stands for here.
    pub fn resolve(&self, name: &StackName) -> StackName {
        if Alias::find(name).is_none() {
            return name.clone();
        }
        recipe::resolve(name, self.all().into_iter().map(|version| version.name))
    }

    /// The newest build of a stack; `None` for `host`, which has none, and what is not here.
    pub fn newest(&self, name: &StackName) -> Option<StackVersion> {
        let name = self.resolve(name);
        let versions = entries(&self.paths.stack(&name)).into_iter();
        versions
            .filter_map(|version| read(&version))
            .max_by_key(|version| (version.built, version.digest))
    }

    /// Where a version lies, whatever its stack is called.
    pub fn place(&self, version: &Digest) -> Option<PathBuf> {
        let name = version.to_string();
        let places = entries(&self.paths.stacks()).into_iter();
        places
            .map(|stack| stack.join(&name))
            .find(|place| place.join(RECORD).is_file())
    }

    /// A version by its digest.
    pub fn find(&self, version: &Digest) -> Option<StackVersion> {
        read(&self.place(version)?)
    }

    /// Names that an app can be on, sorted: `host`, what was built, and other names of it.
    pub fn names(&self) -> Vec<StackName> {
        let mut names: Vec<StackName> = self.all().into_iter().map(|v| v.name).collect();
        let others = Alias::all().iter().map(|alias| alias.name.clone());
        let others = others.filter(|name| self.resolve(name) != *name);
        names.extend(others.collect::<Vec<_>>());
        names.push(StackName::host());
        names.sort();
        names.dedup();
        names
    }

    /// A place for a new version. What a killed build left is removed first.
    ///
    /// # Errors
    /// [`RootfsError::Busy`] while another is being made, or no directory can be made.
    pub fn scratch(&self) -> Result<Scratch, RootfsError> {
        let stacks = self.paths.stacks();
        fs::create_dir_all(&stacks).map_err(RootfsError::io("make", &stacks))?;
        let lock = self.lock()?.ok_or(RootfsError::Busy)?;
        self.remove_scratch();
        let dir = stacks.join(format!("{SCRATCH}{}", uuid::Uuid::new_v4()));
        let version = dir.join("version");
        fs::create_dir_all(&version).map_err(RootfsError::io("make", &version))?;
        Ok(Scratch { dir, _lock: lock })
    }

    /// Removes what a killed build left, unless one is under way.
    pub fn sweep(&self) {
        if let Ok(Some(_lock)) = self.lock() {
            self.remove_scratch();
        }
    }

    /// `None` while somebody makes a version. The kernel frees it with its holder.
    fn lock(&self) -> Result<Option<Flock<File>>, RootfsError> {
        let path = self.paths.stacks().join(".lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(RootfsError::io("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(RootfsError::io("lock", &path)(errno.into())),
        }
    }

    fn remove_scratch(&self) {
        for entry in fs::read_dir(self.paths.stacks())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(SCRATCH)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a half-made stack stays");
            }
        }
    }

    /// Puts what was made in its place; one that is there already becomes the newest again.
    ///
    /// # Errors
    /// An image cannot be packed, or the version not moved.
    pub fn install(
        &self,
        scratch: &Scratch,
        name: &StackName,
        origin: String,
        sources: Vec<(String, String)>,
    ) -> Result<StackVersion, RootfsError> {
        let run = record(&scratch.image(StackImage::Run))?;
        let build_root = scratch.image(StackImage::Build);
        let build = if build_root.is_symlink() {
            ImageRecord {
                bytes: 0,
                ..run.clone()
            }
        } else {
            record(&build_root)?
        };
        let both = format!("run {}\nbuild {}\n", run.sha256, build.sha256);
        let version = StackVersion {
            name: name.clone(),
            digest: Digest(Sha256::digest(both).into()),
            built: Timestamp::now(),
            origin,
            run,
            build,
            sources,
        };
        let home = self.paths.stack(name);
        fs::create_dir_all(&home).map_err(RootfsError::io("make", &home))?;
        let place = home.join(version.digest.to_string());
        let is_there = place.join(RECORD).is_file();
        let made = scratch.dir.join("version");
        let dir = if is_there { &place } else { &made };
        write(dir, &version)?;
        if !is_there {
            fs::rename(&made, &place).map_err(RootfsError::io("make", &place))?;
        }
        sync(&home);
        Ok(version)
    }

    /// Removes a version. Nothing may run on it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, version: &Digest) -> Result<(), RootfsError> {
        let Some(place) = self.place(version) else {
            return Ok(());
        };
        // Not to be found from now on, whatever becomes of the rest.
        let record = place.join(RECORD);
        fs::remove_file(&record).map_err(RootfsError::io("remove", &record))?;
        fs::remove_dir_all(&place).map_err(RootfsError::io("remove", &place))?;
        if let Some(home) = place.parent() {
            // Only if it is empty now.
            let _ = fs::remove_dir(home);
        }
        Ok(())
    }

    /// Takes stacks of earlier programs, which had one build each (`NAME/run`), as versions.
    ///
    /// # Errors
    /// See [`Versions::install`].
    pub fn adopt(&self) -> Result<(), RootfsError> {
        for old in entries(&self.paths.stacks()) {
            if old.is_symlink() || !old.join("run/usr").is_dir() {
                continue;
            }
            let name = old.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.parse::<StackName>().ok()) else {
                continue;
            };
            // What `cedar` was before it became a name of the newest.
            let name = match name.as_str() {
                "cedar" => "cedar-12".parse().unwrap_or(name),
                _ => name,
            };
            let scratch = self.scratch()?;
            for image in [StackImage::Run, StackImage::Build] {
                let (from, to) = (old.join(folder(image)), scratch.image(image));
                let moved = match fs::rename(&from, &to) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        std::os::unix::fs::symlink("run", &to)
                    }
                    other => other,
                };
                moved.map_err(RootfsError::io("move", &from))?;
            }
            let version =
                self.install(&scratch, &name, "an earlier build".to_owned(), Vec::new())?;
            tracing::info!(stack = %name, version = %version.digest, "stack taken over");
            let _ = fs::remove_file(old.join("recipe"));
            let _ = fs::remove_dir(&old);
        }
        Ok(())
    }
}

/// Directories (also by links) below a folder.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn read(place: &Path) -> Option<StackVersion> {
    let text = fs::read(place.join(RECORD)).ok()?;
    let version: StackVersion = serde_json::from_slice(&text).ok()?;
    let is_own = place.file_name()? == version.digest.to_string().as_str();
    is_own.then_some(version)
}

fn write(dir: &Path, version: &StackVersion) -> Result<(), RootfsError> {
    let path = dir.join(RECORD);
    let text = serde_json::to_vec_pretty(version).map_err(io::Error::from);
    text.and_then(|text| sys::replace_file(&path, &text, 0o644))
        .map_err(RootfsError::io("write", &path))
}

/// A version must not be there by name only after a power cut: gigabytes, so the whole file system
/// at once. Without syncfs(2) the next look says what is missing.
fn sync(dir: &Path) {
    let synced = Command::new("sync").arg("-f").arg(dir).status();
    if !synced.is_ok_and(|status| status.success()) {
        tracing::warn!(path = %dir.display(), "not synced");
    }
}

fn record(root: &Path) -> Result<ImageRecord, RootfsError> {
    let (sha256, bytes) = image::digest(root)?;
    Ok(ImageRecord {
        sha256,
        bytes,
        packages: packages(
            &fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap_or_default(),
        ),
    })
}

/// Installed packages of dpkg's status file.
fn packages(status: &str) -> Vec<(String, String)> {
    let mut packages = Vec::new();
    for stanza in status.split("\n\n") {
        let field = |name: &str| {
            let mut lines = stanza.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let is_installed = field("Status").is_some_and(|status| status.ends_with(" installed"));
        if let (true, Some(name), Some(version)) =
            (is_installed, field("Package"), field("Version"))
        {
            packages.push((name.to_owned(), version.to_owned()));
        }
    }
    packages.sort();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(dir: &tempfile::TempDir) -> Versions {
        Versions::new(&Paths::new(dir.path()))
    }

    fn make(versions: &Versions, name: &str, text: &str) -> StackVersion {
        let scratch = versions.scratch().expect("free");
        for image in [StackImage::Run, StackImage::Build] {
            let root = scratch.image(image);
            fs::create_dir_all(root.join("usr")).expect("made");
            fs::write(root.join("usr/text"), text).expect("written");
        }
        let name = name.parse().expect("a name");
        versions
            .install(&scratch, &name, "test".to_owned(), Vec::new())
            .expect("installed")
    }

    #[test]
    fn the_last_that_came_is_the_newest_also_if_it_came_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let versions = versions(&dir);
        let one = make(&versions, "cedar-12", "one");
        let two = make(&versions, "cedar-12", "two");
        assert_ne!(one.digest, two.digest);
        let cedar = "cedar".parse().expect("a name");
        let newest = |name| versions.newest(name).map(|version| version.digest);
        assert_eq!(newest(&cedar), Some(two.digest));
        assert_eq!(make(&versions, "cedar-12", "one").digest, one.digest);
        assert_eq!(newest(&cedar), Some(one.digest));
        assert_eq!(versions.all().len(), 2);
        let names: Vec<_> = versions.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["bamboo", "cedar", "cedar-12", "host"]);
        versions.remove(&one.digest).expect("removed");
        assert_eq!(newest(&cedar), Some(two.digest));
        assert_eq!(versions.find(&one.digest), None);
    }

    #[test]
    fn what_was_not_put_in_place_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let versions = versions(&dir);
        let scratch = versions.scratch().expect("free");
        assert!(matches!(versions.scratch(), Err(RootfsError::Busy)));
        fs::create_dir_all(scratch.image(StackImage::Run)).expect("made");
        drop(scratch);
        let left = dir.path().join("stacks/.new-killed/version");
        fs::create_dir_all(&left).expect("made");
        versions.sweep();
        assert!(!left.exists() && versions.all().is_empty());
        assert_eq!(entries(&dir.path().join("stacks")), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_stack_of_an_earlier_program_becomes_a_version() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("stacks/cedar/run/usr")).expect("made");
        let versions = versions(&dir);
        versions.adopt().expect("adopted");
        let all = versions.all();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].name.as_str(), "cedar-12");
        let place = versions.place(&all[0].digest).expect("there");
        assert!(place.join("build/usr").is_dir());
        assert!(!dir.path().join("stacks/cedar").exists());
    }

    #[test]
    fn only_installed_packages_are_recorded() {
        let status = "Package: bash\nStatus: install ok installed\nVersion: 5.2\n\n\
                      Package: old\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: acl\nStatus: install ok installed\nVersion: 2:3-1\n";
        let found = packages(status);
        let found: Vec<_> = found
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, [("acl", "2:3-1"), ("bash", "5.2")]);
    }
}
