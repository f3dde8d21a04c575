//! What a dyno may use, and the values both cgroup versions want for it.

use crate::model::DynoSize;

/// Limits of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The quota in bytes: R14 above it.
    pub memory_bytes: u64,
    /// v1 units: 1024 is one share.
    pub cpu_shares: u64,
    /// Processes and threads.
    pub tasks_max: u64,
    /// Hard limit of CPU time in per cent of one CPU.
    pub cpu_percent: Option<u32>,
    /// 1 to 1000.
    pub io_weight: u32,
}

/// One period of a hard CPU limit in microseconds: the kernel's default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;

impl From<&DynoSize> for Limits {
    fn from(size: &DynoSize) -> Self {
        Self {
            memory_bytes: size.memory_bytes,
            cpu_shares: size.cpu_shares,
            tasks_max: size.tasks_max,
            cpu_percent: size.cpu_percent,
            io_weight: size.io_weight,
        }
    }
}

impl Limits {
    /// Memory and swap together, at which the kernel kills: R15's place, twice the quota.
    pub fn total_max_bytes(&self) -> u64 {
        self.memory_bytes.saturating_mul(2)
    }

    /// Memory alone. Past the quota a dyno is to go on (R14), more slowly: in swap where the host
    /// has some, in memory where it has none.
    pub fn memory_max_bytes(&self, has_swap: bool) -> u64 {
        if has_swap {
            self.memory_bytes
        } else {
            self.total_max_bytes()
        }
    }

    /// Microseconds of CPU time in each period, if there is a hard limit; the kernel takes no
    /// less than a millisecond.
    pub fn cpu_quota_us(&self) -> Option<u64> {
        let percent = self.cpu_percent?;
        Some((u64::from(percent) * CPU_PERIOD_US / 100).max(1000))
    }

    /// The v2 weight (1 to 10000, default 100) for v1 shares (2 to 262144, default 1024), so
    /// that the defaults meet. Source: cgroup-v2, "CPU"; systemd and runc use the same idea.
    pub fn cpu_weight(&self) -> u64 {
        (self.cpu_shares.saturating_mul(100) / 1024).clamp(1, 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_with_the_defaults_meeting() {
        for (shares, weight) in [
            (2, 1),
            (1024, 100),
            (2048, 200),
            (51_200, 5000),
            (262_144, 10_000),
        ] {
            let limits = Limits {
                memory_bytes: 1,
                cpu_shares: shares,
                tasks_max: 1,
                cpu_percent: Some(50),
                io_weight: 100,
            };
            assert_eq!(limits.cpu_quota_us(), Some(50_000));
            assert_eq!(limits.cpu_weight(), weight, "{shares}");
        }
    }
}
