//! One push, as the hook tells it and as it is answered.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::repository::GitError;
use crate::sys;

/// Refs of one push; more are refused.
const UPDATES_MAX: usize = 1024;

/// Longest line of the hook in bytes: two ids and a ref's name.
const LINE_MAX: u64 = 4096;

/// Longest list of submodules in bytes.
const SUBMODULES_MAX: u64 = 1 << 20;

/// The hook ended or broke the rules.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// git ended before the hook did.
    #[error("git ended before the push was complete")]
    Gone,
    /// The hook's end of the line failed.
    #[error("cannot talk to the push")]
    Io(#[from] io::Error),
    /// Too many refs, or a line too long.
    #[error("the push has more than {UPDATES_MAX} refs, or a name too long")]
    TooMuch,
    /// git could not make an archive of the commit.
    #[error("git cannot read the files of commit {0}")]
    Archive(String),
}

/// One ref that is to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Its commit now; zeros if it is new.
    pub old: String,
    /// Its commit then; zeros if it is deleted.
    pub new: String,
    /// Its full name.
    pub name: String,
}

/// What a push asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Build this commit.
    Build(String),
    /// Nothing: no branch that is built.
    Nothing,
    /// The branch that is built is to go.
    Delete(String),
}

/// What a push asks for: of `main` and `master` the first, since only they are built.
/// Source: Dev Center, "Deploying with Git".
pub fn wanted(updates: &[Update]) -> Wanted {
    for branch in ["main", "master"] {
        let name = format!("refs/heads/{branch}");
        if let Some(update) = updates.iter().find(|update| update.name == name) {
            if update.new.bytes().all(|b| b == b'0') {
                return Wanted::Delete(branch.to_owned());
            }
            return Wanted::Build(update.new.clone());
        }
    }
    Wanted::Nothing
}

/// A push whose hook waits for us.
#[derive(Debug)]
pub struct Push {
    directory: PathBuf,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Push {
    pub(super) fn open(repository: &Path, control: UnixStream) -> Result<Self, GitError> {
        let name = format!("{:032x}", rand::random::<u128>());
        let directory = repository.join("push").join(name);
        let fail = |source| GitError::Io {
            act: "make",
            path: directory.clone(),
            source,
        };
        DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .map_err(fail)?;
        sys::give_to_app(&directory).map_err(fail)?;
        let (reader, writer) = control.into_split();
        Ok(Self {
            directory,
            reader: BufReader::new(reader),
            writer,
        })
    }

    /// Below the repository.
    pub(super) fn name(&self) -> &Path {
        Path::new(self.directory.file_name().unwrap_or_default())
    }

    /// What was pushed, once git has it all.
    ///
    /// # Errors
    /// [`PushError::Gone`] if git refuses the push itself.
    pub async fn updates(&mut self) -> Result<Vec<Update>, PushError> {
        let mut updates = Vec::new();
        loop {
            let line = self.line().await?;
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("ref"), Some(old), Some(new), Some(name)) if updates.len() < UPDATES_MAX => {
                    updates.push(Update {
                        old: old.to_owned(),
                        new: new.to_owned(),
                        name: name.to_owned(),
                    });
                }
                (Some("end"), None, ..) => return Ok(updates),
                _ => return Err(PushError::TooMuch),
            }
        }
    }

    async fn line(&mut self) -> Result<String, PushError> {
        use tokio::io::AsyncReadExt as _;
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(LINE_MAX);
        bounded.read_until(b'\n', &mut line).await?;
        match line.pop() {
            None => Err(PushError::Gone),
            Some(b'\n') => String::from_utf8(line).map_err(|_| PushError::TooMuch),
            Some(_) => Err(PushError::TooMuch),
        }
    }

    /// Has the files of a commit packed, moves the archive to `path` and returns its submodules:
    /// commit and path of each.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn archive(
        &mut self,
        commit: &str,
        path: &Path,
    ) -> Result<Vec<(String, String)>, PushError> {
        let order = format!("archive {commit}\n");
        self.writer.write_all(order.as_bytes()).await?;
        if self.line().await? != "archived" {
            return Err(PushError::Archive(commit.to_owned()));
        }
        let made = self.directory.join("source.tgz");
        if !fs::symlink_metadata(&made)?.is_file() {
            return Err(PushError::Archive(commit.to_owned()));
        }
        fs::rename(&made, path)?;
        Ok(submodules(&self.read("submodules")?))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        use std::io::Read as _;
        let file = fs::File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.directory.join(name))?;
        let mut text = Vec::new();
        file.take(SUBMODULES_MAX).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// From now on what we say goes to the client.
    ///
    /// # Errors
    /// The hook is gone.
    pub async fn speak(mut self) -> Result<Answer, PushError> {
        self.writer.write_all(b"speak\n").await?;
        Ok(Answer { push: self })
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        // Nothing can be done about what stays: the next start sweeps the folder `push`.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What the client hears. Dropped without a verdict, the push is rejected.
#[derive(Debug)]
pub struct Answer {
    push: Push,
}

impl Answer {
    /// Says something. A client that is gone misses it; the push goes on.
    pub async fn say(&mut self, bytes: &[u8]) {
        if let Err(error) = self.push.writer.write_all(bytes).await {
            tracing::debug!(%error, "a push does not listen any more");
        }
    }

    /// Ends the push: accepted, or every ref rejected.
    ///
    /// # Errors
    /// The verdict cannot be left, so that the push counts as rejected.
    pub async fn verdict(mut self, is_accepted: bool) -> io::Result<()> {
        let path = self.push.directory.join("verdict");
        fs::write(&path, if is_accepted { "0\n" } else { "1\n" })?;
        sys::give_to_app(&path)?;
        self.push.writer.shutdown().await?;
        // Its directory stays until the hook has read the verdict and ended.
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut self.push.reader, &mut rest).await?;
        Ok(())
    }
}

/// `160000 commit ID\tPATH` lines of git-ls-tree(1). Quoted (odd) paths are left out.
fn submodules(text: &str) -> Vec<(String, String)> {
    let one = |line: &str| {
        let (meta, path) = line.split_once('\t')?;
        let commit = meta.rsplit(' ').next()?;
        let is_id = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        (is_id && !path.starts_with('"')).then(|| (commit.to_owned(), path.to_owned()))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &str, new: &str) -> Update {
        Update {
            old: "1".repeat(40),
            new: new.repeat(40),
            name: name.to_owned(),
        }
    }

    #[test]
    fn only_main_and_master_are_built() {
        let check = |updates: &[Update], expected: &Wanted| assert_eq!(&wanted(updates), expected);
        let build = Wanted::Build("a".repeat(40));
        check(&[], &Wanted::Nothing);
        check(&[update("refs/heads/topic", "a")], &Wanted::Nothing);
        check(&[update("refs/tags/main", "a")], &Wanted::Nothing);
        check(&[update("refs/heads/main", "a")], &build);
        let both = [
            update("refs/heads/master", "b"),
            update("refs/heads/main", "a"),
        ];
        check(&both, &build);
        let delete = Wanted::Delete("master".to_owned());
        check(&[update("refs/heads/master", "0")], &delete);
    }

    #[test]
    fn submodules_are_read_off_the_tree() {
        let id = "0123456789012345678901234567890123456789";
        let text = format!("160000 commit {id}\tvendor/lib x\n160000 commit zz\tbad\n");
        let expected = [(id.to_owned(), "vendor/lib x".to_owned())];
        assert_eq!(submodules(&text), expected);
    }
}
