//! A one-off dyno that stays and does what it is told: rules must hold for those that run already.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use libtest_mimic::Failed;

use crate::host::{Host, check};

const SCRIPT: &str = include_str!("prober.py");

pub(super) struct Prober {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Prober {
    /// In a one-off dyno of `app`.
    pub(super) fn start(host: &Host, app: &str) -> Result<Self, Failed> {
        let mut child = host
            .command(&[
                "run", "-a", app, "--no-tty", "--", "python3", "-u", "-c", SCRIPT,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut prober = Self {
            child,
            stdin,
            stdout,
        };
        let ready = prober.line()?;
        check(ready == "ready", format!("{ready}\n{}", host.story()))?;
        Ok(prober)
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// One attempt; how it went.
    pub(super) fn ask(&mut self, attempt: &str) -> Result<String, Failed> {
        let stdin = self.stdin.as_mut().ok_or("no stdin")?;
        writeln!(stdin, "{attempt}")?;
        self.line()
    }

    /// One attempt that must go exactly so.
    pub(super) fn expect(&mut self, attempt: &str, expected: &str) -> Result<(), Failed> {
        let got = self.ask(attempt)?;
        check(got == expected, format!("{attempt}: {got}, not {expected}"))
    }

    /// Until it goes so: what is applied to running dynos takes a moment.
    pub(super) fn until(&mut self, attempt: &str, expected: &str) -> Result<(), Failed> {
        let deadline = std::time::Instant::now() + crate::host::PATIENCE;
        loop {
            let got = self.ask(attempt)?;
            if got == expected {
                return Ok(());
            }
            if std::time::Instant::now() > deadline {
                return Err(format!("{attempt}: still {got}, not {expected}").into());
            }
            crate::support::pause();
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // The end of its stdin ends it.
        self.stdin = None;
        let _ = self.child.wait();
    }
}
