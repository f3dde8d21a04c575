//! Making way for the version that is installed now.
//!
//! The supervisor in charge asks the file at its own path first: whether it runs, likes the settings,
//! and speaks as the keeper does. If it does, dynos and sockets stay with the keeper while the new
//! supervisor starts; if it speaks otherwise the whole platform restarts in order, dynos included.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;

use crate::settings::Settings;
use crate::{keeper, sys};

/// The role of the new version that answers.
pub(super) const CHECK: &str = "__check";

/// It only reads a file: past this it hangs.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the installed version says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) version: String,
    protocol: u32,
}

impl Installed {
    /// It can take over from the keeper that runs.
    pub(super) fn is_like_ours(&self) -> bool {
        self.protocol == keeper::protocol_version()
    }
}

/// Entry point of the role: with the arguments of `supervise` behind it.
pub(super) fn main(words: &[OsString]) -> ExitCode {
    match answer(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn answer(words: &[OsString]) -> anyhow::Result<()> {
    let name = OsString::from("supervise");
    let arguments =
        super::supervise::Arguments::try_parse_from(std::iter::once(&name).chain(words))?;
    Settings::load(&arguments.flags)?;
    let (version, protocol) = (env!("CARGO_PKG_VERSION"), keeper::protocol_version());
    writeln!(std::io::stdout(), "{version} {protocol}")?;
    Ok(())
}

/// Asks the program that is installed now, as it would be started with these words.
pub(super) async fn ask(words: &[OsString]) -> anyhow::Result<Installed> {
    let program = sys::installed_program();
    let output = tokio::process::Command::new(&program)
        .arg(CHECK)
        .args(words)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await;
    let output = output.with_context(|| {
        let seconds = DEADLINE.as_secs();
        format!("{} did not answer in {seconds} seconds", program.display())
    })?;
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    anyhow::ensure!(
        output.status.success(),
        "{} does not start: {}",
        program.display(),
        said(&output.stderr)
    );
    let text = said(&output.stdout);
    parse(&text).with_context(|| format!("{} answered {text:?}", program.display()))
}

fn parse(text: &str) -> Option<Installed> {
    let (version, protocol) = text.split_once(' ')?;
    Some(Installed {
        version: version.to_owned(),
        protocol: protocol.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_that_speaks_alike_takes_over() {
        let ours = format!("9.9.9 {}", keeper::protocol_version());
        let installed = parse(&ours).expect("understood");
        assert!(installed.is_like_ours() && installed.version == "9.9.9");
        assert!(!parse("9.9.9 999").expect("understood").is_like_ours());
        for junk in ["", "9.9.9", "error: unknown command", "1 x"] {
            assert_eq!(parse(junk), None, "{junk:?}");
        }
    }
}
