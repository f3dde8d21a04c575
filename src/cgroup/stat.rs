//! What a group uses: `memory.stat` of both versions.

/// Memory of a group in bytes. Source: Dev Center, "Log Runtime Metrics".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Swapped out.
    pub swap: u64,
    /// Pages charged and uncharged so far; v2 counts nothing of that meaning.
    pub paged: Option<(u64, u64)>,
}

impl Memory {
    /// rss, cache and swap together: what R14 looks at.
    pub fn total(&self) -> u64 {
        self.rss + self.cache + self.swap
    }

    /// rss and swap: what R15 looks at.
    pub fn without_cache(&self) -> u64 {
        self.rss + self.swap
    }

    /// A v1 group's `memory.stat`.
    pub(super) fn parse_v1(text: &str) -> Self {
        Self {
            rss: field(text, "total_rss"),
            cache: field(text, "total_cache"),
            swap: field(text, "total_swap"),
            paged: Some((field(text, "total_pgpgin"), field(text, "total_pgpgout"))),
        }
    }

    /// A v2 group's `memory.stat` and `memory.swap.current`.
    pub(super) fn parse_v2(text: &str, swap: &str) -> Self {
        Self {
            rss: field(text, "anon"),
            cache: field(text, "file"),
            swap: swap.trim().parse().unwrap_or(0),
            paged: None,
        }
    }
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
    fn both_versions_are_parsed() {
        let text = "cache 1\nrss 2\ntotal_cache 10\ntotal_rss 20\ntotal_swap 30\ntotal_pgpgin 4\ntotal_pgpgout 5\n";
        let v1 = Memory::parse_v1(text);
        let expected = Memory {
            rss: 20,
            cache: 10,
            swap: 30,
            paged: Some((4, 5)),
        };
        assert_eq!(v1, expected);
        assert_eq!((v1.total(), v1.without_cache()), (60, 50));
        let v2 = Memory::parse_v2("anon 5\nfile 6\nanon_thp 7\n", "8\n");
        let expected = Memory {
            rss: 5,
            cache: 6,
            swap: 8,
            paged: None,
        };
        assert_eq!(v2, expected);
        assert_eq!(Memory::parse_v2("anon 5\n", "").swap, 0);
    }
}
