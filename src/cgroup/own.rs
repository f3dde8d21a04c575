//! The group of the supervisor and its keeper: a share of the CPU, of disk I/O and of memory that
//! no set of dynos takes from them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::group::{REMOVE_DEADLINE, REMOVE_PAUSE, write};
use super::manager::Manager;
use super::{CgroupError, Version};

/// Ten times what all dynos together have: we need little, but at once.
const CPU_SHARES: u64 = 10_240;
const WEIGHT: u64 = 1000;

/// On v2 so much of our memory is never reclaimed, whoever needs it.
const MEMORY_MIN_BYTES: u64 = 64 << 20;

/// Where our own processes are, beside the dynos.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) dir: PathBuf,
    /// False: a leaf of a service's group, which goes with the service.
    pub(super) is_ours: bool,
}

impl Manager {
    /// Moves these processes of ours (supervisor and keeper, and so what they start) into a group
    /// of their own.
    ///
    /// # Errors
    /// The group cannot be made or entered.
    pub fn reserve_for(&self, pids: &[u32]) -> Result<(), CgroupError> {
        let Some(Own { dir, is_ours }) = &self.own else {
            return Ok(());
        };
        if *is_ours {
            super::manager::make(dir)?;
        }
        match self.version() {
            Version::V1 => write(dir, "cpu.shares", &CPU_SHARES.to_string())?,
            Version::V2 => {
                write(dir, "cpu.weight", &WEIGHT.to_string())?;
                if let Some(file) = self.offers.io_weight {
                    write(dir, file, &WEIGHT.to_string())?;
                }
                write(dir, "memory.min", &MEMORY_MIN_BYTES.to_string())?;
            }
        }
        pids.iter().try_for_each(|pid| enter(dir, &pid.to_string()))
    }

    /// Our last processes leave the group, and it goes.
    pub(super) fn release(&self) -> Result<(), CgroupError> {
        let Some(Own { dir, is_ours: true }) = &self.own else {
            return Ok(());
        };
        let parent = dir.parent().unwrap_or(dir);
        let path = dir.join("cgroup.procs");
        let deadline = Instant::now() + REMOVE_DEADLINE;
        loop {
            for pid in std::fs::read_to_string(&path).unwrap_or_default().lines() {
                match enter(parent, pid) {
                    // It ended meanwhile.
                    Err(CgroupError::Write { source, .. })
                        if source.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
            match std::fs::remove_dir(dir) {
                // One of ours that is gone in a moment, or began after the list was read.
                Err(source)
                    if source.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::park_timeout(REMOVE_PAUSE);
                }
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(CgroupError::Remove {
                        path: dir.clone(),
                        source,
                    });
                }
                _ => return Ok(()),
            }
        }
    }
}

fn enter(dir: &Path, pid: &str) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    std::fs::write(&path, pid).map_err(|source| CgroupError::Write {
        path,
        value: pid.to_owned(),
        source,
    })
}
