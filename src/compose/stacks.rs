//! The roles `stacks:build` and `stacks:import`: they make a version of a stack in the state
//! directory, whether a supervisor runs there or not. The supervisor sees it from then on.
//!
//! SIGINT, SIGTERM and SIGHUP end them with nothing left behind; what a SIGKILL leaves is removed by
//! the next one and by the next start.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::model::StackName;
use crate::rootfs::{self, Mirrors, Recipe, RootfsError, StackVersion, Versions};
use crate::settings::{Flags, PlaceFlags, Settings, StackBuildFlags, StackImportFlags};

/// Build a stack from Debian's packages (needs root)
#[derive(Debug, Parser)]
#[command(
    name = "manifold stacks:build",
    bin_name = "manifold stacks:build",
    version
)]
struct Build {
    #[command(flatten)]
    flags: StackBuildFlags,
}

/// Import a stack that was made elsewhere (needs root)
#[derive(Debug, Parser)]
#[command(
    name = "manifold stacks:import",
    bin_name = "manifold stacks:import",
    version
)]
struct Import {
    #[command(flatten)]
    flags: StackImportFlags,
}

/// The exit status of a refused value, as the CLI's.
const REFUSED: u8 = 5;

/// The exit status after a signal, as a shell has it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Runs `stacks:build` to its end.
pub(super) fn build_main(arguments: &[OsString]) -> ExitCode {
    match Build::try_parse_from(arguments.iter().skip(1)) {
        Ok(Build { flags }) => end(start(&flags.place, |versions| async move {
            let name = name(&flags.name)?;
            let recipe = Recipe::find(&name, flags.recipes.as_deref())?;
            let mirrors = match flags.mirror {
                Some(main) => Mirrors {
                    main,
                    security: flags.security,
                },
                None => Mirrors::of_host()?,
            };
            let say = |line: &str| anstream::eprintln!("{line}");
            Ok(rootfs::build(&versions, &recipe, &mirrors, say).await?)
        })),
        Err(error) => error.exit(),
    }
}

/// Runs `stacks:import` to its end.
pub(super) fn import_main(arguments: &[OsString]) -> ExitCode {
    match Import::try_parse_from(arguments.iter().skip(1)) {
        Ok(Import { flags }) => end(start(&flags.place, |versions| async move {
            let stem = flags.file.file_name().unwrap_or_default().to_string_lossy();
            let stem = stem.split('.').next().unwrap_or_default().to_owned();
            let name = name(&flags.name.unwrap_or(stem))?;
            Ok(rootfs::import(&versions, &flags.file, &name).await?)
        })),
        Err(error) => error.exit(),
    }
}

fn name(text: &str) -> anyhow::Result<StackName> {
    text.parse().context(
        "a stack's name is a lower-case letter, then at most 29 letters, digits and dashes",
    )
}

/// `None` after a signal.
fn start<W: Future<Output = anyhow::Result<StackVersion>>>(
    place: &PlaceFlags,
    work: impl FnOnce(Versions) -> W,
) -> anyhow::Result<Option<StackVersion>> {
    let settings = Settings::load(&Flags {
        place: place.clone(),
        ..Flags::default()
    })?;
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "stacks are made by root: run it with sudo"
    );
    // Every dyno is to read it, whatever mask we were started with.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
        let mut hang_up = signal(SignalKind::hangup()).context("cannot watch SIGHUP")?;
        // Dropping the work ends its processes and removes what they made.
        tokio::select! {
            made = work(Versions::new(&settings.paths())) => made.map(Some),
            _ = interrupt.recv() => Ok(None),
            _ = terminate.recv() => Ok(None),
            _ = hang_up.recv() => Ok(None),
        }
    })
}

fn end(result: anyhow::Result<Option<StackVersion>>) -> ExitCode {
    match result {
        Ok(Some(version)) => {
            let (name, digest) = (&version.name, version.digest);
            anstream::println!("{name} {digest}");
            anstream::eprintln!(
                "{} packages, {} MB to run, {} MB to build. Apps get it by their next deploy, or by `manifold stack:upgrade`.",
                version.run.packages.len(),
                version.run.bytes >> 20,
                version.build.bytes >> 20,
            );
            ExitCode::SUCCESS
        }
        Ok(None) => {
            anstream::eprintln!("error: interrupted; nothing was changed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            match error.downcast_ref::<RootfsError>() {
                Some(
                    RootfsError::NoRecipe { .. }
                    | RootfsError::Recipe { .. }
                    | RootfsError::Import { .. }
                    | RootfsError::Reserved { .. },
                ) => ExitCode::from(REFUSED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
