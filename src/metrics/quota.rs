//! Memory against its quota.

use crate::cgroup::Memory;
use crate::supervisor::{R14, R15, running_line};

/// R15 is at so many times the quota. Source: Dev Center, "Heroku Error Codes", R15.
const VASTLY: u64 = 2;

/// What a sample comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Below the quota.
    Within,
    /// Goes on, and is told at every sample.
    Exceeded([String; 2]),
    /// Is killed.
    VastlyExceeded([String; 2]),
}

/// Page cache counts for R14, not for R15.
pub(super) fn judge(memory: &Memory, quota_bytes: u64) -> Verdict {
    let (total, held) = (memory.total(), memory.without_cache());
    if held >= quota_bytes.saturating_mul(VASTLY) {
        return Verdict::VastlyExceeded([running_line(held, quota_bytes), R15.to_owned()]);
    }
    if total > quota_bytes {
        return Verdict::Exceeded([running_line(total, quota_bytes), R14.to_owned()]);
    }
    Verdict::Within
}

/// True if a second look at the kinds of memory is due now: R15 may be near.
pub(super) fn is_near(charged_bytes: u64, quota_bytes: u64) -> bool {
    // Charged memory has no swap in it: with swap the kernel keeps it below the quota.
    charged_bytes >= quota_bytes - quota_bytes / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[track_caller]
    fn check(rss: u64, cache: u64, swap: u64, expected: Option<[&str; 2]>, is_fatal: bool) {
        let memory = Memory {
            rss: rss * MIB,
            cache: cache * MIB,
            swap: swap * MIB,
            paged: None,
        };
        let expected = expected.map(|lines| lines.map(str::to_owned));
        let expected = match (expected, is_fatal) {
            (None, _) => Verdict::Within,
            (Some(lines), false) => Verdict::Exceeded(lines),
            (Some(lines), true) => Verdict::VastlyExceeded(lines),
        };
        assert_eq!(judge(&memory, 512 * MIB), expected);
    }

    #[test]
    fn cache_is_r14_and_never_r15() {
        let r14 = "Error R14 (Memory quota exceeded)";
        let r15 = "Error R15 (Memory quota vastly exceeded)";
        check(512, 0, 0, None, false);
        let line = "Process running mem=513M(100.1%)";
        check(513, 0, 0, Some([line, r14]), false);
        check(13, 500, 0, Some([line, r14]), false);
        check(13, 0, 500, Some([line, r14]), false);
        let line = "Process running mem=1524M(297.6%)";
        check(1023, 501, 0, Some([line, r14]), false);
        let line = "Process running mem=1025M(200.1%)";
        check(512, 400, 513, Some([line, r15]), true);
    }

    #[test]
    fn a_closer_look_comes_before_the_quota() {
        assert!(!is_near(400 * MIB, 512 * MIB));
        assert!(is_near(500 * MIB, 512 * MIB));
    }
}
