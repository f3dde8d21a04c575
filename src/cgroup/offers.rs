//! What this host's cgroups can enforce, and what to say about the rest.

use std::path::PathBuf;

use super::Version;
use super::weights::Scheduling;

/// What the host offers beside the limits that every dyno needs.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers {
    pub(super) has_swap: bool,
    /// The control file for weights of disk I/O.
    pub(super) io_weight: Option<&'static str>,
    /// What is not enforced, why, and what to do.
    pub(super) lacks: Vec<String>,
    /// For each hierarchy the control files that it does not have: a launch does not look for them.
    missing: Vec<Vec<&'static str>>,
}

/// Control files that a dyno's limits are written to.
const WRITTEN: [&str; 12] = [
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "cpu.weight",
    "cpu.max",
    "cpu.shares",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "pids.max",
];

impl Offers {
    /// Looks at the parent groups of the dynos: a group has the files of its controllers.
    pub(super) fn of(
        version: Version,
        parents: &[PathBuf],
        has_swap: bool,
        scheduling: &Scheduling,
    ) -> Self {
        let has = |file: &str| parents.iter().any(|parent| parent.join(file).exists());
        let (memory, swap, cpu, quota) = match version {
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                "cpu.shares",
                "cpu.cfs_quota_us",
            ),
            Version::V2 => ("memory.max", "memory.swap.max", "cpu.weight", "cpu.max"),
        };
        let mut lacks = Vec::new();
        for (controller, file, what) in [
            ("memory", memory, "the memory of dynos is not limited"),
            ("cpu", cpu, "CPU shares have no effect"),
            ("pids", "pids.max", "processes of dynos are not counted"),
        ] {
            if !has(file) {
                lacks.push(format!(
                    "{what}: this host has no {controller} controller for cgroups (is it disabled on the kernel's command line, or in use by the other cgroup version?)"
                ));
            }
        }
        if has_swap && has(memory) && !has(swap) {
            lacks.push("swap of dynos is not limited: the kernel does not account it (boot with swapaccount=1)".to_owned());
        }
        if has(cpu) && !has(quota) {
            lacks.push("cpu_percent of sizes has no effect: the kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)".to_owned());
        }
        let io_weight = weights(version, scheduling)
            .into_iter()
            .find(|file| has(file));
        if io_weight.is_none() {
            let why = match scheduling {
                Scheduling::Unweighed(disk) => format!(
                    "what schedules the disk {disk} knows no weights (echo bfq > /sys/block/{disk}/queue/scheduler, then restart manifold)"
                ),
                Scheduling::Unknown => {
                    "the state directory does not lie on one disk, whose scheduler could weigh"
                        .to_owned()
                }
                Scheduling::Bfq | Scheduling::Cost => {
                    "this host has no io (v1: blkio) controller for cgroups".to_owned()
                }
            };
            lacks.push(format!("io_weight of sizes has no effect: {why}"));
        }
        let missing = |parent: &PathBuf| {
            let is_missing = |file: &&str| !parent.join(file).exists();
            WRITTEN.into_iter().filter(is_missing).collect()
        };
        Self {
            has_swap,
            io_weight,
            lacks,
            missing: parents.iter().map(missing).collect(),
        }
    }

    /// True for a file that the parent group in this hierarchy does not have either.
    pub(super) fn lacks_file(&self, hierarchy: usize, file: &str) -> bool {
        let missing = self.missing.get(hierarchy);
        missing.is_some_and(|missing| missing.contains(&file))
    }
}

/// Control files that have an effect, the best first. v1's second name is older than BFQ's own.
fn weights(version: Version, scheduling: &Scheduling) -> Vec<&'static str> {
    match (version, scheduling) {
        (Version::V1, Scheduling::Bfq) => vec!["blkio.bfq.weight", "blkio.weight"],
        (Version::V2, Scheduling::Bfq) => vec!["io.bfq.weight"],
        (Version::V2, Scheduling::Cost) => vec!["io.weight"],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(version: Version, files: &[&str], has_swap: bool) -> (Option<&'static str>, String) {
        scheduled(version, files, has_swap, &Scheduling::Cost)
    }

    fn scheduled(
        version: Version,
        files: &[&str],
        has_swap: bool,
        scheduling: &Scheduling,
    ) -> (Option<&'static str>, String) {
        let dir = tempfile::tempdir().expect("a directory");
        for file in files {
            std::fs::write(dir.path().join(file), "").expect("written");
        }
        let offers = Offers::of(version, &[dir.path().to_owned()], has_swap, scheduling);
        (offers.io_weight, offers.lacks.join("\n"))
    }

    #[test]
    fn a_host_with_everything_has_nothing_to_say() {
        let all = [
            "memory.max",
            "memory.swap.max",
            "cpu.weight",
            "cpu.max",
            "pids.max",
            "io.weight",
        ];
        let (io_weight, lacks) = offers(Version::V2, &all, true);
        assert_eq!((io_weight, lacks.as_str()), (Some("io.weight"), ""));
    }

    #[test]
    fn each_thing_that_is_missing_is_said() {
        let (_, lacks) = offers(Version::V1, &["memory.limit_in_bytes", "cpu.shares"], true);
        let lines: Vec<&str> = lacks.lines().collect();
        assert_eq!(lines.len(), 4, "{lacks}");
        for (line, start) in lines.iter().zip([
            "processes of dynos are not counted",
            "swap of dynos is not limited",
            "cpu_percent of sizes has no effect",
            "io_weight of sizes has no effect",
        ]) {
            assert!(line.starts_with(start), "{line}");
        }
        let (_, lacks) = offers(Version::V2, &["cpu.weight", "pids.max"], true);
        assert!(
            lacks.contains("the memory of dynos is not limited"),
            "{lacks}"
        );
        assert!(!lacks.contains("swap"), "once is enough: {lacks}");
    }
    #[test]
    fn weights_are_written_only_where_something_weighs() {
        let check = |version, file: &'static str, scheduling: Scheduling, has_effect: bool| {
            let (found, lacks) = scheduled(version, &[file], false, &scheduling);
            assert_eq!(found, has_effect.then_some(file), "{scheduling:?}");
            assert_eq!(!lacks.contains("io_weight"), has_effect, "{lacks}");
        };
        let plain = || Scheduling::Unweighed("vda".to_owned());
        check(Version::V1, "blkio.bfq.weight", Scheduling::Bfq, true);
        check(Version::V1, "blkio.weight", Scheduling::Bfq, true);
        check(Version::V1, "blkio.bfq.weight", plain(), false);
        check(Version::V1, "blkio.bfq.weight", Scheduling::Cost, false);
        check(Version::V2, "io.bfq.weight", Scheduling::Bfq, true);
        check(Version::V2, "io.weight", Scheduling::Cost, true);
        check(Version::V2, "io.weight", Scheduling::Bfq, false);
        check(Version::V2, "io.weight", Scheduling::Unknown, false);
        let (_, lacks) = scheduled(Version::V2, &["io.weight"], false, &plain());
        assert!(
            lacks.contains("echo bfq > /sys/block/vda/queue/scheduler"),
            "{lacks}"
        );
    }
}
