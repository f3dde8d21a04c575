//! The words for memory past its quota, and what the kernel says of its own kills.

/// `528M`: as the platform's lines have it, without decimals.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{}M", (bytes + (1 << 19)) >> 20)
}

/// `Process running mem=528M(103.3%)`. Source: Dev Center, "Heroku Error Codes", R14.
pub fn running_line(bytes: u64, quota_bytes: u64) -> String {
    let tenths = bytes.saturating_mul(1000) / quota_bytes.max(1);
    format!(
        "Process running mem={}({}.{}%)",
        megabytes(bytes),
        tenths / 10,
        tenths % 10
    )
}

/// Source: Dev Center, "Heroku Error Codes", R14.
pub const R14: &str = "Error R14 (Memory quota exceeded)";

/// Source: the same, R15.
pub const R15: &str = "Error R15 (Memory quota vastly exceeded)";

/// A process that the kernel killed for memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Victim {
    /// Its name, as the kernel has it (a tenant chose it: printable characters only).
    pub(super) name: String,
    /// What it had resident.
    pub(super) bytes: u64,
}

/// Of the kernel's messages the kills in the group whose path has `group` in it: the largest.
/// Format: `oom-kill:...,oom_memcg=/a/b,task_memcg=/a/b,task=NAME,pid=N,uid=N`, then
/// `Memory cgroup out of memory: Killed process N (NAME) ..., anon-rss:NkB, file-rss:NkB,
/// shmem-rss:NkB, ...`. Source: linux, `mm/oom_kill.c`.
pub(super) fn victim(messages: &[String], group: &str) -> Option<Victim> {
    let of_group = |text: &&String| text.contains("oom_memcg=") && text.contains(group);
    // A name may have commas in it: the pid is the last of its kind.
    let pids = messages.iter().filter(of_group).filter_map(|text| {
        let (_, rest) = text.rsplit_once(",pid=")?;
        rest.split(',').next()
    });
    let pids: Vec<&str> = pids.collect();
    // With group kill only the first has a line of its own; the others follow it.
    let mut best: Option<Victim> = None;
    for text in messages {
        let Some((_, rest)) = text.split_once("Killed process ") else {
            continue;
        };
        let Some((pid, rest)) = rest.split_once(" (") else {
            continue;
        };
        if !pids.contains(&pid) {
            continue;
        }
        let Some((name, sizes)) = rest.rsplit_once(") total-vm:") else {
            continue;
        };
        let bytes = ["anon-rss:", "file-rss:", "shmem-rss:"]
            .iter()
            .filter_map(|key| kilobytes(sizes, key))
            .sum::<u64>()
            * 1024;
        if best.as_ref().is_none_or(|known| known.bytes < bytes) {
            let name = name.chars().filter(char::is_ascii_graphic).collect();
            best = Some(Victim { name, bytes });
        }
    }
    best
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let (_, rest) = text.split_once(key)?;
    rest.split("kB").next()?.parse().ok()
}

/// What the app's owner reads of a kill by the kernel.
pub(super) fn out_of_memory_lines(
    victim: Option<&Victim>,
    curve: &str,
    peak_bytes: u64,
    quota_bytes: u64,
) -> Vec<String> {
    let who = match victim {
        Some(victim) => format!("{} ({} resident)", victim.name, megabytes(victim.bytes)),
        None => "a process".to_owned(),
    };
    vec![
        format!("Out of memory: the kernel killed {who}; memory before: {curve}"),
        running_line(peak_bytes, quota_bytes),
        R15.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_has_one_decimal_and_memory_none() {
        let quota = 512 << 20;
        assert_eq!(
            running_line(529 << 20, quota),
            "Process running mem=529M(103.3%)"
        );
        assert_eq!(
            running_line(1025 << 20, quota),
            "Process running mem=1025M(200.1%)"
        );
    }

    #[test]
    fn the_kernels_words_name_the_largest_victim_of_this_group() {
        let messages = [
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/m/other,task_memcg=/m/other,task=x,pid=1,uid=0",
            "Memory cgroup out of memory: Killed process 1 (x) total-vm:1kB, anon-rss:9999999kB, file-rss:0kB, shmem-rss:0kB, UID:0",
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/m/mine,task_memcg=/m/mine,task=a),pid=7,,pid=42,uid=1",
            "Memory cgroup out of memory: Killed process 42 (a),pid=7,) total-vm:9kB, anon-rss:1024kB, file-rss:1024kB, shmem-rss:0kB, UID:1",
        ]
        .map(str::to_owned);
        let found = victim(&messages, "/mine").expect("a victim");
        assert_eq!((found.name.as_str(), found.bytes), ("a),pid=7,", 2 << 20));
        assert_eq!(victim(&messages, "/nobody"), None);
        let lines = out_of_memory_lines(Some(&found), "1M, 2M (the last 2 s)", 3 << 20, 1 << 20);
        assert_eq!(
            lines,
            [
                "Out of memory: the kernel killed a),pid=7, (2M resident); memory before: 1M, 2M (the last 2 s)",
                "Process running mem=3M(300.0%)",
                "Error R15 (Memory quota vastly exceeded)",
            ]
        );
    }
}
