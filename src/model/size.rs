//! Dyno sizes.

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
}

/// An unknown size name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Couldn't find that dyno size ({0}). There are {names}.", names = names())]
pub struct SizeError(pub String);

fn names() -> String {
    let names: Vec<&str> = SIZES.iter().map(|(name, ..)| *name).collect();
    names.join(", ")
}

const MIB: u64 = 1 << 20;

/// The sizes of the platform: name, memory in MiB, CPU shares, tasks.
pub const SIZES: &[(&str, u64, u64, u64)] = &[
    ("Eco", 512, 1024, 256),
    ("Basic", 512, 1024, 256),
    ("Standard-1X", 512, 1024, 256),
    ("Standard-2X", 1024, 2048, 512),
    ("Performance-M", 2560, 12_288, 16_384),
    ("Performance-L", 14_336, 51_200, 32_768),
    ("Performance-L-RAM", 30_720, 51_200, 32_768),
    ("Performance-XL", 63_488, 102_400, 32_768),
    ("Performance-2XL", 129_024, 204_800, 32_768),
    ("Private-S", 1024, 2048, 512),
];

/// Older and shorter names of the same sizes.
const ALIASES: &[(&str, &str)] = &[
    ("1X", "Standard-1X"),
    ("2X", "Standard-2X"),
    ("Free", "Eco"),
    ("Hobby", "Basic"),
    ("PX", "Performance-M"),
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
        SIZES
            .iter()
            .find(|(known, ..)| known.eq_ignore_ascii_case(wanted))
            .map(|&(name, memory_mib, cpu_shares, tasks_max)| Self {
                name: name.to_owned(),
                memory_bytes: memory_mib * MIB,
                cpu_shares,
                tasks_max,
            })
            .ok_or_else(|| SizeError(name.to_owned()))
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
    }
}
