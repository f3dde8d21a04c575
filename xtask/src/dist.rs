//! `cargo xtask dist`: what a distributor ships, as a directory and a tarball in `target/dist`.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;
use crate::vm::Binaries;

const LIMIT: Duration = Duration::from_mins(5);

/// Shell, folder and file name of its completion script.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/manifold"),
    ("zsh", "share/zsh/site-functions/_manifold"),
    ("fish", "share/fish/vendor_completions.d/manifold.fish"),
];

/// Runs the command.
pub(crate) fn run() -> Result<ExitCode> {
    let program = Binaries::program(true)?;
    let name = format!(
        "manifold-{}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let dist = crate::target().join("dist");
    let dir = dist.join(&name);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    for folder in [
        "bin",
        "share/man/man1",
        "share/doc/manifold",
        "lib/systemd/system",
    ] {
        let folder = dir.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(dir.join("bin/manifold")).arg(&program);
    process::check(&mut strip, LIMIT)?;
    // What git looks for when a remote is called `manifold::APP`.
    std::os::unix::fs::symlink("manifold", dir.join("bin/git-remote-manifold"))
        .context("cannot link git-remote-manifold")?;
    let mut man = Command::new(&program);
    process::check(man.arg("man").arg(dir.join("share/man/man1")), LIMIT)?;
    for (shell, file) in COMPLETIONS {
        let file = dir.join(file);
        let folder = file.parent().expect("it lies in a folder");
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let script = process::read(Command::new(&program).args(["completions", shell]))?;
        fs::write(&file, script).with_context(|| format!("cannot write {}", file.display()))?;
    }
    for (from, to) in [
        ("LICENSE-MIT", "share/doc/manifold/LICENSE-MIT"),
        ("LICENSE-APACHE", "share/doc/manifold/LICENSE-APACHE"),
        ("README.md", "share/doc/manifold/README.md"),
        (
            "dist/manifold.service",
            "lib/systemd/system/manifold.service",
        ),
    ] {
        copy(&crate::root().join(from), &dir.join(to))?;
    }
    let tarball = dist.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "-czf",
    ])
    .arg(&tarball)
    .arg("-C")
    .arg(&dist)
    .arg(&name);
    process::check(&mut tar, LIMIT)?;
    let size = fs::metadata(&tarball).map_or(0, |data| data.len());
    println!("{}: {} KB", tarball.display(), size / 1024);
    Ok(ExitCode::SUCCESS)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
