//! What a group uses: `memory.stat` of both versions.

use std::path::Path;

use super::CgroupError;

/// Memory of a group in bytes. Source: Dev Center, "Log Runtime Metrics".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Swapped out.
    pub swap: u64,
}

impl Memory {
    /// rss, cache and swap together: what R14 looks at.
    pub fn total(&self) -> u64 {
        self.rss + self.cache + self.swap
    }

    /// Reads a v1 memory group's directory.
    pub(super) fn read_v1(dir: &Path) -> Result<Self, CgroupError> {
        let text = read(&dir.join("memory.stat"))?;
        Ok(Self {
            rss: field(&text, "total_rss"),
            cache: field(&text, "total_cache"),
            swap: field(&text, "total_swap"),
        })
    }

    /// Reads a v2 group's directory.
    pub(super) fn read_v2(dir: &Path) -> Result<Self, CgroupError> {
        let text = read(&dir.join("memory.stat"))?;
        // Absent on hosts without swap accounting: then nothing can be swapped by the group.
        let swap = std::fs::read_to_string(dir.join("memory.swap.current")).unwrap_or_default();
        Ok(Self {
            rss: field(&text, "anon"),
            cache: field(&text, "file"),
            swap: swap.trim().parse().unwrap_or(0),
        })
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    std::fs::read_to_string(path).map_err(|source| CgroupError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The number after `key` at the start of a line, 0 if the kernel does not have it.
pub(super) fn field(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_from_fixtures() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("memory.stat");
        std::fs::write(
            &path,
            "cache 1\nrss 2\ntotal_cache 10\ntotal_rss 20\ntotal_swap 30\n",
        )
        .expect("written");
        let v1 = Memory::read_v1(dir.path()).expect("read");
        assert_eq!(
            v1,
            Memory {
                rss: 20,
                cache: 10,
                swap: 30
            }
        );
        assert_eq!(v1.total(), 60);
        std::fs::write(&path, "anon 5\nfile 6\nanon_thp 7\n").expect("written");
        std::fs::write(dir.path().join("memory.swap.current"), "8\n").expect("written");
        assert_eq!(
            Memory::read_v2(dir.path()).expect("read"),
            Memory {
                rss: 5,
                cache: 6,
                swap: 8
            }
        );
    }
}
