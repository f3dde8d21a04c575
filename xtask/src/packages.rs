//! Debian packages that the tasks need: only what is missing is installed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process;

/// For `test`, `vm`, `stack` and `bench`.
pub(crate) const ALL: &[&str] = &[
    "bubblewrap",
    "build-essential",
    "busybox-static",
    "ca-certificates",
    "cpio",
    "crun",
    "curl",
    "e2fsprogs",
    "git",
    "iproute2",
    "kmod",
    "mmdebstrap",
    "nftables",
    "nghttp2-client",
    "openssh-client",
    "openssh-server",
    "pebble",
    "prometheus",
    "python3",
    "python3-grpcio",
    "python3-pip",
    "python3-venv",
    "python3-websockets",
    "qemu-system-x86",
    "runc",
    "squashfs-tools",
    "zstd",
];

/// For `bench launch`, beside [`ALL`]: more to compare with.
pub(crate) const BENCH_LAUNCH: &[&str] = &["podman"];

/// For `demo`: what builds and runs the apps it shows.
pub(crate) const DEMO: &[&str] = &[
    "build-essential",
    "ca-certificates",
    "curl",
    "git",
    "iproute2",
    "nftables",
    "python3",
    "python3-pip",
    "python3-venv",
];

/// Packages without which nothing here starts are asked of apt; Node.js may also come from
/// elsewhere, so that it is looked for on the `PATH`.
pub(crate) fn install(wanted: &[&str]) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "run this as root: namespaces, cgroups and package set-up need it"
    );
    let mut missing = missing(wanted)?;
    if !is_on_path("node") {
        missing.push("nodejs".to_owned());
    }
    if !is_on_path("npm") {
        missing.push("npm".to_owned());
    }
    if missing.is_empty() {
        println!("all packages are there");
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    update()?;
    let _quiet = NoServices::begin()?;
    let mut command = apt_get();
    command
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&missing);
    process::check(&mut command, Duration::from_mins(20))
}

/// While it lives, packages that bring a service (sshd, nginx) do not start it: tests start their
/// own. Source: Debian Policy, section 9.3.3.1, `policy-rc.d`.
struct NoServices {
    is_ours: bool,
}

/// Asked by `invoke-rc.d` before it starts anything.
const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::File::options();
        // A policy that this machine has already is its own affair.
        match options
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(POLICY)
        {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("cannot write {POLICY}"))?;
                Ok(Self { is_ours: true })
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self { is_ours: false })
            }
            Err(error) => Err(error).with_context(|| format!("cannot make {POLICY}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("{POLICY} stays: {error}");
        }
    }
}

/// Fetches the package lists.
pub(crate) fn update() -> Result<()> {
    process::check(apt_get().arg("update"), Duration::from_mins(10))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--quiet", "-o", "DPkg::Lock::Timeout=300"])
        .args([
            "-o",
            "Acquire::Retries=2",
            "-o",
            "Acquire::http::Timeout=30",
        ]);
    command
}

fn missing(wanted: &[&str]) -> Result<Vec<String>> {
    // Exit status 1 says that one of them is unknown: that is an answer, too.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Abbrev} ${Package}\\n"])
        .args(wanted)
        .output()
        .context("cannot run dpkg-query: these tasks are for Debian")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let there = |name: &str| text.lines().any(|line| line == format!("ii  {name}"));
    Ok(wanted
        .iter()
        .filter(|name| !there(name))
        .map(|name| (*name).to_owned())
        .collect())
}

/// Whether a program of this name is on the `PATH`.
pub(crate) fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::is_file(&dir.join(name)))
}
