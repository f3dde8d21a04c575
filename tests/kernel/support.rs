//! What the cases share: the program under test, signals, and the count of what must not be left.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

/// The `manifold` program: `MANIFOLD_BIN` in the VM, else the one cargo built.
pub(crate) fn manifold() -> PathBuf {
    std::env::var_os("MANIFOLD_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_manifold")),
        PathBuf::from,
    )
}

/// Three hex digits: the start of all that the supervisors of this test process make, so that
/// several test processes can count their leftovers side by side.
fn scope() -> String {
    format!("{:03x}", std::process::id() & 0xfff)
}

/// The prefix of this test process's directories below `/var/tmp`.
pub(crate) fn dir_prefix() -> String {
    format!("manifold-test-{}", scope())
}

/// Makes a state directory whose supervisor has an instance name of our scope.
pub(crate) fn prepare_state(state: &Path) -> std::io::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)?;
    let instance = format!("{}{:05x}\n", scope(), count & 0xf_ffff);
    std::fs::write(state.join("instance"), instance)
}

/// True in the virtual machine, where the program comes with the tests.
pub(crate) fn is_guest() -> bool {
    std::env::var_os("MANIFOLD_BIN").is_some()
}

/// How many times longer a bound on time is there: the virtual machine may be emulated.
pub(crate) fn patience() -> u32 {
    if is_guest() { 15 } else { 1 }
}

/// Between two looks at a condition that nothing announces (another program's state).
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(50));
}

/// Supervisors that did not end as they should after their test was over.
static NOT_STOPPED: AtomicU32 = AtomicU32::new(0);

/// Notes that a supervisor did not end as it should.
pub(crate) fn not_stopped(why: &str) {
    eprintln!("after the test: {why}");
    NOT_STOPPED.fetch_add(1, Ordering::Relaxed);
}

/// How many did not.
pub(crate) fn count_not_stopped() -> u32 {
    NOT_STOPPED.load(Ordering::Relaxed)
}

/// Signals a process of ours, by pid.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid fits"));
    // It may be gone already: then there is nothing to signal.
    let _ = nix::sys::signal::kill(pid, signal);
}

/// A process of a dyno whose environment matches and whose root is an overlay over `state`.
pub(crate) fn find_process(wanted: impl Fn(&[String]) -> bool, state: &Path) -> Option<u32> {
    let ours = |pid: u32| {
        let keeper = ancestor_arguments(pid);
        keeper.iter().any(|a| Path::new(a).starts_with(state))
    };
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(environ) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        let environ: Vec<String> = environ
            .split(|b| *b == 0)
            .map(|v| String::from_utf8_lossy(v).into_owned())
            .collect();
        if wanted(&environ) && ours(pid) {
            return Some(pid);
        }
    }
    None
}

/// The arguments of all ancestors of a process: one of them is its keeper.
fn ancestor_arguments(mut pid: u32) -> Vec<String> {
    let mut arguments = Vec::new();
    while pid > 1 {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            break;
        };
        let parent = status
            .lines()
            .find_map(|l| l.strip_prefix("PPid:"))
            .and_then(|v| v.trim().parse().ok())
            .unwrap_or(0);
        let cmdline = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        arguments.extend(
            cmdline
                .split(|b| *b == 0)
                .map(|a| String::from_utf8_lossy(a).into_owned()),
        );
        pid = parent;
    }
    arguments
}

/// Network links of the host whose names begin so.
pub(crate) fn links(start: &str) -> Vec<String> {
    let all = std::fs::read_dir("/sys/class/net").into_iter().flatten();
    let names = all.flatten().map(|link| link.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(start)).collect()
}

/// What of ours is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// Cgroups, mounts, loop devices, links and nft tables that carry the prefix of our scope.
    pub(crate) fn count() -> Self {
        let mut found = BTreeSet::new();
        let (group, table, link) = (
            format!("manifold-{}", scope()),
            format!("manifold_{}", scope()),
            format!("mf{}", scope()),
        );
        cgroups(Path::new("/sys/fs/cgroup"), &group, 0, &mut found);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        found.extend(
            mounts
                .lines()
                .filter(|l| l.contains(&dir_prefix()))
                .map(|l| format!("mount {l}")),
        );
        found.extend(loop_devices());
        found.extend(links(&link).iter().map(|name| format!("link {name}")));
        if let Ok(output) = std::process::Command::new("nft")
            .args(["list", "tables"])
            .output()
        {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            found.extend(
                text.lines()
                    .filter(|l| l.contains(&table))
                    .map(str::to_owned),
            );
        }
        Self(found)
    }

    /// Fails when there is more than before; links and cgroups get a moment to go, since the
    /// kernel ends a network namespace in the background.
    pub(crate) fn none_since(before: &Self) -> Result<(), Failed> {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let now = Self::count();
            let new: Vec<_> = now.0.difference(&before.0).cloned().collect();
            if new.is_empty() {
                return Ok(());
            }
            if std::time::Instant::now() > deadline {
                return Err(format!("left behind: {new:#?}").into());
            }
            pause();
        }
    }
}

/// Loop devices over files of our state directories.
fn loop_devices() -> Vec<String> {
    let mut found = Vec::new();
    for device in std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
    {
        let file = device.path().join("loop/backing_file");
        let file = std::fs::read_to_string(file).unwrap_or_default();
        if file.contains(&dir_prefix()) {
            found.push(format!("loop device {}", file.trim()));
        }
    }
    found
}

fn cgroups(dir: &Path, prefix: &str, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.insert(format!("cgroup {}", entry.path().display()));
        } else if depth < 2 {
            cgroups(&entry.path(), prefix, depth + 1, found);
        }
    }
}
