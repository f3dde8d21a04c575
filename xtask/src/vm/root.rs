//! The guest's root: Debian of the host's own release, as an ext4 image.
//!
//! Not squashfs: overlay layers are id-mapped, which Linux 6.1 knows of ext4 only. The image is
//! never written: each run has a snapshot of it in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process;
use crate::sources::{self, Sources};

const PACKAGES: &[&str] = &[
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "iproute2",
    "nftables",
    "openssl",
    "procps",
    "python3",
    "python3-venv",
    "tzdata",
    "util-linux",
];

/// Files of the image, free blocks included.
const SIZE: &str = "3G";

/// Builds it, unless the cache holds one of the same release and packages.
pub(super) fn build(cache: &Path) -> Result<PathBuf> {
    let host = Sources::of_host()?;
    let image = cache.join("root.ext4");
    let recipe = cache.join("root.recipe");
    let wanted = format!("{} {SIZE} {PACKAGES:?}\n", host.suite);
    if image.is_file() && fs::read_to_string(&recipe).is_ok_and(|text| text == wanted) {
        return Ok(image);
    }
    println!("building the guest's root from {}", host.suite);
    let start = Instant::now();
    let scratch = tempfile::Builder::new().prefix("root-").tempdir_in(cache)?;
    let tree = scratch.path().join("tree");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap
        .args(["--quiet", "--mode=root", "--variant=minbase"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .args([
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
        ])
        .args(sources::proxy())
        .arg(&host.suite)
        .arg(&tree)
        .args(host.write(scratch.path())?);
    process::check(&mut bootstrap, Duration::from_mins(15))?;
    let new = scratch.path().join("image");
    let mut format = Command::new("mke2fs");
    format
        .args(["-q", "-t", "ext4", "-L", "root", "-m", "0"])
        // The image lives as long as its page cache: a journal would only be written twice.
        .args(["-O", "^has_journal", "-E", "lazy_itable_init=1", "-d"])
        .arg(&tree)
        .arg(&new)
        .arg(SIZE);
    process::check(&mut format, Duration::from_mins(5))?;
    fs::rename(&new, &image).with_context(|| format!("cannot make {}", image.display()))?;
    fs::write(&recipe, wanted).with_context(|| format!("cannot write {}", recipe.display()))?;
    println!(
        "the guest's root took {:.0} s",
        start.elapsed().as_secs_f64()
    );
    Ok(image)
}
