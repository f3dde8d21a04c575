//! Attacks from inside a dyno: the probe (`probe/`, an app like any other) is deployed once and
//! run as an ordinary app, as root of its user namespace, and as that root without the filter.

use std::collections::BTreeMap;
use std::path::Path;

use libtest_mimic::Failed;

use super::{As, Report, rows};
use crate::host::{Host, check};
use crate::support::Leftovers;

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::inside_a_dyno";

/// The switch of the supervisor's test builds: see `supervisor::weaken`.
const SWITCH: &str = "MANIFOLD_TEST_ONLY_WEAKEN_DYNOS";

const PROBE: &[(&str, &str)] = &[
    ("base.py", include_str!("probe/base.py")),
    ("descriptors.py", include_str!("probe/descriptors.py")),
    ("filters.py", include_str!("probe/filters.py")),
    ("kernel.py", include_str!("probe/kernel.py")),
    ("main.py", include_str!("probe/main.py")),
    ("mounts.py", include_str!("probe/mounts.py")),
    ("start.py", include_str!("probe/start.py")),
    ("users.py", include_str!("probe/users.py")),
    ("requirements.txt", ""),
    ("Procfile", "probe: sleep 100000\n"),
];

/// What the command does first: it looks at itself before any program of ours opened a file.
/// `cat` has the signals that bash found: itself it ignores SIGQUIT.
const AT_EXEC: &str = "ls /proc/$$/fd >/tmp/descriptors; cat /proc/self/status >/tmp/status; ";

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::start()?;
    deploy(&host)?;
    let mut report = Report::new(TEST);
    for attacker in [As::User, As::Root, As::Bare] {
        if attacker != As::User {
            host.stop()?;
            host.env = vec![(SWITCH.to_owned(), attacker.word().to_owned())];
            host.launch()?;
        }
        attack(&host, &mut report, attacker)?;
    }
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User, As::Root, As::Bare])
}

fn deploy(host: &Host) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    for (name, text) in PROBE {
        std::fs::write(dir.path().join(name), text)?;
    }
    host.ok(&["create", "probe"])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", "probe"])?;
    host.ok(&["config:set", "CANARY=config", "-a", "probe"])?;
    Ok(())
}

/// All rows of one kind of attacker, in one dyno.
fn attack(host: &Host, report: &mut Report, attacker: As) -> Result<(), Failed> {
    let ids = rows::of_test(TEST, attacker);
    if ids.is_empty() {
        return Ok(());
    }
    let before = supervisor_fds(host)?;
    let command = format!(
        "{AT_EXEC}python3 /app/main.py {} {}",
        attacker.word(),
        ids.join(" ")
    );
    let output = host.cli(&["run", "-a", "probe", "--", "bash", "-c", &command]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let steps = steps(&text);
    for id in ids {
        report.holds(id, attacker, || {
            let steps = steps.get(id).map(Vec::as_slice).unwrap_or_default();
            judge(steps).map_err(|why| format!("{why}{}", complaints(&output.stderr)).into())
        });
    }
    // Alive, and nothing of the dyno is held.
    host.eventually("the descriptors of the supervisor are as before", || {
        supervisor_fds(host).is_ok_and(|now| now <= before)
    })
}

fn complaints(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr).into_owned();
    let text = text.trim();
    if text.is_empty() {
        String::new()
    } else {
        format!("; stderr: {text}")
    }
}

/// One step: its name, what was seen, what had to be.
struct Step<'a> {
    name: &'a str,
    seen: &'a str,
    expected: &'a str,
}

fn steps(text: &str) -> BTreeMap<&str, Vec<Step<'_>>> {
    let mut found: BTreeMap<&str, Vec<Step<'_>>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split('\t');
        let (Some("STEP"), Some(id)) = (words.next(), words.next()) else {
            continue;
        };
        if let (Some(name), Some(seen), Some(expected)) = (words.next(), words.next(), words.next())
        {
            let step = Step {
                name,
                seen,
                expected,
            };
            found.entry(id).or_default().push(step);
        }
    }
    found
}

/// Every step as expected, and at least one of them.
fn judge(steps: &[Step<'_>]) -> Result<String, String> {
    if steps.is_empty() {
        return Err("the probe said nothing".to_owned());
    }
    let is_expected = |step: &Step<'_>| step.expected.split('|').any(|one| one == step.seen);
    let wrong: Vec<_> = steps
        .iter()
        .filter(|step| !is_expected(step))
        .map(|s| format!("{}: {} (expected {})", s.name, s.seen, s.expected))
        .collect();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let first = &steps[0];
    Ok(format!(
        "{} steps; {}: {}",
        steps.len(),
        first.name,
        first.seen
    ))
}

/// How many descriptors the supervisor (the keeper's child) has open.
fn supervisor_fds(host: &Host) -> Result<usize, Failed> {
    let keeper = host.process.as_ref().ok_or("no supervisor runs")?.id();
    let path = format!("/proc/{keeper}/task/{keeper}/children");
    let children = std::fs::read_to_string(path)?;
    for child in children.split_whitespace() {
        let words = std::fs::read(Path::new("/proc").join(child).join("cmdline"))?;
        if String::from_utf8_lossy(&words).contains("--keeper-fd") {
            let count = std::fs::read_dir(format!("/proc/{child}/fd"))?.count();
            check(count > 0, "a supervisor has descriptors")?;
            return Ok(count);
        }
    }
    Err("the supervisor is gone".into())
}
