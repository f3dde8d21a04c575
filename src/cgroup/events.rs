//! OOM kills of a group.

use std::path::Path;

use super::stat::field;

/// v2 `memory.events`: `oom_kill N`.
pub(super) fn oom_kills_v2(dir: &Path) -> u64 {
    field(
        &std::fs::read_to_string(dir.join("memory.events")).unwrap_or_default(),
        "oom_kill",
    )
}

/// v1 `memory.oom_control`: `oom_kill N` (since Linux 4.13).
pub(super) fn oom_kills_v1(dir: &Path) -> u64 {
    field(
        &std::fs::read_to_string(dir.join("memory.oom_control")).unwrap_or_default(),
        "oom_kill",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_on_both_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(oom_kills_v2(dir.path()), 0, "a group that is gone has none");
        std::fs::write(
            dir.path().join("memory.events"),
            "low 0\noom 2\noom_kill 1\n",
        )
        .expect("written");
        std::fs::write(
            dir.path().join("memory.oom_control"),
            "under_oom 0\noom_kill 3\n",
        )
        .expect("written");
        assert_eq!(oom_kills_v2(dir.path()), 1);
        assert_eq!(oom_kills_v1(dir.path()), 3);
    }
}
