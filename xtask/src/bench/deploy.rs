//! `cargo xtask bench deploy`: from `git push` to a running release, and what of that is ours.
//!
//! A push is timed from the start of the stock client until the new release's dyno is up. Of that
//! the language's tools take what lies between the buildpack's detection and the end of the build
//! dyno, and the app takes what lies between its start and its port; the rest is the share of git
//! and the platform. Packing a slug is measured beside GNU tar with gzip and with pigz.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::slug;
use super::table::{Report, Series, quantile};
use crate::leftovers::Leftovers;
use crate::platform::Platform;
use crate::vm::Binaries;
use crate::{packages, process};

/// Beside [`packages::ALL`].
const PACKAGES: &[&str] = &["pigz"];

/// Rounds of packing.
const PACKS: usize = 7;

/// Longest push.
const PATIENCE: Duration = Duration::from_mins(10);

/// Between two looks at the dynos.
const LOOK: Duration = Duration::from_millis(5);

/// Options of `cargo xtask bench deploy`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Rounds of each kind of push
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    count: u8,
    /// Only packing, without the network
    #[arg(long)]
    pack_only: bool,
    /// Deploy a tree of 1 GiB, too: time and memory
    #[arg(long)]
    gigabyte: bool,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let wanted: Vec<&str> = packages::ALL.iter().chain(PACKAGES).copied().collect();
    packages::install(&wanted)?;
    println!("building manifold");
    let pack = super::built("pack")?;
    let program = Binaries::program(true)?;
    let before = Leftovers::count();
    let mut report = Report::default();
    // Packing comes last: a file system without a journal makes files slowly for minutes after many
    // were removed.
    let pushed = if options.pack_only {
        Ok(())
    } else {
        pushes(&program, options, &mut report)
    };
    let measured = pushed.and_then(|()| packs(&pack, &mut report));
    report.print();
    measured?;
    let left = Leftovers::since(&before);
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

/// The same tree, packed in turn.
fn packs(program: &Path, report: &mut Report) -> Result<()> {
    let dir = temporary("pack")?;
    let tree = dir.path().join("tree");
    slug::tree(&tree)?;
    let mut gzip = Series::new("GNU tar, gzip -6: 10,000 files of 45 MB");
    let mut pigz = Series::new("GNU tar, pigz -6");
    let mut ours = Series::new("manifold");
    let mut sizes = [0; 3];
    for round in 0..=PACKS {
        let slugs = dir.path().join("slugs");
        fs::create_dir(&slugs)?;
        let ways: [(&mut Series, Command); 3] = [
            (&mut gzip, piped(&tree, &slugs, "gzip")),
            (&mut pigz, piped(&tree, &slugs, "pigz")),
            (&mut ours, {
                let mut command = Command::new(program);
                command.arg(tree.join("app")).arg(&slugs);
                command
            }),
        ];
        for ((series, mut command), size) in ways.into_iter().zip(&mut sizes) {
            process::keep_going()?;
            // What was written before is not this one's.
            nix::unistd::sync();
            let begun = Instant::now();
            let output = command.stdin(Stdio::null()).output()?;
            let took = begun.elapsed();
            ensure!(output.status.success(), "{command:?}: {output:?}");
            // The first round warms the cache.
            if round > 0 {
                series.times.push(took);
            }
            for slug in fs::read_dir(&slugs)? {
                let slug = slug?;
                *size = slug.metadata()?.len();
                fs::remove_file(slug.path())?;
            }
        }
        fs::remove_dir(&slugs)?;
    }
    for (series, size) in [&gzip, &pigz, &ours].into_iter().zip(sizes) {
        let text = format!(
            "{:.0} ms (min {:.0}, max {:.0}), {}.{} MB",
            series.quantile(0.5),
            series.quantile(0.0),
            series.quantile(1.0),
            size / 1_000_000,
            size / 100_000 % 10
        );
        report.figure(format!("pack by {}", series.name), text);
    }
    let better = gzip.quantile(0.5).min(pigz.quantile(0.5));
    report.at_most(
        "pack, of the better of both",
        ours.quantile(0.5) / better,
        0.7,
    );
    Ok(())
}

fn piped(tree: &Path, slugs: &Path, program: &str) -> Command {
    let mut command = Command::new("bash");
    let script = format!(
        "set -o pipefail; tar --sort=name -C \"$1\" -cf - ./app | {program} -6 -n > \"$2\"/slug.tgz"
    );
    command.args(["-c", &script, "-"]).arg(tree).arg(slugs);
    command
}

fn temporary(what: &str) -> Result<tempfile::TempDir> {
    let prefix = format!("manifold-bench-{what}-");
    let dir = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in("/var/tmp")?;
    Ok(dir)
}

/// Where the time of a push went.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    whole: Duration,
    tools: Duration,
    boot: Duration,
}

impl Spent {
    fn share(self) -> Duration {
        self.whole.saturating_sub(self.tools + self.boot)
    }
}

fn pushes(program: &Path, options: &Options, report: &mut Report) -> Result<()> {
    let platform = Platform::start(program, "warn")?;
    for (app, source, replaced) in [
        ("flask", "app.py", "by Flask"),
        ("express", "server.js", "by Express"),
    ] {
        let count = usize::from(options.count);
        let mut first = Vec::new();
        for round in 0..count.min(3) {
            let name = format!("{app}-{round}");
            first.push(Tree::new(&platform, program, app, &name)?.push()?);
            platform
                .read(&["ps:scale", "web=0", "worker=0", "--app", &name])
                .ok();
        }
        share(report, app, "first", &first);
        let tree = Tree::new(&platform, program, app, app)?;
        tree.push()?;
        let mut kind = |name: &str, rounds: usize, prepare: &dyn Fn(usize) -> Result<()>| {
            let mut all = Vec::new();
            for round in 0..rounds {
                prepare(round)?;
                all.push(tree.push()?);
            }
            let whole: Vec<Duration> = all.iter().map(|spent| spent.whole).collect();
            share(report, app, name, &all);
            Ok::<f64, anyhow::Error>(quantile(&whole, 0.5))
        };
        let edit = |round: usize| -> Result<()> {
            let path = tree.path().join(source);
            let text = fs::read_to_string(&path)?;
            fs::write(
                &path,
                text.replace(replaced, &format!("{replaced} {round}")),
            )?;
            tree.commit()
        };
        kind("cold", count.min(3), &|round| {
            platform.read(&["builds:cache:purge", "--app", app])?;
            edit(100 + round)
        })?;
        kind("warm cache", count, &edit)?;
        let none = kind("no change", count, &|_| tree.commit())?;
        report.at_most(format!("{app}: a push without change, ms"), none, 2000.0);
        let mut backs = Vec::new();
        for _ in 0..count {
            backs.push(tree.roll_back()?);
        }
        report.figure(format!("{app}, rollback"), told(&backs));
        let rest: Vec<Duration> = backs.iter().map(|spent| spent.share()).collect();
        report.at_most(
            format!("{app}: rollback beside the app's boot, ms"),
            quantile(&rest, 0.5),
            1000.0,
        );
        platform
            .read(&["ps:scale", "web=0", "worker=0", "--app", app])
            .ok();
    }
    if options.gigabyte {
        gigabyte(&platform, report)?;
    }
    platform.stop()
}

/// Where the time of one kind of push went, and whether our part of it is small enough.
fn share(report: &mut Report, app: &str, kind: &str, all: &[Spent]) {
    report.figure(format!("{app}, {kind}"), told(all));
    let shares: Vec<Duration> = all.iter().map(|spent| spent.share()).collect();
    report.at_most(
        format!("{app}, {kind}: share of git and the platform, ms"),
        quantile(&shares, 0.5),
        500.0,
    );
}

/// Medians of each part.
fn told(all: &[Spent]) -> String {
    let median = |part: fn(&Spent) -> Duration| {
        let times: Vec<Duration> = all.iter().map(part).collect();
        quantile(&times, 0.5)
    };
    format!(
        "{:.0} ms: tools {:.0}, boot {:.0}, share {:.0} (medians of {})",
        median(|spent| spent.whole),
        median(|spent| spent.tools),
        median(|spent| spent.boot),
        median(|spent| spent.share()),
        all.len()
    )
}

/// A repository with an app of the tests, whose remote is the platform.
struct Tree<'a> {
    platform: &'a Platform,
    app: String,
    dir: tempfile::TempDir,
}

impl<'a> Tree<'a> {
    fn new(platform: &'a Platform, program: &Path, source: &str, app: &str) -> Result<Self> {
        let tree = Self {
            platform,
            app: app.to_owned(),
            dir: temporary("tree")?,
        };
        fs::create_dir(tree.dir.path().join("bin"))?;
        let helper = tree.dir.path().join("bin/git-remote-manifold");
        std::os::unix::fs::symlink(program, helper)?;
        let source = crate::root().join("tests/apps").join(source);
        let mut copy = Command::new("cp");
        process::read(copy.arg("-a").arg(source).arg(tree.path()))?;
        tree.git(&["init", "-q", "-b", "main"])?;
        platform.read(&["create", app, "--no-remote"])?;
        tree.git(&["remote", "add", "manifold", &format!("manifold::{app}")])?;
        tree.commit()?;
        Ok(tree)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.path())
            .env("PATH", format!("{}/bin:{path}", self.dir.path().display()))
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("MANIFOLD_SOCKET", self.platform.socket());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Ann")
                .env(format!("GIT_{role}_EMAIL"), "ann@example.test");
        }
        command
    }

    fn git(&self, args: &[&str]) -> Result<String> {
        process::read(self.command("git").args(args))
    }

    fn commit(&self) -> Result<()> {
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "--allow-empty", "-m", "next"])?;
        Ok(())
    }

    /// Pushes, and waits until the new release's dyno is up.
    fn push(&self) -> Result<Spent> {
        let mut command = self.command("bash");
        command.args(["-c", "exec git push manifold main 2>&1"]);
        let begun = Instant::now();
        let (mut detected, mut ended, mut version) = (None, None, None);
        let mut said = String::new();
        let status = process::stream(&mut command, PATIENCE, |line| {
            let now = Instant::now();
            if line.contains(" app detected") {
                detected = detected.or(Some(now));
            } else if line.contains("Discovering process types") {
                ended = Some(now);
            } else if let Some((_, after)) = line.split_once("Released v") {
                version = after.trim().parse().ok();
            }
            said.push_str(line);
            said.push('\n');
            process::Next::GoOn
        })?;
        ensure!(status.success(), "git push: {status}\n{said}");
        let (Some(detected), Some(ended), Some(version)) = (detected, ended, version) else {
            bail!("the push does not tell its steps:\n{said}");
        };
        let boot = self.await_release(version)?;
        Ok(Spent {
            whole: begun.elapsed(),
            tools: ended - detected,
            boot,
        })
    }

    fn roll_back(&self) -> Result<Spent> {
        let releases = self.releases()?;
        let last = releases[0]["version"].as_u64().context("no version")?;
        let begun = Instant::now();
        self.platform.read(&["rollback", "--app", &self.app])?;
        let boot = self.await_release(last + 1)?;
        Ok(Spent {
            whole: begun.elapsed(),
            tools: Duration::ZERO,
            boot,
        })
    }

    fn releases(&self) -> Result<serde_json::Value> {
        let words = ["releases", "--app", &self.app, "--num", "1", "--json"];
        Ok(serde_json::from_str(&self.platform.read(&words)?)?)
    }

    /// Waits until `web.1` of this release is up; the time that its command took to get there.
    fn await_release(&self, version: u64) -> Result<Duration> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            process::keep_going()?;
            let text = self.platform.read(&["ps", "--app", &self.app, "--json"])?;
            let dynos: serde_json::Value = serde_json::from_str(&text)?;
            let dynos = dynos.as_array().cloned().unwrap_or_default();
            let is_up = dynos.iter().any(|dyno| {
                dyno["name"] == "web.1"
                    && dyno["state"] == "up"
                    && dyno["release"]["version"] == version
            });
            if is_up {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "v{version} of {} does not come up:\n{}",
                self.app,
                self.platform.logs(&self.app)
            );
            std::thread::park_timeout(LOOK);
        }
        boot(&self.platform.logs(&self.app)).context("the log tells no start of web.1")
    }
}

/// From the last start of `web.1` to its port, by the app's log.
fn boot(log: &str) -> Option<Duration> {
    let at = |words: &str| {
        let mut lines = log.lines().rev();
        let line = lines.find(|line| line.contains("[web.1]") && line.contains(words))?;
        time_of_day(line)
    };
    let (start, up) = (at("Starting process")?, at("changed from starting to up")?);
    Some(up.saturating_sub(start))
}

/// Of a line that begins with a time like `2026-01-01T10:00:00.123456+00:00`.
fn time_of_day(line: &str) -> Option<Duration> {
    let (_, time) = line.split_whitespace().next()?.split_once('T')?;
    let mut parts = time.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds = parts.next()?.split(['+', '-', 'Z']).next()?;
    let seconds: f64 = seconds.parse().ok()?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_secs_f64(seconds))
}

/// A tree just below the largest that is taken (the archive's own end counts, too), and one above.
fn gigabyte(platform: &Platform, report: &mut Report) -> Result<()> {
    let dir = temporary("gigabyte")?;
    let total = slug::gigabyte(dir.path(), (1 << 30) - (1 << 20))?;
    let path = dir.path().display().to_string();
    platform.read(&["create", "big", "--no-remote"])?;
    let begun = Instant::now();
    platform.read(&["deploy", &path, "--app", "big"])?;
    report.figure(
        "deploy of a tree of 1 GiB",
        format!(
            "{:.1} s, {total} bytes; supervisor's peak memory {:.0} MB",
            begun.elapsed().as_secs_f64(),
            platform.peak_mb()?
        ),
    );
    fs::write(dir.path().join("more"), vec![b'x'; 2 << 20])?;
    let output = platform
        .command(&["deploy", &path, "--app", "big"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = said.lines().find(|line| line.starts_with(" !  "));
    ensure!(
        !output.status.success(),
        "more than 1 GiB was taken:\n{said}"
    );
    report.figure("2 MiB more", why.unwrap_or("no reason").trim().to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_is_read_off_the_log() {
        let log = "2026-01-01T10:00:00.100000+00:00 heroku[web.1]: Starting process with command `x`\n\
                   2026-01-01T10:00:01.350000+00:00 heroku[web.1]: State changed from starting to up\n\
                   2026-01-01T10:00:02.000000+00:00 heroku[web.2]: Starting process with command `x`\n";
        assert_eq!(boot(log), Some(Duration::from_millis(1250)));
        assert_eq!(boot(""), None);
    }
}
