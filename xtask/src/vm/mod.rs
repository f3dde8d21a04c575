//! `cargo xtask vm`: the kernel tests as root in a virtual machine that boots Debian's kernel with
//! cgroup v2, in about a minute with a warm cache.
//!
//! Kernel, root file system and initramfs are cached in `target/vm`; a run adds temporary files
//! only. Data goes in as a tar file used as a disk; the serial line brings output and status back.

mod guest;
mod initramfs;
mod kernel;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::kernel::Kernel;
use crate::{packages, process, tally::Tally};

/// Debian 12's.
const KERNEL: &str = "6.1";

/// Options of `cargo xtask vm`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Run only the tests whose names contain this
    filter: Option<String>,
    /// Run this shell command in the guest instead of the tests
    #[arg(long, value_name = "CMD", conflicts_with = "filter")]
    exec: Option<String>,
    /// Version of Debian's cloud kernel
    #[arg(long, default_value = KERNEL, value_name = "X.Y")]
    kernel: String,
    /// Virtual CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Also the tests that emulation has no time for (`tests/kernel/here-only.txt`)
    #[arg(long)]
    all: bool,
    /// Guests that share the tests, side by side
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    guests: u32,
    /// Memory of the guest in MB
    #[arg(long, default_value_t = 2048, value_name = "MB")]
    memory: u32,
    /// Longest run in minutes
    #[arg(long, default_value_t = 40, value_name = "MINUTES")]
    limit: u64,
}

impl Options {
    /// All kernel tests that match, as `cargo xtask test` runs them.
    pub(crate) fn tests(filter: Option<&str>) -> Self {
        Self {
            filter: filter.map(str::to_owned),
            exec: None,
            kernel: KERNEL.to_owned(),
            // Tests run one at a time: a second guest uses a second processor better.
            cpus: 1,
            all: false,
            guests: 2,
            memory: 2048,
            limit: 40,
        }
    }
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::install(packages::ALL)?;
    let mut tally = Tally::default();
    let status = boot(options, &mut |line| {
        println!("{line}");
        tally.read(line);
    })?;
    if options.exec.is_none() {
        println!("{tally}");
    }
    Ok(ExitCode::from(status))
}

/// Makes what the guests of `cargo xtask test` boot from, so that it is there when they do.
pub(crate) fn prepare() -> Result<()> {
    boots_from(KERNEL).map(drop)
}

/// The cache, and in it the kernel, the initramfs and the root file system.
fn boots_from(version: &str) -> Result<(PathBuf, Kernel, PathBuf, PathBuf)> {
    let cache = crate::target().join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let kernel = kernel::fetch(&cache, version)?;
    let initramfs = initramfs::build(&cache, &kernel)?;
    let root = root::build(&cache)?;
    Ok((cache, kernel, initramfs, root))
}

/// Boots the guests, hands each line of their output to `show` (the first one's as it comes, the
/// others' at their end) and returns the first status that is not 0.
pub(crate) fn boot(options: &Options, show: &mut dyn FnMut(&str)) -> Result<u8> {
    let (cache, kernel, initramfs, root) = boots_from(&options.kernel)?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&cache)?;
    let input = scratch.path().join("in.tar");
    pack_input(options, scratch.path(), &input)?;
    process::keep_going()?;
    let machine = guest::Machine {
        kernel: &kernel.image,
        initramfs: &initramfs,
        root: &root,
        input: &input,
        cpus: options.cpus,
        memory_mb: options.memory,
        accelerator: guest::accelerator(&cache, &kernel.image, &initramfs)?,
    };
    let limit = Duration::from_mins(options.limit);
    let all = if options.all { "all=1" } else { "" };
    let part = |number| format!("part={number}/{} {all}", options.guests);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..options.guests)
            .map(|number| {
                let (machine, part) = (&machine, part(number));
                scope.spawn(move || {
                    let mut lines = Vec::new();
                    let status = machine.run(limit, &part, &mut |line| lines.push(line.to_owned()));
                    (lines, status)
                })
            })
            .collect();
        let mut status = machine.run(limit, &part(0), show);
        for other in others {
            let (lines, other) = other.join().expect("no panic");
            for line in &lines {
                show(line);
            }
            if matches!(status, Ok(0)) {
                status = other;
            }
        }
        status
    })
}

/// The guest's command and what it needs, as `/in` will hold it.
fn pack_input(options: &Options, scratch: &Path, tar: &Path) -> Result<()> {
    let dir = scratch.join("in");
    fs::create_dir(&dir).context("cannot make the guest's input")?;
    let command = if let Some(command) = &options.exec {
        command.clone()
    } else {
        let binaries = Binaries::build(false)?;
        copy(&binaries.kernel_tests, &dir.join("kernel-tests"))?;
        copy(&binaries.manifold, &dir.join("manifold"))?;
        let apps = crate::root().join("tests/apps");
        process::check(
            Command::new("cp").arg("-a").arg(&apps).arg(&dir),
            Duration::from_mins(2),
        )?;
        let filter = options.filter.as_deref().unwrap_or_default();
        // One at a time: they count what is left behind on the whole machine.
        format!(
            "exec /in/kernel-tests --test-threads=1 --color=never {}",
            quote(filter)
        )
    };
    let script = format!("{}\n{command}\n", include_str!("environment.sh"));
    fs::write(dir.join("command"), script).context("cannot write the guest's command")?;
    let mut pack = Command::new("tar");
    pack.arg("-cf").arg(tar).arg("-C").arg(&dir).arg(".");
    process::check(&mut pack, Duration::from_mins(2))
}

fn quote(word: &str) -> String {
    if word.is_empty() {
        return String::new();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Debug information is most of a binary's size and serves nobody in the guest.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("strip");
    command.arg("--strip-debug").arg("-o").arg(to).arg(from);
    process::check(&mut command, Duration::from_mins(2))
}

/// Longest build: all of it, optimised, on a slow machine.
const BUILD: Duration = Duration::from_hours(1);

/// Programs that cargo built.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// The test binary `tests/kernel`.
    pub(crate) kernel_tests: PathBuf,
    /// The program.
    pub(crate) manifold: PathBuf,
}

impl Binaries {
    /// Builds the kernel tests and the program they drive.
    pub(crate) fn build(release: bool) -> Result<Self> {
        let mut command = process::cargo();
        command.args([
            "test",
            "--package",
            "manifold",
            "--test",
            "kernel",
            "--no-run",
        ]);
        let built = executables(&mut command, release)?;
        let find = |name: &str| {
            built
                .iter()
                .find(|(target, _)| target == name)
                .map(|(_, path)| path.clone())
                .with_context(|| format!("cargo built no `{name}`"))
        };
        Ok(Self {
            kernel_tests: find("kernel")?,
            manifold: find("manifold")?,
        })
    }

    /// Builds the program alone.
    pub(crate) fn program(release: bool) -> Result<PathBuf> {
        let mut command = process::cargo();
        command.args(["build", "--package", "manifold", "--bin", "manifold"]);
        let built = executables(&mut command, release)?;
        let program = built.into_iter().find(|(name, _)| name == "manifold");
        program
            .map(|(_, path)| path)
            .context("cargo built no `manifold`")
    }
}

/// Name and path of each program that a cargo command builds.
fn executables(command: &mut Command, release: bool) -> Result<Vec<(String, PathBuf)>> {
    if release {
        command.arg("--release");
    }
    command.arg("--message-format=json-render-diagnostics");
    let text = process::read_within(command, BUILD)?;
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo wrote no JSON")?;
        let name = message["target"]["name"].as_str();
        if let (Some(name), Some(path)) = (name, message["executable"].as_str()) {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    ensure!(!found.is_empty(), "cargo built no program");
    Ok(found)
}
