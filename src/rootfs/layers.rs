//! What lies over every stack: per-dyno files, and what of the kernel is hidden.

use std::path::PathBuf;
use std::sync::OnceLock;

/// Covered with nothing: kernel memory, keys, timers and schedulers of the whole host, firmware.
/// Source: what container engines mask, and the isolation contract's K rows.
const MASKED: &[&str] = &[
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kallsyms",
    "/proc/interrupts",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/acpi",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/devices/virtual/powercap",
];

/// [`MASKED`] and what is there once per processor: their heat tells of other dynos' work. Looked up
/// once, this host's processors do not change.
pub fn masked() -> &'static [PathBuf] {
    static PATHS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    PATHS.get_or_init(|| {
        let mut paths: Vec<PathBuf> = MASKED.iter().map(PathBuf::from).collect();
        let processors = std::fs::read_dir("/sys/devices/system/cpu").into_iter();
        let heat = processors
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("thermal_throttle"));
        paths.extend(heat.filter(|path| path.is_dir()));
        paths
    })
}

/// Readable, never writable. Source: the same.
pub const READ_ONLY: &[&str] = &[
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
];

/// Files of one dyno, relative to its root: to be written into its upper layer.
pub fn dyno_files(hostname: &str) -> [(&'static str, String); 2] {
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n"
    );
    [
        ("etc/hosts", hosts),
        ("etc/hostname", format!("{hostname}\n")),
    ]
}
