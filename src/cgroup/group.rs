//! One dyno's group.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::limits::CPU_PERIOD_US;
use super::offers::Offers;
use super::{CgroupError, Limits, Sampler, Version, events};

/// How long the kernel may take to let go of a group whose tasks are dead.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// Between two looks at a group that empties: nothing announces it on v1.
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// The weight that a group has from the start.
const IO_WEIGHT: u32 = 100;

/// What a launch needs to start inside a group.
#[derive(Debug)]
pub enum Entry {
    /// The directory, for `CLONE_INTO_CGROUP`.
    V2(OwnedFd),
    /// `tasks` files open for writing: the new process writes "0" to each.
    V1(Vec<OwnedFd>),
}

/// One dyno's group: a directory on v2, one per controller on v1.
#[derive(Clone, Debug)]
pub struct Group {
    version: Version,
    memory: PathBuf,
    /// All distinct directories.
    dirs: Vec<PathBuf>,
}

impl Group {
    /// Makes the directories (mode 0700) and sets the limits; on failure none is left.
    pub(super) fn make(
        version: Version,
        memory: PathBuf,
        dirs: Vec<PathBuf>,
        limits: &Limits,
        offers: &Offers,
    ) -> Result<Self, CgroupError> {
        let group = Self {
            version,
            memory,
            dirs,
        };
        for dir in &group.dirs {
            let made = crate::sys::fault("make the cgroup");
            if let Err(source) = made.and_then(|()| std::fs::create_dir(dir)) {
                let error = CgroupError::Make {
                    path: dir.clone(),
                    source,
                };
                let _ = group.remove();
                return Err(error);
            }
        }
        match group.limit(limits, offers) {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// The group of existing directories (sweeping).
    pub(super) fn existing(version: Version, dirs: Vec<PathBuf>) -> Self {
        Self {
            version,
            memory: dirs.first().cloned().unwrap_or_default(),
            dirs,
        }
    }

    fn limit(&self, limits: &Limits, offers: &Offers) -> Result<(), CgroupError> {
        let has_swap = offers.has_swap;
        let memory = limits.memory_max_bytes(has_swap).to_string();
        let tasks = limits.tasks_max.to_string();
        for dir in &self.dirs {
            match self.version {
                Version::V2 => {
                    write(dir, "memory.max", &memory)?;
                    if has_swap {
                        let swap = limits.total_max_bytes() - limits.memory_bytes;
                        write(dir, "memory.swap.max", &swap.to_string())?;
                    }
                    // One dyno dies whole, not by a random process.
                    write(dir, "memory.oom.group", "1")?;
                    write(dir, "cpu.weight", &limits.cpu_weight().to_string())?;
                    if let Some(quota) = limits.cpu_quota_us() {
                        write(dir, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
                    }
                    if let Some(file) = offers.io_weight
                        && limits.io_weight != IO_WEIGHT
                    {
                        write(dir, file, &limits.io_weight.to_string())?;
                    }
                    write(dir, "pids.max", &tasks)?;
                }
                Version::V1 => {
                    write(dir, "memory.limit_in_bytes", &memory)?;
                    let total = limits.total_max_bytes().to_string();
                    write(dir, "memory.memsw.limit_in_bytes", &total)?;
                    write(dir, "cpu.shares", &limits.cpu_shares.to_string())?;
                    if let Some(quota) = limits.cpu_quota_us() {
                        write(dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                        write(dir, "cpu.cfs_quota_us", &quota.to_string())?;
                    }
                    write(dir, "pids.max", &tasks)?;
                }
            }
        }
        Ok(())
    }

    /// What a launch into this group needs.
    ///
    /// # Errors
    /// A control file that cannot be opened.
    pub fn entry(&self) -> Result<Entry, CgroupError> {
        let open = |path: PathBuf, write: bool, flags: i32| {
            let mut options = OpenOptions::new();
            options.read(!write).write(write).custom_flags(flags);
            let file: io::Result<File> = options.open(&path);
            file.map(OwnedFd::from)
                .map_err(|source| CgroupError::Read { path, source })
        };
        match self.version {
            Version::V2 => open(self.memory.clone(), false, libc::O_DIRECTORY).map(Entry::V2),
            Version::V1 => {
                let tasks = self.dirs.iter().map(|dir| open(dir.join("tasks"), true, 0));
                tasks.collect::<Result<_, _>>().map(Entry::V1)
            }
        }
    }

    /// The group's directories, for tests and reports.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// A reader of its figures.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn sampler(&self) -> Result<Sampler, CgroupError> {
        let tasks = self.dirs.first().cloned();
        Sampler::open(self.version, &self.memory, tasks)
    }

    /// The most memory it ever had charged; v2 tells since Linux 5.19.
    pub fn peak(&self) -> Option<u64> {
        let file = match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        let text = std::fs::read_to_string(self.memory.join(file)).ok()?;
        text.trim().parse().ok()
    }

    /// OOM kills so far.
    pub fn oom_kills(&self) -> u64 {
        match self.version {
            Version::V1 => events::oom_kills_v1(&self.memory),
            Version::V2 => events::oom_kills_v2(&self.memory),
        }
    }

    /// Kills every process in the group (ours, by construction).
    pub fn kill(&self) {
        for dir in &self.dirs {
            // v2 since Linux 5.14: atomic, no race with forks.
            if self.version == Version::V2 && std::fs::write(dir.join("cgroup.kill"), "1").is_ok() {
                continue;
            }
            for pid in pids(dir) {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    /// Removes the group: kills what is left and waits for the kernel to let go.
    ///
    /// # Errors
    /// It is still busy after some seconds (a task in uninterruptible sleep).
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_DEADLINE;
        for dir in &self.dirs {
            while let Err(source) = std::fs::remove_dir(dir) {
                match source.kind() {
                    io::ErrorKind::NotFound => break,
                    _ if Instant::now() < deadline => {
                        self.kill();
                        std::thread::park_timeout(REMOVE_PAUSE);
                    }
                    _ => {
                        return Err(CgroupError::Remove {
                            path: dir.clone(),
                            source,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

fn pids(dir: &Path) -> Vec<nix::unistd::Pid> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.parse().ok())
        .map(nix::unistd::Pid::from_raw)
        .collect()
}

/// Writes a control file; one that this controller or host does not have is skipped.
pub(super) fn write(dir: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = dir.join(file);
    match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(CgroupError::Write {
                path,
                value: value.to_owned(),
                source,
            });
        }
        Ok(mut opened) => crate::sys::fault(&format!("write {file}"))
            .and_then(|()| io::Write::write_all(&mut opened, value.as_bytes())),
    }
    .map_err(|source| CgroupError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}
