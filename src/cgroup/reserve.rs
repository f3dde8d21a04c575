//! What all dynos together leave to the host: memory for router and API, and task numbers.

use super::manager::Manager;
use super::{CgroupError, Version, group};

/// Of the host's task numbers the dynos get at most so many per cent.
const TASKS_PERCENT: u64 = 90;

impl Manager {
    /// Limits the parent group of all dynos: to the host's memory less `reserve`, and to most of
    /// its task numbers. Returns the memory limit; `None` where the host does not tell its memory.
    ///
    /// # Errors
    /// A limit cannot be written.
    pub fn keep_for_host(
        &self,
        reserve: impl FnOnce(u64) -> u64,
    ) -> Result<Option<u64>, CgroupError> {
        let memory = total_memory().map(|total| total.saturating_sub(reserve(total)).max(1 << 20));
        let tasks = task_numbers().map(|all| all * TASKS_PERCENT / 100);
        for parent in self.parents() {
            if let Some(bytes) = memory {
                let file = match self.version() {
                    Version::V1 => "memory.limit_in_bytes",
                    Version::V2 => "memory.max",
                };
                group::write(parent, file, &bytes.to_string())?;
            }
            if let Some(tasks) = tasks {
                group::write(parent, "pids.max", &tasks.to_string())?;
            }
        }
        Ok(memory)
    }
}

fn total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The smaller of the two bounds the kernel has.
fn task_numbers() -> Option<u64> {
    let read = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{file}")).ok()?;
        text.trim().parse().ok()
    };
    Some(read("pid_max")?.min(read("threads-max")?))
}
