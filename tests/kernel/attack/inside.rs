//! Attacks from inside a dyno: the probe (`probe/`, an app like any other) is deployed once and
//! run as an ordinary app, as root of its user namespace, and as that root without the filter.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

use super::links::slug_tree;
use super::{As, Report, rows};
use crate::host::{Host, check};
use crate::support::{self, Leftovers};

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::inside_a_dyno";

pub(super) const PROBE: &[(&str, &str)] = &[
    ("base.py", include_str!("probe/base.py")),
    ("dynos.py", include_str!("probe/dynos.py")),
    ("syscalls.txt", include_str!("syscalls.txt")),
    ("descriptors.py", include_str!("probe/descriptors.py")),
    ("filters.py", include_str!("probe/filters.py")),
    ("kernel.py", include_str!("probe/kernel.py")),
    ("main.py", include_str!("probe/main.py")),
    ("mounts.py", include_str!("probe/mounts.py")),
    ("start.py", include_str!("probe/start.py")),
    ("users.py", include_str!("probe/users.py")),
    ("requirements.txt", ""),
    ("Procfile", "neighbour: python3 /app/main.py neighbour\n"),
];

/// Dynos that are started only to see whether the supervisor keeps something of each.
const EXTRA: usize = 6;

/// What the command does first: it looks at itself before any program of ours opened a file.
/// `cat` has the signals that bash found: itself it ignores SIGQUIT.
const AT_EXEC: &str = "ls /proc/$$/fd >/tmp/descriptors; pwd -P >/tmp/cwd; \
    cat /proc/self/status >/tmp/status; ";

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    // PID 1 is an ordinary user and cannot signal a neighbour that the switch made root.
    let mut host = Host::with("[timings]\nstop_grace = 1\n")?;
    deploy(&host)?;
    let canary = listener()?;
    let mut report = Report::new(TEST);
    for attacker in [As::User, As::Root, As::Bare] {
        if attacker != As::User {
            host.weaken(attacker)?;
        }
        let ready = format!("neighbour is ready as {}", attacker.word());
        host.eventually("the neighbour is there", || {
            host.logs("probe").contains(&ready)
        })
        .map_err(|failed| format!("{failed:?}\n{}", host.logs("probe")))?;
        attack(&host, &mut report, attacker)?;
    }
    drop(canary);
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User, As::Root, As::Bare])
}

/// An abstract socket of the host: in another network namespace it must not be there. Another
/// test process may hold the name: then it is there as well.
fn listener() -> Result<Option<UnixListener>, Failed> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name("canary-of-the-host")?;
    match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn deploy(host: &Host) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    for (name, text) in PROBE {
        std::fs::write(dir.path().join(name), text)?;
    }
    host.ok(&["create", "probe"])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", "probe"])?;
    let state = format!("STATE={}", host.dir.path().join("state").display());
    let socket = format!("CONTROL_SOCKET={}", host.socket().display());
    host.ok(&[
        "config:set",
        "CANARY=config",
        &state,
        &socket,
        "-a",
        "probe",
    ])?;
    // Unpacks the slug, into whose tree go what no archive could carry.
    host.ok(&["run", "-a", "probe", "--", "true"])?;
    plant(&slug_tree(host)?.join("app"))?;
    host.ok(&["ps:scale", "neighbour=1", "-a", "probe"])?;
    Ok(())
}

/// A device, set-user-id and capability programs of root, and a file to watch.
fn plant(app: &Path) -> Result<(), Failed> {
    let script = "set -e
        cd \"$1\"
        mknod planted-node c 1 5; chmod 666 planted-node
        cp /usr/bin/id planted-setuid; cp /usr/bin/id planted-capabilities; cp /bin/cat planted-cat
        chown 0:0 planted-*; chmod 4755 planted-setuid
        python3 -c 'import os, struct
for name in (\"planted-capabilities\", \"planted-cat\"):
    os.setxattr(name, \"security.capability\", struct.pack(\"<5I\", 0x02000001, 0xFFFFFFFF, 0, 0x1FF, 0))'
        echo untouched >planted-canary";
    let done = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(app)
        .output()?;
    check(done.status.success(), format!("planting: {done:?}"))
}

/// Name, mode, size, time and contents of everything that dynos share.
fn fingerprint(host: &Host) -> Result<u64, Failed> {
    let mut hasher = DefaultHasher::new();
    let mut open = vec![
        slug_tree(host)?,
        host.dir.path().join("state/stacks/host/root"),
    ];
    let programs = ["/usr/bin/env", "/usr/bin/true", "/usr/bin/id"];
    let mut files: Vec<PathBuf> = programs.iter().map(PathBuf::from).collect();
    files.push(support::manifold());
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)?.flatten() {
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            files.push(entry.path());
        }
    }
    files.sort();
    for file in files {
        let data = std::fs::symlink_metadata(&file)?;
        (
            &file,
            data.mode(),
            data.uid(),
            data.len(),
            data.mtime(),
            data.mtime_nsec(),
        )
            .hash(&mut hasher);
        if data.is_file() {
            std::fs::read(&file)?.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}

/// All rows of one kind of attacker, in one dyno.
fn attack(host: &Host, report: &mut Report, attacker: As) -> Result<(), Failed> {
    let ids = rows::of_test(TEST, attacker);
    let (descriptors, shared) = (settled(host)?, fingerprint(host)?);
    let command = format!(
        "{AT_EXEC}python3 /app/main.py {} {}",
        attacker.word(),
        ids.join(" ")
    );
    let output = host.cli(&["run", "-a", "probe", "--", "bash", "-c", &command]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let steps = steps(&text);
    let is_unchanged = fingerprint(host)? == shared;
    for id in ids {
        report.holds(id, attacker, || {
            let steps = steps.get(id).map(Vec::as_slice).unwrap_or_default();
            if ["F-01", "F-14", "Y-06", "E-01"].contains(&id) {
                check(is_unchanged, "what dynos share has changed on disk")?;
            }
            judge(steps).map_err(|why| format!("{why}{}", complaints(&output.stderr)).into())
        });
    }
    // Alive, and nothing of the dynos is held: pools that fill meanwhile are no leak, one
    // descriptor for each of more dynos than a pool has places is.
    for _ in 0..EXTRA {
        host.ok(&["run", "-a", "probe", "--", "true"])?;
    }
    host.eventually("the supervisor lets go of descriptors", || {
        supervisor_fds(host).is_ok_and(|now| now.len() < descriptors.len() + EXTRA)
    })
    .map_err(|failed| {
        format!(
            "{failed:?}\nbefore: {descriptors:?}\nnow: {:?}",
            supervisor_fds(host)
        )
        .into()
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
pub(super) struct Step<'a> {
    name: &'a str,
    seen: &'a str,
    expected: &'a str,
}

pub(super) fn steps(text: &str) -> BTreeMap<&str, Vec<Step<'_>>> {
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
pub(super) fn judge(steps: &[Step<'_>]) -> Result<String, String> {
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

/// What the supervisor has open when its pools have filled: no change for a while.
fn settled(host: &Host) -> Result<Vec<String>, Failed> {
    let mut last = supervisor_fds(host)?;
    let mut same = 0;
    // A supervisor that never settles shows in what follows.
    for _ in 0..600 {
        if same == 30 {
            break;
        }
        support::pause();
        let now = supervisor_fds(host)?;
        same = if now.len() == last.len() { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// What the supervisor (the keeper's child) has open.
fn supervisor_fds(host: &Host) -> Result<Vec<String>, Failed> {
    let keeper = host.process.as_ref().ok_or("no supervisor runs")?.id();
    let path = format!("/proc/{keeper}/task/{keeper}/children");
    let children = std::fs::read_to_string(path)?;
    for child in children.split_whitespace() {
        let words = std::fs::read(Path::new("/proc").join(child).join("cmdline"))?;
        if String::from_utf8_lossy(&words).contains("--keeper-fd") {
            let entries = std::fs::read_dir(format!("/proc/{child}/fd"))?.flatten();
            let links = entries.flat_map(|entry| std::fs::read_link(entry.path()));
            let names = links.map(|link| link.display().to_string());
            // One for each range of ids stays on purpose: no more than there are ranges.
            let open: Vec<_> = names.filter(|name| !name.starts_with("user:")).collect();
            check(!open.is_empty(), "a supervisor has descriptors")?;
            return Ok(open);
        }
    }
    Err("the supervisor is gone".into())
}
