//! A group's figures through files that stay open: 0.6 µs a read against 5.7 with an open each.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::stat::field;
use super::{CgroupError, Memory, Version};

/// Longest file we read: `memory.stat` of v2 has about 2 KiB; tasks of a whole dyno 300 KiB.
const BYTES_MAX: usize = 1 << 20;

/// What is cheap to know, every second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// All memory that is charged, page cache too, swap not.
    pub charged_bytes: u64,
    /// OOM kills since the group was made.
    pub oom_kills: u64,
}

/// Reads one group. A group that is gone gives errors, never another group's figures.
#[derive(Debug)]
pub struct Sampler {
    version: Version,
    dir: PathBuf,
    pids_dir: Option<PathBuf>,
    current: File,
    events: File,
    /// Opened when first asked for: most dynos live shorter than a sampling period.
    stat: OnceLock<File>,
}

impl Sampler {
    pub(super) fn open(
        version: Version,
        dir: &Path,
        pids_dir: Option<PathBuf>,
    ) -> Result<Self, CgroupError> {
        let (current, events) = match version {
            Version::V1 => ("memory.usage_in_bytes", "memory.oom_control"),
            Version::V2 => ("memory.current", "memory.events"),
        };
        Ok(Self {
            version,
            current: open(&dir.join(current))?,
            events: open(&dir.join(events))?,
            stat: OnceLock::new(),
            dir: dir.to_owned(),
            pids_dir,
        })
    }

    /// The cheap figures.
    ///
    /// # Errors
    /// The group is gone.
    pub fn glance(&self) -> io::Result<Glance> {
        Ok(Glance {
            charged_bytes: number(&self.current)?,
            oom_kills: field(&read(&self.events)?, "oom_kill"),
        })
    }

    /// Memory by kind.
    ///
    /// # Errors
    /// The group is gone.
    pub fn memory(&self) -> io::Result<Memory> {
        let stat = if let Some(stat) = self.stat.get() {
            stat
        } else {
            let file = File::open(self.dir.join("memory.stat"))?;
            self.stat.get_or_init(|| file)
        };
        let text = read(stat)?;
        Ok(match self.version {
            Version::V1 => Memory::parse_v1(&text),
            Version::V2 => {
                // Absent on hosts without swap.
                let swap = std::fs::read_to_string(self.dir.join("memory.swap.current"));
                Memory::parse_v2(&text, &swap.unwrap_or_default())
            }
        })
    }

    /// Processes and threads, and how many of them run or want to (state R).
    ///
    /// # Errors
    /// The group is gone.
    pub fn tasks(&self) -> io::Result<(u64, u64)> {
        let dir = self.pids_dir.as_ref().unwrap_or(&self.dir);
        let name = match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        };
        let text = read(&File::open(dir.join(name))?)?;
        let running = text.lines().filter(|tid| is_running(tid)).count() as u64;
        Ok((text.lines().count() as u64, running))
    }
}

/// `/proc/TID/stat`: the state follows the name, which may itself have brackets and spaces.
fn is_running(tid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('R'))
}

fn open(path: &Path) -> Result<File, CgroupError> {
    File::open(path).map_err(|source| CgroupError::Read {
        path: path.to_owned(),
        source,
    })
}

fn number(file: &File) -> io::Result<u64> {
    let text = read(file)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "a control file without a number",
        )
    })
}

/// From its start: the kernel makes the text anew for each read at 0.
fn read(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        let read = file.read_at(&mut bytes[length..], length as u64)?;
        length += read;
        if read == 0 || length >= BYTES_MAX {
            bytes.truncate(length);
            return String::from_utf8(bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_again_and_again_from_open_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("written");
        };
        put("memory.usage_in_bytes", "10\n");
        put("memory.oom_control", "under_oom 0\noom_kill 0\n");
        put("memory.stat", "total_rss 7\ntotal_pgpgin 3\n");
        let v1 = Sampler::open(Version::V1, dir.path(), None).expect("opened");
        assert_eq!(v1.glance().expect("read").charged_bytes, 10);
        put("memory.usage_in_bytes", "20\n");
        put("memory.oom_control", "under_oom 0\noom_kill 2\n");
        let seen = v1.glance().expect("read");
        assert_eq!((seen.charged_bytes, seen.oom_kills), (20, 2));
        assert_eq!(v1.memory().expect("read").rss, 7);
        put("memory.current", "5\n");
        put("memory.events", "oom_kill 1\n");
        let v2 = Sampler::open(Version::V2, dir.path(), None).expect("opened");
        assert_eq!(v2.glance().expect("read").oom_kills, 1);
        put("memory.current", "no number\n");
        assert!(v2.glance().is_err());
    }

    #[test]
    fn running_tasks_are_told_from_sleeping_ones() {
        let own = nix::unistd::gettid().to_string();
        assert!(is_running(&own), "this thread runs");
        assert!(!is_running("0"), "no such task");
    }
}
