//! Unpacking a slug, beside GNU tar.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::table::Series;

/// Who owns what is unpacked: `sys::APP_ID`.
const APP_ID: u32 = 1000;

/// Files of the slug, and their bytes in all before compression.
const FILES: usize = 10_000;
const BYTES: usize = 45 << 20;

/// Rounds of each.
const ROUNDS: usize = 5;

/// Both series: tar's and ours.
pub(super) fn unpack(program: &Path) -> Result<(Series, Series)> {
    let dir = tempfile::Builder::new()
        .prefix("manifold-bench-slug-")
        .tempdir_in("/var/tmp")?;
    let archive = make(dir.path())?;
    let mut tar = Series::new("GNU tar xzf, 10,000 files of 45 MB");
    let mut ours = Series::new("manifold __unpack, the same");
    for round in 0..=ROUNDS {
        let (theirs_dir, ours_dir) = (dir.path().join("tar"), dir.path().join("ours"));
        let mut command = Command::new("tar");
        command.arg("-xzf").arg(&archive).arg("-C").arg(&theirs_dir);
        let theirs_time = timed(&mut command, &theirs_dir, None)?;
        let mut command = Command::new(program);
        command.args(["__unpack", "slug"]).arg(&ours_dir);
        let ours_time = timed(&mut command, &ours_dir, Some(&archive))?;
        // The first round warms the cache.
        if round > 0 {
            tar.times.push(theirs_time);
            ours.times.push(ours_time);
        }
        for done in [theirs_dir, ours_dir] {
            fs::remove_dir_all(&done)?;
        }
    }
    Ok((tar, ours))
}

fn timed(command: &mut Command, dir: &Path, stdin: Option<&Path>) -> Result<Duration> {
    fs::create_dir(dir)?;
    match stdin {
        Some(file) => {
            // As the supervisor does: the unpacker is no longer root when it writes.
            std::os::unix::fs::chown(dir, Some(APP_ID), Some(APP_ID))?;
            command.stdin(File::open(file)?)
        }
        None => command.stdin(Stdio::null()),
    };
    // What the round before left to write is not this one's.
    nix::unistd::sync();
    let start = Instant::now();
    let output = command.output().context("cannot unpack")?;
    let time = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(time)
}

/// Source-like text: words of a small vocabulary, so that it packs about as code does.
fn make(dir: &Path) -> Result<std::path::PathBuf> {
    let (tree, archive) = (dir.join("tree"), dir.join("slug.tgz"));
    self::tree(&tree)?;
    let mut command = Command::new("tar");
    command
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg("./app");
    ensure!(command.status()?.success(), "cannot pack");
    fs::remove_dir_all(&tree)?;
    Ok(archive)
}

/// Random words, the same every time.
fn words() -> impl FnMut() -> u64 {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// An app of [`FILES`] files of [`BYTES`] in all, below `root`.
pub(super) fn tree(root: &Path) -> Result<()> {
    let mut next = words();
    for at in 0..FILES {
        let home = root.join(format!("app/lib{}/part{}", at % 40, at % 400));
        fs::create_dir_all(&home)?;
        let mut file = File::create(home.join(format!("file{at}.js")))?;
        let mut text = String::new();
        while text.len() < BYTES / FILES {
            write!(text, "{:x} ", next() & 0xF_FFFF)?;
        }
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// An app whose files are that many bytes; returns how many they are.
pub(super) fn gigabyte(root: &Path, bytes: u64) -> Result<u64> {
    let mut next = words();
    let mut text = String::new();
    while text.len() < 1 << 20 {
        write!(text, "{:03x} word ", next() & 0xFFF)?;
    }
    fs::write(root.join("Procfile"), "worker: true\n")?;
    let mut total = "worker: true\n".len() as u64;
    let mut at = 0;
    while total < bytes {
        let size = (bytes - total).min(64 << 20);
        let mut file = std::io::BufWriter::new(File::create(root.join(format!("data{at}")))?);
        let mut left = usize::try_from(size)?;
        while left > 0 {
            let piece = left.min(text.len());
            file.write_all(&text.as_bytes()[..piece])?;
            left -= piece;
        }
        file.flush()?;
        total += size;
        at += 1;
    }
    Ok(total)
}
