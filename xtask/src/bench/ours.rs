//! manifold's part: a supervisor of our own, an app, one-off dynos.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::platform::Platform;
use crate::process;
use crate::vm::Binaries;

const APP: &str = "bench";

/// Longest build and start of the app.
const UP: Duration = Duration::from_mins(2);

/// A platform with one app and no dynos of it.
pub(super) struct Ours {
    platform: Platform,
}

impl Ours {
    pub(super) fn start() -> Result<Self> {
        println!("building manifold");
        let program = Binaries::program(true)?;
        // The launches' lines are below the default level.
        let platform = Platform::start(&program, "info,manifold::supervisor=debug")?;
        platform.read(&["create", APP, "--no-remote"])?;
        platform.show(&["deploy", "tests/apps/tiny", "--app", APP])?;
        platform.await_up(APP, &["web.1"], UP)?;
        platform.read(&["ps:scale", "web=0", "--app", APP])?;
        platform.await_up(APP, &[], UP)?;
        Ok(Self { platform })
    }

    /// One one-off dyno, from the client's start to its end.
    pub(super) fn run(&self) -> Result<Duration> {
        let mut command = self.platform.command(&["run", "--app", APP, "--", "true"]);
        command.stdin(Stdio::piped());
        let start = Instant::now();
        let status = command.output().context("cannot run manifold")?.status;
        let time = start.elapsed();
        ensure!(
            status.success(),
            "manifold run: {status}\n{}",
            self.platform.journal()
        );
        Ok(time)
    }

    /// Stops it; the last `count` launches as the supervisor timed them.
    pub(super) fn stop(self, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        process::settle(Duration::from_secs(5), || {
            times = launches(&self.platform.journal());
            times.len() >= count
        });
        let journal = self.platform.journal();
        self.platform.stop()?;
        ensure!(
            times.len() >= count,
            "the journal tells {} of {count} launches:\n{journal}",
            times.len()
        );
        Ok(times.split_off(times.len() - count))
    }
}

/// The times in lines like `dyno launched dyno=run.1 ... took_us=1234`.
fn launches(journal: &str) -> Vec<Duration> {
    journal
        .lines()
        .filter(|line| line.contains("launched") && line.contains("dyno=run."))
        .filter_map(|line| {
            let (_, after) = line.split_once("took_us=")?;
            let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok().map(Duration::from_micros)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_read_off_the_journal() {
        let journal = "DEBUG dyno launched dyno=web.1 id=1 pid=7 took_us=9\n\
                       DEBUG dyno launched dyno=run.4711 id=2 pid=8 took_us=1234\n\
                       INFO something else took_us=5\n";
        assert_eq!(launches(journal), [Duration::from_micros(1234)]);
    }
}
