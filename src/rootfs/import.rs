//! Stacks that were made elsewhere: an archive or a file system image of a root file system.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::version::folder;
use super::{Alias, RootfsError, StackVersion, Versions, image};
use crate::model::{StackImage, StackName};

/// Takes a stack from a file and puts it in its place: `run/` and `build/` in it are the two images,
/// else all of it is both.
///
/// # Errors
/// See [`RootfsError`]; nothing is left then.
pub async fn import(
    versions: &Versions,
    file: &Path,
    name: &StackName,
) -> Result<StackVersion, RootfsError> {
    let reserved = |reason| RootfsError::Reserved {
        name: name.clone(),
        reason,
    };
    if *name == StackName::host() {
        return Err(reserved("that is the machine's own"));
    }
    if Alias::find(name).is_some() {
        return Err(reserved("that is another name of the newest cedar"));
    }
    let is_image = is_file_system(file).map_err(RootfsError::io("read", file))?;
    let scratch = versions.scratch()?;
    let root = scratch.dir().join("root");
    std::fs::create_dir(&root).map_err(RootfsError::io("make", &root))?;
    if is_image {
        let mount = scratch.dir().join("mnt");
        std::fs::create_dir(&mount).map_err(RootfsError::io("make", &mount))?;
        let mut copy = Command::new("unshare");
        copy.args(["--mount", "--", "sh", "-ec", COPY, "sh"]);
        copy.arg(file).arg(&mount).arg(&root);
        run(copy, file).await?;
    } else {
        // GNU tar keeps to its directory: absolute names and `..` are stripped or refused, and
        // links that lead out are made last.
        let mut extract = Command::new("tar");
        extract
            .args(["--extract", "--numeric-owner", "--preserve-permissions"])
            .args(["--exclude=./dev/*", "--exclude=dev/*", "--file"])
            .arg(file)
            .arg("--directory")
            .arg(&root);
        run(extract, file).await?;
    }
    let is_pair = [StackImage::Run, StackImage::Build]
        .iter()
        .all(|image| root.join(folder(*image)).join("usr").is_dir());
    if is_pair && !root.join("usr").exists() {
        for image in [StackImage::Run, StackImage::Build] {
            let (from, to) = (root.join(folder(image)), scratch.image(image));
            image::tidy(&from, file)?;
            std::fs::rename(&from, &to).map_err(RootfsError::io("move", &from))?;
        }
    } else {
        image::tidy(&root, file)?;
        let to = scratch.image(StackImage::Run);
        std::fs::rename(&root, &to).map_err(RootfsError::io("move", &root))?;
        let build = scratch.image(StackImage::Build);
        let linked = std::os::unix::fs::symlink(folder(StackImage::Run), &build);
        linked.map_err(RootfsError::io("make", &build))?;
    }
    let origin = file.file_name().unwrap_or_default().to_string_lossy();
    versions.install(&scratch, name, origin.into_owned(), Vec::new())
}

/// The mount is gone with its namespace.
const COPY: &str = "mount -o ro,loop,nodev,nosuid \"$1\" \"$2\"; \
                    tar --create --one-file-system --directory \"$2\" --exclude=./lost+found . | \
                    tar --extract --numeric-owner --preserve-permissions --directory \"$3\"";

async fn run(mut command: Command, file: &Path) -> Result<(), RootfsError> {
    let refuse = |reason: String| RootfsError::Import {
        path: file.to_owned(),
        reason,
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await;
    let output = output.map_err(|error| refuse(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().next().unwrap_or("it cannot be unpacked");
    Err(refuse(first.trim().to_owned()))
}

/// True for squashfs, erofs and ext2 to ext4, by their magic numbers.
fn is_file_system(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut at = |offset: u64, magic: &[u8]| -> std::io::Result<bool> {
        let mut found = vec![0; magic.len()];
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.read_exact(&mut found).is_ok() && found == magic)
    };
    Ok(at(0, b"hsqs")? || at(1024, &[0xe2, 0xe1, 0xf5, 0xe0])? || at(1080, &[0x53, 0xef])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Paths;

    #[tokio::test]
    async fn what_is_no_archive_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let versions = Versions::new(&Paths::new(dir.path()));
        let file = dir.path().join("x.tar");
        std::fs::write(&file, "not an archive").expect("written");
        let mine = "mine".parse().expect("a name");
        let error = import(&versions, &file, &mine).await.expect_err("refused");
        assert!(
            error.to_string().contains("x.tar holds no stack: tar: "),
            "{error}"
        );
        let missing = import(&versions, Path::new("/none"), &mine).await;
        let missing = missing.expect_err("refused").to_string();
        assert_eq!(missing, "cannot read /none");
        for name in ["host", "cedar", "bamboo"] {
            let name = name.parse().expect("a name");
            let error = import(&versions, &file, &name).await.expect_err("refused");
            assert!(
                error.to_string().contains("choose another with --name"),
                "{error}"
            );
        }
        assert_eq!(versions.all(), []);
        let left = std::fs::read_dir(dir.path().join("stacks")).expect("there");
        let left: Vec<_> = left.flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".lock"]);
    }
}
