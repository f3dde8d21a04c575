//! One dyno's group.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::limits::CPU_PERIOD_US;
use super::offers::Offers;
use super::{CgroupError, Limits, Sampler, Version, events};
use crate::sys;

/// How long the kernel may take to let go of a group whose tasks are dead.
pub(super) const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// Between two looks at a group that empties: nothing announces it on v1.
pub(super) const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// Processes that are held by a descriptor at the same time.
const HELD_AT_ONCE: usize = 256;

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

impl Entry {
    /// Its descriptors, and whether they are a v2 directory.
    pub fn into_fds(self) -> (Vec<OwnedFd>, bool) {
        match self {
            Self::V2(dir) => (vec![dir], true),
            Self::V1(tasks) => (tasks, false),
        }
    }
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
    /// Makes the directories; on failure none is left.
    pub(super) fn make(version: Version, dirs: Vec<PathBuf>) -> Result<Self, CgroupError> {
        let group = Self::existing(version, dirs);
        for dir in &group.dirs {
            if let Err(source) = std::fs::create_dir(dir) {
                let error = CgroupError::Make {
                    path: dir.clone(),
                    source,
                };
                let _ = group.remove();
                return Err(error);
            }
        }
        Ok(group)
    }

    /// The group of existing directories, the memory controller's first.
    pub(super) fn existing(version: Version, dirs: Vec<PathBuf>) -> Self {
        Self {
            version,
            memory: dirs.first().cloned().unwrap_or_default(),
            dirs,
        }
    }

    pub(super) fn limit(&self, limits: &Limits, offers: &Offers) -> Result<(), CgroupError> {
        let has_swap = offers.has_swap;
        let memory = limits.memory_max_bytes(has_swap).to_string();
        let tasks = limits.tasks_max.to_string();
        for (at, dir) in self.dirs.iter().enumerate() {
            let set = |file: &str, value: &str| {
                if offers.lacks_file(at, file) {
                    return Ok(());
                }
                write(dir, file, value)
            };
            match self.version {
                Version::V2 => {
                    set("memory.max", &memory)?;
                    if has_swap {
                        let swap = limits.total_max_bytes() - limits.memory_bytes;
                        set("memory.swap.max", &swap.to_string())?;
                    }
                    // One dyno dies whole, not by a random process.
                    set("memory.oom.group", "1")?;
                    set("cpu.weight", &limits.cpu_weight().to_string())?;
                    if let Some(quota) = limits.cpu_quota_us() {
                        set("cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
                    }
                    if let Some(file) = offers.io_weight
                        && limits.io_weight != IO_WEIGHT
                    {
                        set(file, &limits.io_weight.to_string())?;
                    }
                    set("pids.max", &tasks)?;
                }
                Version::V1 => {
                    set("memory.limit_in_bytes", &memory)?;
                    let total = limits.total_max_bytes().to_string();
                    set("memory.memsw.limit_in_bytes", &total)?;
                    // v1 counts what sockets hold only where it is limited, and apart: unlimited,
                    // one dyno could fill what the host's TCP has for all.
                    let quota = limits.memory_bytes.to_string();
                    set("memory.kmem.tcp.limit_in_bytes", &quota)?;
                    set("cpu.shares", &limits.cpu_shares.to_string())?;
                    if let Some(quota) = limits.cpu_quota_us() {
                        set("cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                        set("cpu.cfs_quota_us", &quota.to_string())?;
                    }
                    if let Some(file) = offers.io_weight
                        && limits.io_weight != IO_WEIGHT
                    {
                        set(file, &limits.io_weight.to_string())?;
                    }
                    set("pids.max", &tasks)?;
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

    /// Its name below the parent group.
    pub fn name(&self) -> String {
        let name = self.memory.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
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
            kill_members(dir, &pids(dir));
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

fn pids(dir: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills those of `listed` that are in the group. A number may be another process's by now: each
/// is held by a descriptor first, and only then looked for in the group once more.
fn kill_members(dir: &Path, listed: &[u32]) {
    for some in listed.chunks(HELD_AT_ONCE) {
        let held = some
            .iter()
            .filter_map(|pid| Some((*pid, sys::pidfd_open(*pid).ok()?)));
        let held: Vec<(u32, OwnedFd)> = held.collect();
        let members: BTreeSet<u32> = pids(dir).into_iter().collect();
        for (_, pidfd) in held.iter().filter(|(pid, _)| members.contains(pid)) {
            // It may have ended by itself.
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }
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
        Ok(mut opened) => sys::fault(&format!("write {file}"))
            .and_then(|()| io::Write::write_all(&mut opened, value.as_bytes())),
    }
    .map_err(|source| CgroupError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that waits to be killed.
    fn sleeper() -> std::process::Child {
        let mut command = std::process::Command::new("sleep");
        command.arg("1000").spawn().expect("started")
    }

    #[test]
    fn a_number_that_is_no_member_any_more_is_not_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut member, mut foreign) = (sleeper(), sleeper());
        let procs = format!("{}\n", member.id());
        std::fs::write(dir.path().join("cgroup.procs"), procs).expect("written");
        // As if the list was read while another process had the second number.
        kill_members(dir.path(), &[member.id(), foreign.id()]);
        let status = member.wait().expect("ended");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(libc::SIGKILL));
        assert!(foreign.try_wait().expect("asked").is_none());
        foreign.kill().expect("killed");
        foreign.wait().expect("ended");
    }
}
