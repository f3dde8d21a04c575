//! Development tasks: `cargo xtask test`, `vm`, `stack`, `bench`, `dist`, `demo`, `tidy`.
//!
//! One file per command. Everything made outside `target/` is removed again, after success, failure
//! and Ctrl-C alike.
#![expect(
    clippy::print_stdout,
    reason = "a task's result is what it prints; there is no other data to keep apart"
)]

mod bench;
mod course;
mod demo;
mod dependencies;
mod dist;
mod leftovers;
mod packages;
mod platform;
mod process;
mod security;
mod sources;
mod stack;
mod tally;
mod test;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of manifold.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// How long things take, beside other programs
    Bench(bench::Options),
    /// The main job on real input: set up, build, deploy, scale, crash, clean up
    Demo,
    /// Man pages, completions and the release binary, as a tarball in target/dist
    Dist,
    /// Writes the table of attacks in SECURITY.md anew
    Security,
    /// Stack images
    Stack(stack::Options),
    /// All checks and tests; what CI runs
    Test(test::Options),
    /// Whether the source holds to its own map
    Tidy,
    /// The kernel tests in a virtual machine with cgroup v2
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let outcome = process::catch_signals().and_then(|()| match Cli::parse().task {
        Task::Bench(options) => bench::run(&options),
        Task::Demo => demo::run(),
        Task::Dist => dist::run(),
        Task::Security => security::run(),
        Task::Stack(options) => stack::run(&options),
        Task::Test(options) => Ok(test::run(&options)),
        Task::Tidy => tidy(),
        Task::Vm(options) => vm::run(&options),
    });
    // A signal wins: whoever sent it wants to see it in the status.
    if let Some(signal) = process::signal() {
        eprintln!("stopped by signal {signal}");
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(1));
    }
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The host test of that name.
fn tidy() -> anyhow::Result<ExitCode> {
    let mut test = process::cargo();
    test.args(["test", "--package", "manifold", "--test", "host", "tidy"]);
    process::check(&mut test, std::time::Duration::from_mins(20))?;
    Ok(ExitCode::SUCCESS)
}

/// The workspace's root directory.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// Where cargo puts things, and where our caches lie.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir))
}
