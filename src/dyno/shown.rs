//! What programs read of their dyno's size: the files of both cgroup versions where runtimes and
//! buildpacks look, with the size's own figures. The kernel's limits are others: memory may go to
//! twice the quota before it kills (R15).

use serde::{Deserialize, Serialize};

/// The figures of a size that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownSize {
    /// The quota.
    pub memory_bytes: u64,
    /// In v1 units: 1024 is one share.
    pub cpu_shares: u64,
    /// The v2 weight for them.
    pub cpu_weight: u64,
    /// Microseconds of CPU time in each period of [`Self::CPU_PERIOD_US`], if there is a hard
    /// limit.
    pub cpu_quota_us: Option<u64>,
    /// Processes and threads.
    pub tasks_max: u64,
}

impl ShownSize {
    /// One period of a hard CPU limit in microseconds: the kernel's default.
    pub const CPU_PERIOD_US: u64 = 100_000;

    /// Files below `/sys/fs/cgroup` and their text. v1 controllers have directories of their own,
    /// v2 lies at the top; a dyno is the root of its cgroup namespace, so there is nothing between.
    /// Sources: cgroup-v1, "memory" and "sched-bwc"; cgroup-v2, "Controllers".
    pub fn files(&self) -> Vec<(&'static str, String)> {
        let memory = self.memory_bytes.to_string();
        let tasks = self.tasks_max.to_string();
        let period = Self::CPU_PERIOD_US;
        let quota = self.cpu_quota_us.map(|quota| quota.to_string());
        let or = |none: &str| quota.clone().unwrap_or_else(|| none.to_owned());
        let text = |text: &str| text.to_owned();
        let files = [
            ("cgroup.controllers", text("cpu memory pids")),
            ("memory.max", memory.clone()),
            ("memory.high", text("max")),
            ("memory.swap.max", text("0")),
            ("cpu.max", format!("{} {period}", or("max"))),
            ("cpu.weight", self.cpu_weight.to_string()),
            ("pids.max", tasks.clone()),
            ("memory/memory.limit_in_bytes", memory.clone()),
            ("memory/memory.memsw.limit_in_bytes", memory.clone()),
            ("memory/memory.soft_limit_in_bytes", memory),
            ("memory/memory.use_hierarchy", text("1")),
            ("cpu/cpu.shares", self.cpu_shares.to_string()),
            ("cpu/cpu.cfs_quota_us", or("-1")),
            ("cpu/cpu.cfs_period_us", period.to_string()),
            // As many distributions name the directory, and some programs nothing else.
            ("cpu,cpuacct/cpu.shares", self.cpu_shares.to_string()),
            ("cpu,cpuacct/cpu.cfs_quota_us", or("-1")),
            ("cpu,cpuacct/cpu.cfs_period_us", period.to_string()),
            // Go takes the only mount of cgroups there is for the hierarchy its group is in.
            ("cpu.cfs_quota_us", or("-1")),
            ("cpu.cfs_period_us", period.to_string()),
            ("pids/pids.max", tasks),
        ];
        files.map(|(name, text)| (name, text + "\n")).into()
    }

    /// `/proc/cgroups` of a host whose controllers are all on v2. Where they are not, some runtimes
    /// (the JVM) would look for hierarchies that a dyno does not have, and not find its size; and
    /// the true one counts the groups of the whole host.
    pub fn controllers() -> String {
        let rows = ["cpuset", "cpu", "cpuacct", "memory", "pids"];
        let rows = rows.map(|name| format!("{name}\t0\t1\t1\n"));
        format!(
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\n{}",
            rows.concat()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_the_same() {
        let size = ShownSize {
            memory_bytes: 536_870_912,
            cpu_shares: 1024,
            cpu_weight: 100,
            cpu_quota_us: None,
            tasks_max: 256,
        };
        let check = |size: ShownSize, expected: &[(&str, &str)]| {
            let files = size.files();
            for (name, text) in expected {
                let found = files.iter().find(|(file, _)| file == name);
                let found = found.map(|(_, text)| text.trim_end());
                assert_eq!(found, Some(*text), "{name}");
            }
        };
        check(
            size,
            &[
                ("memory.max", "536870912"),
                ("memory/memory.limit_in_bytes", "536870912"),
                ("cpu.max", "max 100000"),
                ("cpu/cpu.cfs_quota_us", "-1"),
                ("cpu.cfs_quota_us", "-1"),
                ("pids.max", "256"),
            ],
        );
        let hard = ShownSize {
            cpu_quota_us: Some(50_000),
            ..size
        };
        check(
            hard,
            &[
                ("cpu.max", "50000 100000"),
                ("cpu/cpu.cfs_quota_us", "50000"),
                ("cpu/cpu.cfs_period_us", "100000"),
                ("cpu,cpuacct/cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_quota_us", "50000"),
            ],
        );
    }
}
