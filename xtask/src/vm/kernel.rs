//! Debian's cloud kernel, unpacked from its package; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{packages, process};

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// `uname -r` of it.
    pub(crate) release: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The directory that holds `lib/modules`.
    pub(crate) tree: PathBuf,
}

/// The newest kernel of a version such as `6.1`, fetched unless it is cached.
pub(super) fn fetch(cache: &Path, version: &str) -> Result<Kernel> {
    let package = if let Some(package) = newest(version)? {
        package
    } else {
        packages::update()?;
        newest(version)?.with_context(|| {
            format!("no package linux-image-{version}*-cloud-amd64 in this host's apt sources")
        })?
    };
    let release = package
        .strip_prefix("linux-image-")
        .unwrap_or_default()
        .to_owned();
    let tree = cache.join(format!("kernel-{release}"));
    if !tree.is_dir() {
        println!("fetching {package}");
        download(cache, &package, &tree)?;
    }
    Ok(Kernel {
        image: tree.join(format!("boot/vmlinuz-{release}")),
        release,
        tree,
    })
}

/// Of the package lists' kernels the one with the highest version.
fn newest(version: &str) -> Result<Option<String>> {
    let pattern = format!(
        "^linux-image-{}[.0-9]*([-+][0-9a-z]+)*-cloud-amd64$",
        version.replace('.', r"\.")
    );
    let mut command = Command::new("apt-cache");
    let text = process::read(command.args(["search", "--names-only", &pattern]))?;
    let names = text.lines().filter_map(|line| line.split(' ').next());
    // 6.1 shall not find 6.12.
    let exact = format!("linux-image-{version}");
    let fits = |name: &&str| {
        name.strip_prefix(&exact)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    Ok(names
        .filter(fits)
        .max_by_key(|name| numbers(name))
        .map(str::to_owned))
}

/// The numbers of a version, to compare by.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Unpacked beside and renamed, so that the cache holds whole kernels only.
fn download(cache: &Path, package: &str, tree: &Path) -> Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("kernel-")
        .tempdir_in(cache)?;
    let mut download = Command::new("apt-get");
    download
        .current_dir(scratch.path())
        // The unprivileged user apt downloads as cannot write here.
        .args([
            "--quiet",
            "-o",
            "APT::Sandbox::User=root",
            "download",
            package,
        ]);
    process::check(&mut download, Duration::from_mins(10))?;
    let archive = fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get downloaded no {package}"))?;
    let new = scratch.path().join("tree");
    let mut unpack = Command::new("dpkg-deb");
    process::check(
        unpack.arg("-x").arg(&archive).arg(&new),
        Duration::from_mins(5),
    )?;
    let release = package.strip_prefix("linux-image-").unwrap_or_default();
    let mut depmod = Command::new("depmod");
    process::check(
        depmod.arg("-b").arg(&new).arg(release),
        Duration::from_mins(5),
    )?;
    fs::rename(&new, tree).with_context(|| format!("cannot make {}", tree.display()))
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_number() {
        assert!(
            numbers("linux-image-6.1.0-50-cloud-amd64")
                > numbers("linux-image-6.1.0-9-cloud-amd64")
        );
        assert!(
            numbers("linux-image-6.12.101+deb12-cloud-amd64")
                > numbers("linux-image-6.12.99+deb12-cloud-amd64")
        );
    }
}
