//! What of ours is on this machine: counted at the start of a task and again at its end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;

/// The kernel ends a network namespace, and with it its links, in the background.
const SETTLE: Duration = Duration::from_secs(30);

/// Everything that carries our prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// Looks at mounts, cgroups, nft tables, links, processes, users and temporary files.
    pub(crate) fn count() -> Self {
        let mut found = BTreeSet::new();
        mounts(&mut found);
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut found);
        tables(&mut found);
        processes(&mut found);
        for file in ["/etc/passwd", "/etc/group"] {
            let text = fs::read_to_string(file).unwrap_or_default();
            let names = text.lines().filter_map(|line| line.split(':').next());
            found.extend(
                names
                    .filter(|n| is_ours(n) || is_short(n))
                    .map(|n| format!("{file}: {n}")),
            );
        }
        for (dir, is_wanted) in [
            ("/sys/class/net", is_short as fn(&str) -> bool),
            ("/run/netns", is_short),
            ("/var/tmp", is_ours),
            ("/tmp", is_ours),
        ] {
            let wanted = names(dir).filter(|n| is_ours(n) || is_wanted(n));
            found.extend(wanted.map(|n| format!("{dir}/{n}")));
        }
        Self(found)
    }

    /// What is there now and was not before; things get a moment to go.
    pub(crate) fn since(before: &Self) -> Vec<String> {
        let mut new = Vec::new();
        process::settle(SETTLE, || {
            new = Self::count().0.difference(&before.0).cloned().collect();
            new.is_empty()
        });
        new
    }
}

/// Removes state directories of tests that were ended before they could: new ones only, and only
/// where no process and no mount knows them.
pub(crate) fn sweep_tests(before: &Leftovers) {
    for name in names("/var/tmp").filter(|name| name.starts_with("manifold-test-")) {
        let dir = format!("/var/tmp/{name}");
        if before.0.contains(&dir) || is_used(&dir) {
            continue;
        }
        // What cannot be removed is counted as left behind.
        if fs::remove_dir_all(&dir).is_ok() {
            println!("removed {dir} of an ended test");
        }
    }
}

fn is_used(dir: &str) -> bool {
    names("/proc").any(|pid| {
        ["cmdline", "mountinfo"].iter().any(|file| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(dir)
        })
    })
}

/// `manifold-1a2b3c4d`, `manifold_1a2b3c4d`.
fn is_ours(name: &str) -> bool {
    name == "manifold" || name.starts_with("manifold-") || name.starts_with("manifold_")
}

/// `mf1a2b`: what links are called, whose names are short.
fn is_short(name: &str) -> bool {
    let hex = |c: char| c.is_ascii_hexdigit();
    name.strip_prefix("mf")
        .is_some_and(|rest| rest.starts_with(hex))
}

fn names(dir: &str) -> impl Iterator<Item = String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn mounts(found: &mut BTreeSet<String>) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let (Some(point), Some(kind)) =
            (words.get(4), words.iter().skip_while(|w| **w != "-").nth(1))
        else {
            continue;
        };
        if Path::new(point)
            .iter()
            .any(|p| is_ours(&p.to_string_lossy()))
        {
            found.insert(format!("mount {point} ({kind})"));
        }
    }
}

fn cgroups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if is_ours(&entry.file_name().to_string_lossy()) {
            found.insert(format!("cgroup {}", entry.path().display()));
        } else if depth < 3 {
            cgroups(&entry.path(), depth + 1, found);
        }
    }
}

fn tables(found: &mut BTreeSet<String>) {
    let Ok(output) = Command::new("nft").args(["list", "tables"]).output() else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = text
        .lines()
        .filter(|line| line.split_whitespace().any(is_ours));
    found.extend(ours.map(|line| format!("nft {line}")));
}

/// The program itself under any of its roles, and whatever sits in a cgroup of ours.
fn processes(found: &mut BTreeSet<String>) {
    for pid in names("/proc").filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let inside = groups
            .lines()
            .any(|line| line.split(['/', ':']).any(is_ours));
        if inside || is_ours(program.trim_end_matches(" (deleted)")) {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            found.insert(format!("process {pid} ({})", words.trim_end()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_ours, is_short};

    #[test]
    fn our_prefix_and_nothing_that_looks_like_it() {
        for name in [
            "manifold",
            "manifold-1a2b",
            "manifold_1a2b",
            "manifold-test-x",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["mf1a2b", "mfc", "manifolds", "eth0"] {
            assert!(!is_ours(name), "{name}");
        }
        assert!(is_short("mf1a2b"));
        for name in ["mfx0", "eth0", "docker0", "mf"] {
            assert!(!is_short(name), "{name}");
        }
    }
}
