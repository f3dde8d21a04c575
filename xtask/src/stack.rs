//! `cargo xtask stack build`: a stack by `manifold stacks:build`, for this machine or for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::vm::Binaries;
use crate::{packages, process};

/// Longest build of one stack.
const LIMIT: Duration = Duration::from_mins(30);

/// What the languages' tests run on.
const TESTED: [&str; 2] = ["cedar-12", "cedar-13"];

/// Options of `cargo xtask stack`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Build a stack's run and build image
    Build {
        /// A folder of `stacks/`
        #[arg(default_value = "cedar")]
        name: String,
        /// The state directory it goes to
        #[arg(long, value_name = "DIR", default_value = "/var/lib/manifold")]
        state: PathBuf,
    },
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Action::Build { name, state } = &options.action;
    packages::install(&["ca-certificates", "mmdebstrap"])?;
    build(name, state)?;
    println!("use it: manifold stack:set {name} --app APP, or stack = \"{name}\" in the settings");
    Ok(ExitCode::SUCCESS)
}

fn build(name: &str, state: &Path) -> Result<()> {
    let start = Instant::now();
    let mut command = Command::new(Binaries::program(false)?);
    command
        .arg("stacks:build")
        .arg(name)
        .arg("--state")
        .arg(state);
    process::check(&mut command, LIMIT)?;
    println!("built in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The folder of stacks that tests use, below `target/stacks`: each is built where it is missing
/// or its recipe changed.
pub(crate) fn for_tests() -> Result<PathBuf> {
    let state = crate::target().join("stacks");
    let stacks = state.join("stacks");
    for name in TESTED {
        let (stamp, text) = (state.join(format!("{name}.recipe")), recipe(name)?);
        if stacks.join(name).is_dir() && fs::read(&stamp).is_ok_and(|old| old == text) {
            println!("{name} is there");
            continue;
        }
        build(name, &state)?;
        fs::write(&stamp, text).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    Ok(stacks)
}

/// All that makes a stack what it is, but for the packages' versions.
fn recipe(name: &str) -> Result<Vec<u8>> {
    let all = crate::root().join("stacks");
    let dir = all.join(name);
    let mut text = Vec::new();
    for path in [
        dir.join("stack.toml"),
        dir.join("packages.txt"),
        dir.join("packages-build.txt"),
        all.join("complete.sh"),
    ] {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.extend(bytes);
    }
    Ok(text)
}
