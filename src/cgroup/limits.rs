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
}

impl From<&DynoSize> for Limits {
    fn from(size: &DynoSize) -> Self {
        Self {
            memory_bytes: size.memory_bytes,
            cpu_shares: size.cpu_shares,
            tasks_max: size.tasks_max,
        }
    }
}

impl Limits {
    /// Where the kernel's own OOM kill is: R15's place, twice the quota.
    pub fn memory_max_bytes(&self) -> u64 {
        self.memory_bytes.saturating_mul(2)
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
            };
            assert_eq!(limits.cpu_weight(), weight, "{shares}");
        }
    }
}
