//! What a process used, thread by thread, and on which core it may run.

use std::fs;
use std::ops::Sub;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// CPU time so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Nanoseconds on a core, as the scheduler counts them.
    pub(super) nanos: u64,
    /// Clock ticks in user and in kernel mode: exact only over many of them.
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(before.nanos),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }
}

/// What the threads of a process used whose names begin with `name` (empty: all).
pub(super) fn used(pid: u32, name: &str) -> Result<Used> {
    let mut sum = Used::default();
    for thread in threads(pid, name)? {
        let dir = format!("/proc/{pid}/task/{thread}");
        let run = fs::read_to_string(format!("{dir}/schedstat"))?;
        let stat = fs::read_to_string(format!("{dir}/stat"))?;
        let one = parse(&run, &stat).with_context(|| format!("cannot read {dir}"))?;
        sum.nanos += one.nanos;
        sum.user_ticks += one.user_ticks;
        sum.system_ticks += one.system_ticks;
    }
    Ok(sum)
}

fn parse(schedstat: &str, stat: &str) -> Option<Used> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|text| text.parse().ok());
    Some(Used {
        nanos: schedstat.split_whitespace().next()?.parse().ok()?,
        user_ticks: ticks()?,
        system_ticks: ticks()?,
    })
}

/// Ids of the threads whose names begin with `name`.
pub(super) fn threads(pid: u32, name: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(name) {
            found.push(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Ok(found)
}

/// Lets a thread (0: this one) run on one core only.
pub(super) fn pin(thread: i32, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(thread), &cores)
        .with_context(|| format!("cannot pin a thread to core {core}"))
}

/// Resident memory in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<u64> = line.and_then(|text| text.split_whitespace().next()?.parse().ok());
    Ok(kilobytes.context("no VmRSS")? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 250 0 0 20 0 1 0 9";
        let used = parse("123456789 5 6\n", stat).expect("fields");
        let wanted = Used {
            nanos: 123_456_789,
            user_ticks: 150,
            system_ticks: 250,
        };
        assert_eq!(used, wanted);
    }
}
