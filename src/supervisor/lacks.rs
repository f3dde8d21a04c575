//! What this host cannot enforce: said once at start, then to whoever asks.

use nix::sys::resource::{Resource, getrlimit};

use crate::cgroup::Manager;
use crate::disk::{Disks, Mechanism};
use crate::dyno::OPEN_FILES_MAX;
use crate::keeper::OOM_SCORE;

/// Below this the memory of one dyno suffices for all open files of the host.
const HOST_FILES_MIN: u64 = 1_000_000;

/// Sentences for the operator: what has no effect, why, and what to do.
pub(super) fn lacks(cgroups: &Manager, disks: &Disks) -> Vec<String> {
    let mut lacks = cgroups.lacks().to_vec();
    if let Mechanism::Memory { reason } = disks.mechanism() {
        lacks.push(format!(
            "writable layers lie in memory, charged to their dynos, and builds are not bounded: {reason}"
        ));
    }
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    lacks.extend(privileges(files, score.trim().parse().ok()));
    let all_files = std::fs::read_to_string("/proc/sys/fs/file-max").unwrap_or_default();
    lacks.extend(all_files.trim().parse().ok().and_then(host_files));
    lacks
}

/// Open files of the whole host (`fs.file-max`), of which no dyno has a part of its own. A number
/// too large for us is none to speak of.
fn host_files(most: u64) -> Option<String> {
    (most < HOST_FILES_MIN).then(|| {
        format!(
            "one dyno can use up the {most} open files of the whole host: raise fs.file-max (`sysctl fs.file-max=9223372036854775807`, which systemd does at boot)"
        )
    })
}

fn privileges(open_files: u64, oom_score: Option<i32>) -> Vec<String> {
    let mut lacks = Vec::new();
    if open_files < OPEN_FILES_MAX {
        lacks.push(format!(
            "a dyno may have {open_files} open files, not {OPEN_FILES_MAX}: the supervisor was started with this hard limit (LimitNOFILE= of its service, or CAP_SYS_RESOURCE)"
        ));
    }
    if oom_score.is_some_and(|score| score > OOM_SCORE) {
        lacks.push("when the host's memory runs out the kernel may kill the supervisor or its keeper: lowering oom_score_adj was refused (it needs CAP_SYS_RESOURCE)".to_owned());
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_privileges_are_told_and_present_ones_are_not() {
        assert!(privileges(OPEN_FILES_MAX, Some(OOM_SCORE)).is_empty());
        let lacks = privileges(4096, Some(0));
        assert!(lacks[0].contains("may have 4096 open files"), "{lacks:?}");
        assert!(lacks[1].contains("CAP_SYS_RESOURCE"), "{lacks:?}");
    }

    #[test]
    fn few_open_files_of_the_host_are_told() {
        let told = host_files(199_812).expect("few");
        assert!(told.contains("the 199812 open files"), "{told}");
        assert_eq!(host_files(1_000_000), None);
        assert_eq!(host_files(i64::MAX as u64), None);
    }
}
