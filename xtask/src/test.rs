//! `cargo xtask test`: every check and every test, in one run on a fresh Debian.
//!
//! A failing step does not keep the next ones from running, so that one run shows all. The last
//! line is the sum over all test binaries; a check that fails counts as one failed test.

use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::course::Course;
use crate::dependencies;
use crate::leftovers::{self, Leftovers};
use crate::packages;
use crate::process::{self, Ended, Next};
use crate::security::{Place, Shown};
use crate::stack;
use crate::tally::Tally;
use crate::vm::{self, Binaries};

/// Longest step; the virtual machine has its own limit.
const LIMIT: Duration = Duration::from_mins(40);

/// Slow kernel tests that are named at the end.
const SLOWEST: usize = 8;

/// Options of `cargo xtask test`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Leave out the virtual machine
    #[arg(long)]
    no_vm: bool,
    /// Also build the stacks `cedar-12` and `cedar-13`, deploy all six languages, and install by each kind of lock file
    #[arg(long)]
    languages: bool,
    /// Run only the tests whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> ExitCode {
    let mut report = Report::default();
    report.step("packages", |_| packages::install(packages::ALL));
    let before = Leftovers::count();
    report.step("format", |_| {
        process::check(process::cargo().args(["fmt", "--all", "--check"]), LIMIT)
    });
    report.step("dependencies", |_| dependencies::check());
    let filter = options.filter.as_deref();
    let with_vm = !options.no_vm;
    let mut shown = Shown::default();
    let mut course = Course::begin();
    let mut beside = None;
    report.step("host tests", |tally| {
        let mut test = process::cargo();
        test.args(["test", "--workspace", "--no-fail-fast"]);
        test.args(["--bins", "--test", "host", "--"]);
        // Here the package indexes are within reach.
        test.env("MANIFOLD_TEST_NETWORK", "1");
        test.args(filter);
        tested(&mut test, tally, &mut shown, &mut course, &mut |line| {
            // These tests wait a good deal, as those in place do. Not before: two cargos wait for
            // each other.
            if beside.is_none() && line.starts_with("running ") {
                beside = Some(Beside::begin(with_vm));
            }
        })
    });
    report.tell(course, 0);
    let mut stacks = None;
    if options.languages {
        report.step("stack for the kernel tests", |_| {
            stacks = Some(stack::for_tests()?);
            Ok(())
        });
    }
    let mut course = Course::begin();
    report.step("kernel tests in place", |tally| {
        let binaries = beside
            .get_or_insert_with(|| Beside::begin(with_vm))
            .binaries()?;
        // One at a time: they count what is left behind on the whole machine.
        let mut test = Command::new(&binaries.kernel_tests);
        test.current_dir(crate::root()).arg("--test-threads=1");
        test.env("MANIFOLD_TEST_NETWORK", "1");
        if let Some(stacks) = &stacks {
            test.env("MANIFOLD_TEST_STACKS", stacks);
        }
        test.args(filter);
        if filter.is_none() {
            shown.complete(Place::Here);
        }
        tested(&mut test, tally, &mut shown, &mut course, &mut |_| ())
    });
    report.tell(course, SLOWEST);
    match beside {
        // Also when we were asked to stop: it ends then.
        Some(beside) => report.always("clippy, begun beside tests", |_| beside.end()),
        None => report.skip("clippy", "interrupted"),
    }
    let mut course = Course::begin();
    report.step("unit tests", |tally| {
        let mut test = process::cargo();
        test.args(["test", "--workspace", "--lib", "--"]);
        test.args(filter);
        tested(&mut test, tally, &mut shown, &mut course, &mut |_| ())
    });
    report.tell(course, 0);
    let long = process::signal().is_none().then(|| Long::begin(filter));
    if options.no_vm {
        report.skip("kernel tests in the virtual machine", "--no-vm");
    } else {
        let mut course = Course::begin();
        report.step("kernel tests in the virtual machine", |tally| {
            let mut own = Tally::default();
            let status = vm::boot(&vm::Options::tests(filter), &mut |line| {
                println!("{line}");
                own.read(line);
                course.read(line);
                shown.read(Place::Guest, line);
            });
            if filter.is_none() {
                shown.complete(Place::Guest);
            }
            tally.add(own);
            match status? {
                0 => Ok(()),
                status => bail!("status {status}"),
            }
        });
        report.tell(course, SLOWEST);
    }
    match long {
        Some(long) => {
            let mut course = Course::begin();
            report.always("tests of long waits, begun before", |tally| {
                long.end(tally, &mut course)
            });
            report.tell(course, 0);
        }
        None => report.skip("tests of long waits", "interrupted"),
    }
    report.step("attacks", |_| shown.report());
    report.always("leftovers", |_| {
        if process::signal().is_some() {
            leftovers::sweep_tests(&before);
        }
        let left = Leftovers::since(&before);
        for one in &left {
            println!("left behind: {one}");
        }
        if left.is_empty() {
            Ok(())
        } else {
            bail!("{} things left behind", left.len())
        }
    });
    report.print()
}

/// Runs tests and adds their sums; `heard` gets each line.
fn tested(
    command: &mut Command,
    tally: &mut Tally,
    shown: &mut Shown,
    course: &mut Course,
    heard: &mut dyn FnMut(&str),
) -> Result<()> {
    match process::stream(command, LIMIT, |line| {
        println!("{line}");
        heard(line);
        tally.read(line);
        course.read(line);
        shown.read(Place::Here, line);
        Next::GoOn
    })? {
        Ended::Status(status) if status.success() => Ok(()),
        ended => bail!("{ended}"),
    }
}

/// Runs a command; what it says is told at the end, in one piece.
fn hear(command: &mut Command) -> Result<(Vec<String>, Ended)> {
    let mut said = Vec::new();
    let ended = process::stream(command, LIMIT, |line| {
        said.push(line.to_owned());
        Next::GoOn
    })?;
    Ok((said, ended))
}

/// The host tests that wait for a minute and more and do nothing meanwhile, beside whatever runs.
struct Long(JoinHandle<Result<(Vec<String>, Ended)>>);

/// Where they are. The other ignored ones are parts of tests, run by these.
const LONG: &str = "limits::";

impl Long {
    fn begin(filter: Option<&str>) -> Self {
        let mut test = process::cargo();
        // With all features of the workspace, as the host tests were built.
        test.args(["test", "--workspace", "--test", "host", "--", "--ignored"]);
        test.arg(filter.unwrap_or(LONG));
        Self(std::thread::spawn(move || hear(&mut test)))
    }

    /// Waits for their end.
    fn end(self, tally: &mut Tally, course: &mut Course) -> Result<()> {
        let (said, ended) = self.0.join().expect("no panic")?;
        for line in said {
            println!("{line}");
            tally.read(&line);
            course.read(&line);
        }
        if ended.success() {
            Ok(())
        } else {
            bail!("{ended}")
        }
    }
}

/// What is done in the time that the processors have left: the kernel tests are built, what the
/// virtual machine boots from is made, clippy is run, the unit tests are built.
struct Beside {
    thread: JoinHandle<Result<(Vec<String>, Ended)>>,
    binaries: mpsc::Receiver<Result<Binaries>>,
}

impl Beside {
    fn begin(with_vm: bool) -> Self {
        let (sender, binaries) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            make_idle();
            let _ = sender.send(Binaries::build(false));
            // Why this fails, or the unit tests' build, is told by the steps that need them.
            if with_vm {
                let _ = vm::prepare();
            }
            let clippy = [
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ];
            let heard = hear(&mut quiet_cargo(&clippy))?;
            let mut build = quiet_cargo(&["test", "--workspace", "--lib", "--no-run"]);
            let _ = process::stream(&mut build, LIMIT, |_| Next::GoOn)?;
            Ok(heard)
        });
        Self { thread, binaries }
    }

    /// The kernel tests, once they are built.
    fn binaries(&self) -> Result<Binaries> {
        self.binaries.recv().context("their build broke down")?
    }

    /// Waits for its end.
    fn end(self) -> Result<()> {
        let (said, ended) = self.thread.join().expect("no panic")?;
        for line in said {
            println!("{line}");
        }
        if ended.success() {
            Ok(())
        } else {
            bail!("{ended}")
        }
    }
}

/// This thread and all that it starts runs when nothing else wants to. Where that is refused, it
/// only disturbs.
fn make_idle() {
    let mut chrt = Command::new("chrt");
    chrt.args(["--idle", "--pid", "0"]);
    chrt.arg(nix::unistd::gettid().to_string());
    let _ = process::check(&mut chrt, Duration::from_secs(10));
}

/// Cargo, with all it says on stdout.
fn quiet_cargo(words: &[&str]) -> Command {
    let cargo = process::cargo();
    let mut command = Command::new("sh");
    command.current_dir(crate::root());
    command.args(["-c", r#"exec "$@" 2>&1"#, "sh"]);
    command.arg(cargo.get_program()).args(words);
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What became of the steps.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    /// What failed tests said: at the end of a long run it is near at hand.
    failures: Vec<String>,
    tally: Tally,
}

impl Report {
    /// Runs a step, unless we were asked to stop.
    fn step(&mut self, name: &str, run: impl FnOnce(&mut Tally) -> Result<()>) {
        if process::signal().is_some() {
            self.skip(name, "interrupted");
        } else {
            self.always(name, run);
        }
    }

    /// Runs a step even when we were asked to stop.
    fn always(&mut self, name: &str, run: impl FnOnce(&mut Tally) -> Result<()>) {
        println!("==> {name}");
        let start = Instant::now();
        let mut tally = Tally::default();
        let outcome = run(&mut tally);
        let verdict = match &outcome {
            Ok(()) => "ok".to_owned(),
            Err(error) => {
                // A check, a test that was not built, a test binary that broke down.
                if !tally.has_failures() {
                    tally.fail();
                }
                format!("FAILED: {error:#}")
            }
        };
        let line = format!(
            "{:>7.1} s  {name}: {verdict}",
            start.elapsed().as_secs_f64()
        );
        println!("<== {}", line.trim_start());
        self.lines.push(line);
        self.tally.add(tally);
    }

    fn skip(&mut self, name: &str, why: &str) {
        println!("==> {name}: left out ({why})");
        self.lines
            .push(format!("        -  {name}: left out ({why})"));
    }

    /// Adds the slowest tests of the last step, and what its failed ones said.
    fn tell(&mut self, course: Course, slowest: usize) {
        let slowest = course.slowest(slowest);
        self.lines
            .extend(slowest.iter().map(|line| format!("         {line}")));
        self.failures.extend(course.failures());
    }

    /// Prints what failed, the steps and, as the last line, the sum.
    fn print(&self) -> ExitCode {
        for line in &self.failures {
            println!("{line}");
        }
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        println!("{}", self.tally);
        if self.tally.has_failures() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}
