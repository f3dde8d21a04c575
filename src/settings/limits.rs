//! What the host gives to dynos and keeps for itself: `[disk]`, `[reserve]`, `[sizes.NAME]`.
//!
//! ```toml
//! [disk]                      # MiB
//! reserve_mb = 2048           # never taken by dynos and builds; default 5 %, at most 5 GiB
//! build_mb = 8192             # one build: source and what it makes of it
//! cache_mb = 2048             # build cache of one app
//! keep_releases = 50          # of one app: what older ones need is removed
//!
//! [reserve]
//! memory_mb = 512             # kept from all dynos together; default 1/8, 128 MiB to 1 GiB
//!
//! [sizes.Tiny]                # a size of your own, for ps:type and ps:scale
//! memory_mb = 128
//! cpu_shares = 512            # 1024 is one Standard-1X
//! cpu_percent = 50            # hard limit, of one CPU; left out: none
//! tasks = 64
//! disk_mb = 256
//! inodes = 20000
//! io_weight = 50              # 1 to 1000
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SettingsError;
use crate::model::{BYTES_PER_INODE, DiskLimit, DynoSize};

const MIB: u64 = 1 << 20;

/// Bounds of the disk below the state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSettings {
    /// Kept free, if the operator said how much.
    pub reserve_bytes: Option<u64>,
    /// A build's working directory.
    pub build: DiskLimit,
    /// An app's build cache.
    pub cache: DiskLimit,
    /// Releases of one app whose files stay, beside what runs.
    pub keep_releases: u32,
}

impl Default for DiskSettings {
    fn default() -> Self {
        Self {
            reserve_bytes: None,
            build: limit(8192),
            cache: limit(2048),
            keep_releases: 50,
        }
    }
}

impl DiskSettings {
    /// What is kept free of a file system of so many bytes.
    pub fn reserve(&self, total_bytes: u64) -> u64 {
        self.reserve_bytes
            .unwrap_or_else(|| (total_bytes / 20).min(5 << 30))
    }
}

/// Memory that all dynos together leave to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReserveSettings {
    /// If the operator said how much.
    pub memory_bytes: Option<u64>,
}

impl ReserveSettings {
    /// What is kept of a memory of so many bytes.
    pub fn memory(&self, total_bytes: u64) -> u64 {
        self.memory_bytes
            .unwrap_or_else(|| (total_bytes / 8).clamp(128 * MIB, 1024 * MIB))
    }
}

fn limit(mib: u64) -> DiskLimit {
    DiskLimit {
        bytes: mib * MIB,
        inodes: mib * MIB / BYTES_PER_INODE,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileDisk {
    #[serde(rename = "reserve_mb")]
    reserve: Option<u64>,
    #[serde(rename = "build_mb")]
    build: Option<u64>,
    #[serde(rename = "cache_mb")]
    cache: Option<u64>,
    keep_releases: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileReserve {
    memory_mb: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSize {
    memory_mb: u64,
    cpu_shares: Option<u64>,
    cpu_percent: Option<u32>,
    tasks: Option<u64>,
    disk_mb: Option<u64>,
    inodes: Option<u64>,
    io_weight: Option<u32>,
}

fn within(
    key: &'static str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, SettingsError> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(SettingsError::Value {
        key,
        value: value.to_string(),
        reason: format!("give a number from {} to {}", range.start(), range.end()),
    })
}

pub(super) fn disk(file: &FileDisk) -> Result<DiskSettings, SettingsError> {
    let default = DiskSettings::default();
    let or = |key, given: Option<u64>, default: DiskLimit| match given {
        None => Ok(default),
        Some(mib) => within(key, mib, 16..=4 << 20).map(limit),
    };
    let reserve = file
        .reserve
        .map(|mib| within("disk.reserve_mb", mib, 0..=1 << 30).map(|mib| mib * MIB));
    Ok(DiskSettings {
        reserve_bytes: reserve.transpose()?,
        build: or("disk.build_mb", file.build, default.build)?,
        cache: or("disk.cache_mb", file.cache, default.cache)?,
        keep_releases: match file.keep_releases {
            None => default.keep_releases,
            Some(count) => {
                let count = within("disk.keep_releases", count, 1..=1_000_000)?;
                u32::try_from(count).unwrap_or(u32::MAX)
            }
        },
    })
}

pub(super) fn reserve(file: &FileReserve) -> Result<ReserveSettings, SettingsError> {
    let memory = file
        .memory_mb
        .map(|mib| within("reserve.memory_mb", mib, 16..=1 << 24).map(|mib| mib * MIB));
    Ok(ReserveSettings {
        memory_bytes: memory.transpose()?,
    })
}

pub(super) fn sizes(file: &BTreeMap<String, FileSize>) -> Result<Vec<DynoSize>, SettingsError> {
    file.iter()
        .map(|(name, size)| one_size(name, size))
        .collect()
}

fn one_size(name: &str, file: &FileSize) -> Result<DynoSize, SettingsError> {
    let refuse = |reason: &str| SettingsError::Value {
        key: "sizes",
        value: name.to_owned(),
        reason: reason.to_owned(),
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 30 || !name.chars().all(is_word) {
        return Err(refuse(
            "a size is named by up to 30 letters, digits, `-` and `_`",
        ));
    }
    if DynoSize::is_taken(name) {
        return Err(refuse("the platform has a size of that name already"));
    }
    let standard = DynoSize::default();
    let memory_mib = within("sizes.memory_mb", file.memory_mb, 16..=1 << 24)?;
    let disk_mib = match file.disk_mb {
        Some(mib) => within("sizes.disk_mb", mib, 16..=4 << 20)?,
        None => standard.disk.bytes / MIB,
    };
    let mut disk = limit(disk_mib);
    if let Some(inodes) = file.inodes {
        disk.inodes = within("sizes.inodes", inodes, 128..=disk.bytes / 1024)?;
    }
    let percent = file.cpu_percent;
    if let Some(percent) = percent {
        within("sizes.cpu_percent", percent.into(), 1..=100_000)?;
    }
    let io = file.io_weight.unwrap_or(standard.io_weight);
    within("sizes.io_weight", io.into(), 1..=1000)?;
    let shares = file.cpu_shares.unwrap_or(standard.cpu_shares);
    let tasks = file.tasks.unwrap_or(standard.tasks_max);
    Ok(DynoSize {
        name: name.to_owned(),
        memory_bytes: memory_mib * MIB,
        cpu_shares: within("sizes.cpu_shares", shares, 2..=262_144)?,
        tasks_max: within("sizes.tasks", tasks, 4..=1 << 22)?,
        cpu_percent: percent,
        disk,
        io_weight: io,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<DynoSize, String> {
        let file: FileSize = toml::from_str(text).map_err(|error| error.to_string())?;
        one_size("Tiny", &file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_of_ones_own_stands_on_the_standard_one() {
        let tiny = size("memory_mb = 128\ncpu_percent = 50\ninodes = 5000").expect("a size");
        assert_eq!(tiny.memory_bytes, 128 * MIB);
        assert_eq!(tiny.cpu_percent, Some(50));
        assert_eq!(tiny.disk.inodes, 5000);
        assert_eq!(tiny.disk.bytes, DynoSize::default().disk.bytes);
        assert_eq!(tiny.tasks_max, DynoSize::default().tasks_max);
    }

    #[test]
    fn sizes_out_of_range_are_refused_by_key() {
        for (text, key) in [
            ("memory_mb = 1", "memory_mb"),
            ("memory_mb = 64\ncpu_percent = 0", "cpu_percent"),
            ("memory_mb = 64\nio_weight = 5000", "io_weight"),
            ("memory_mb = 64\ntasks = 1", "tasks"),
            ("memory_mb = 64\nunknown = 1", "unknown"),
            ("cpu_shares = 64", "memory_mb"),
        ] {
            let error = size(text).expect_err(text);
            assert!(error.contains(key), "{error}");
        }
        let file: FileSize = toml::from_str("memory_mb = 64").expect("parsed");
        assert!(one_size("standard-1x", &file).is_err(), "taken");
        assert!(one_size("a/b", &file).is_err(), "a path");
    }

    #[test]
    fn reserves_grow_with_the_host_up_to_a_point() {
        let disk = DiskSettings::default();
        assert_eq!(disk.reserve(20 << 30), 1 << 30);
        assert_eq!(disk.reserve(4 << 40), 5 << 30);
        let reserve = ReserveSettings::default();
        assert_eq!(reserve.memory(512 * MIB), 128 * MIB);
        assert_eq!(reserve.memory(64 << 30), 1024 * MIB);
    }
}
