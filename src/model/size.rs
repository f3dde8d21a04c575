//! Dyno sizes: those of the platform, and those of the host's settings.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A dyno size: what a dyno of it may use.
/// Source: Dev Center, "Dyno Types", "Limits" (MB there is MiB).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DynoSize {
    /// Canonical name, as `ps` prints it (`Standard-1X`).
    pub name: String,
    /// Memory quota in bytes: R14 above it.
    pub memory_bytes: u64,
    /// CPU shares in cgroup v1 units (1024 = one share).
    pub cpu_shares: u64,
    /// Most processes and threads together.
    pub tasks_max: u64,
    /// Hard limit of CPU time in per cent of one CPU; none: only shares count.
    #[serde(default)]
    pub cpu_percent: Option<u32>,
    /// Bound of the writable layer, `/tmp` and all.
    #[serde(default)]
    pub disk: DiskLimit,
    /// Weight of disk I/O, 1 to 1000 (100 is one share), where the host has it.
    #[serde(default = "io_weight")]
    pub io_weight: u32,
}

/// A bound of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DiskLimit {
    /// Its size in bytes, its own tables included.
    pub bytes: u64,
    /// Files, directories and links together.
    pub inodes: u64,
}

impl Default for DiskLimit {
    /// Of the default size.
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            inodes: 131_072,
        }
    }
}

fn io_weight() -> u32 {
    100
}

/// Sizes of the settings file. They are part of what names mean in this process, as the table
/// below is, so that a name read from the store or the API is looked up in one place.
static CUSTOM: OnceLock<Vec<DynoSize>> = OnceLock::new();

/// An unknown size name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Couldn't find that dyno size ({0}). There are {names}.", names = names())]
pub struct SizeError(pub String);

fn names() -> String {
    let names: Vec<String> = DynoSize::all().into_iter().map(|s| s.name).collect();
    names.join(", ")
}

const MIB: u64 = 1 << 20;

/// The sizes of the platform: name, memory in MiB, CPU shares, tasks, disk in MiB. The platform
/// publishes no disk figures; these are ours.
const SIZES: &[(&str, u64, u64, u64, u64)] = &[
    ("Eco", 512, 1024, 256, 1024),
    ("Basic", 512, 1024, 256, 1024),
    ("Standard-1X", 512, 1024, 256, 1024),
    ("Standard-2X", 1024, 2048, 512, 2048),
    ("PX", 6144, 51_200, 32_768, 16_384),
    ("Performance-M", 2560, 12_288, 16_384, 8192),
    ("Performance-L", 14_336, 51_200, 32_768, 16_384),
    ("Performance-L-RAM", 30_720, 51_200, 32_768, 16_384),
    ("Performance-XL", 63_488, 102_400, 32_768, 32_768),
    ("Performance-2XL", 129_024, 204_800, 32_768, 32_768),
    ("Private-S", 1024, 2048, 512, 2048),
];

/// Bytes of disk for each inode of a size.
pub const BYTES_PER_INODE: u64 = 8192;

/// Older and shorter names of the same sizes.
const ALIASES: &[(&str, &str)] = &[
    ("1X", "Standard-1X"),
    ("2X", "Standard-2X"),
    ("Free", "Eco"),
    ("Hobby", "Basic"),
];

impl DynoSize {
    /// The size of that name, in any case.
    ///
    /// # Errors
    /// [`SizeError`] for a name that is in no table.
    pub fn find(name: &str) -> Result<Self, SizeError> {
        let alias = ALIASES
            .iter()
            .find(|(old, _)| old.eq_ignore_ascii_case(name));
        let wanted = alias.map_or(name, |(_, new)| new);
        Self::all()
            .into_iter()
            .find(|size| size.name.eq_ignore_ascii_case(wanted))
            .ok_or_else(|| SizeError(name.to_owned()))
    }

    /// Every size there is.
    pub fn all() -> Vec<Self> {
        let custom = CUSTOM.get().into_iter().flatten().cloned();
        Self::platform().into_iter().chain(custom).collect()
    }

    /// Adds the sizes of the settings, once in a process, before the first look-up.
    pub fn define(sizes: Vec<Self>) {
        // A second supervisor in one process (tests) has the same settings or none.
        let _ = CUSTOM.set(sizes);
    }

    /// The sizes of the platform.
    pub fn platform() -> Vec<Self> {
        let make =
            |&(name, memory_mib, cpu_shares, tasks_max, disk_mib): &(&str, u64, u64, u64, u64)| {
                let bytes = disk_mib * MIB;
                Self {
                    name: name.to_owned(),
                    memory_bytes: memory_mib * MIB,
                    cpu_shares,
                    tasks_max,
                    cpu_percent: None,
                    disk: DiskLimit {
                        bytes,
                        inodes: bytes / BYTES_PER_INODE,
                    },
                    // One share is 100; the largest sizes meet the top.
                    io_weight: u32::try_from((cpu_shares * 100 / 1024).clamp(1, 1000))
                        .unwrap_or(1000),
                }
            };
        SIZES.iter().map(make).collect()
    }

    /// True if a name means something already.
    pub fn is_taken(name: &str) -> bool {
        let alias = ALIASES.iter().map(|(old, _)| *old);
        let mut names = SIZES.iter().map(|(known, ..)| *known).chain(alias);
        names.any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Default for DynoSize {
    /// `Standard-1X`.
    fn default() -> Self {
        Self::find("Standard-1X").expect("the default size is in the table")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_in_any_case_and_by_old_names() {
        for name in ["standard-1x", "STANDARD-1X", "1x"] {
            assert_eq!(DynoSize::find(name), Ok(DynoSize::default()), "{name}");
        }
        assert_eq!(
            DynoSize::find("2X").map(|s| s.memory_bytes),
            Ok(1_073_741_824)
        );
        assert!(DynoSize::find("Huge").is_err());
        // Source: Dev Center, "Dyno Types", "Limits", and of 2014 for PX.
        for (name, gib_hundredths, tasks) in [
            ("free", 50, 256),
            ("2x", 100, 512),
            ("px", 600, 32_768),
            ("performance-m", 250, 16_384),
            ("performance-l", 1400, 32_768),
            ("performance-l-ram", 3000, 32_768),
            ("performance-xl", 6200, 32_768),
            ("performance-2xl", 12_600, 32_768),
            ("private-s", 100, 512),
        ] {
            let size = DynoSize::find(name).expect(name);
            let bytes = gib_hundredths * (1 << 30) / 100;
            assert_eq!(
                (size.memory_bytes, size.tasks_max),
                (bytes, tasks),
                "{name}"
            );
        }
    }
}
