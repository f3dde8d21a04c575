//! One app's bare repository on disk.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::model::AppId;
use crate::settings::Paths;
use crate::sys;

/// Largest pack in bytes. Source: Dev Center, "Limits", "Git repos" (1 GB checked out).
const PACK_MAX: u64 = 1 << 30;

/// A repository or its git that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The repository cannot be made or read.
    #[error("cannot {act} {path}")]
    Io {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `git` cannot be started.
    #[error("cannot start git (is the Debian package `git` installed?)")]
    Start(#[source] io::Error),
}

/// The repository of one app: `repos/APP-ID`. It holds configuration of ours and objects of
/// theirs, and belongs to the `dyno` user.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
}

impl Repository {
    /// Makes the repository if it is missing, and brings hooks and configuration up to date.
    /// Blocks.
    ///
    /// # Errors
    /// [`GitError::Io`].
    pub fn open(paths: &Paths, app: AppId) -> Result<Self, GitError> {
        let path = paths.repository(app);
        let fail = |act: &'static str| {
            let path = path.clone();
            move |source| GitError::Io { act, path, source }
        };
        fs::create_dir_all(paths.repositories()).map_err(fail("make the directory of"))?;
        fill(&path).map_err(fail("prepare the repository"))?;
        Ok(Self { path })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What `git init --bare` would make, less its samples: written by us, so that no git has to run
/// with our rights.
fn fill(path: &Path) -> io::Result<()> {
    for directory in [
        "",
        "objects",
        "objects/info",
        "objects/pack",
        "refs",
        "refs/heads",
        "refs/tags",
        "info",
        "hooks",
        "push",
    ] {
        let directory = path.join(directory);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        sys::give_to_app(&directory)?;
    }
    if !path.join("HEAD").exists() {
        write(&path.join("HEAD"), "ref: refs/heads/main\n", 0o600)?;
    }
    write(&path.join("config"), &config(), 0o600)?;
    // A build gets the files as they were committed.
    let attributes = "* -export-ignore -export-subst\n";
    write(&path.join("info/attributes"), attributes, 0o600)?;
    for (name, text) in [
        ("hooks/pre-receive", include_str!("pre-receive.sh")),
        ("hooks/post-receive", include_str!("post-receive.sh")),
    ] {
        write(&path.join(name), text, 0o700)?;
    }
    Ok(())
}

fn config() -> String {
    format!(
        "[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\thooksPath = hooks
\tfsmonitor = false
[receive]
\tmaxInputSize = {PACK_MAX}
\tshallowUpdate = true
\tadvertisePushOptions = false
\tautogc = true
[gc]
\tautoDetach = false
[transfer]
\thideRefs = refs/push
[uploadpack]
\tallowFilter = true
"
    )
}

/// Beside and renamed: a push that runs meanwhile sees the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let part = path.with_extension(format!("{:08x}.part", rand::random::<u32>()));
    fs::write(&part, text)?;
    fs::set_permissions(&part, Permissions::from_mode(mode))?;
    sys::give_to_app(&part)?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_made_once_and_git_knows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::new(dir.path());
        let app = AppId::new();
        let made = Repository::open(&paths, app).expect("made");
        let again = Repository::open(&paths, app).expect("found");
        assert_eq!(made.path(), again.path());
        let output = std::process::Command::new("git")
            .args(["-c", "safe.directory=*", "-C"])
            .arg(made.path())
            .args(["config", "--get", "receive.maxinputsize"])
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1073741824\n");
        let hook = made.path().join("hooks/pre-receive");
        let permissions = fs::metadata(hook).expect("there").permissions();
        assert_eq!(permissions.mode() & 0o777, 0o700);
    }
}
