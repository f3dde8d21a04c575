//! Where our groups lie, and the sweep of what an earlier run left.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::{Controllers, Hierarchy as _, hierarchies};

use super::offers::Offers;
use super::own::Own;
use super::weights::{self, Scheduling};
use super::{CgroupError, Group, Limits};

/// The interface a host offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy per controller (hybrid hosts too).
    V1,
    /// The unified hierarchy.
    V2,
}

/// Leaf our own processes move to when our service's group is delegated to us: on v2 a group
/// with controllers may not hold processes itself.
const OWN_LEAF: &str = "supervisor";

/// The parent group of all dynos of one supervisor.
#[derive(Clone, Debug)]
pub struct Manager {
    version: Version,
    /// Distinct parent directories; the memory controller's first.
    parents: Vec<PathBuf>,
    pub(super) offers: Offers,
    pub(super) own: Option<Own>,
}

impl Manager {
    /// Finds the hierarchies and makes the parent group `name` (`manifold-1a2b3c4d`). What dynos
    /// write lies on the disk of `state`.
    ///
    /// # Errors
    /// No controllers, or the group cannot be made.
    pub fn open(name: &str, state: &Path) -> Result<Self, CgroupError> {
        let cost = std::fs::read_to_string("/sys/fs/cgroup/io.cost.qos").unwrap_or_default();
        let scheduling = weights::scheduling(Path::new("/sys"), state, &cost);
        let mut manager = if hierarchies::is_cgroup2_unified_mode() {
            let (base, leaf) = v2_base(&hierarchies::V2::new().root())?;
            let own = Own {
                is_ours: leaf.is_none(),
                dir: leaf.unwrap_or_else(|| own_dir(&base, name)),
            };
            Self {
                version: Version::V2,
                parents: vec![base.join(name)],
                offers: Offers::default(),
                own: Some(own),
            }
        } else {
            let cpu = hierarchies::V1::new().get_mount_point(Controllers::Cpu);
            Self {
                version: Version::V1,
                parents: v1_parents(name, scheduling == Scheduling::Bfq)?,
                offers: Offers::default(),
                own: cpu.map(|(mount, _)| Own {
                    dir: own_dir(&mount, name),
                    is_ours: true,
                }),
            }
        };
        for parent in &manager.parents {
            make(parent)?;
            if manager.version == Version::V2 {
                delegate(parent)?;
            }
        }
        manager.offers = Offers::of(manager.version, &manager.parents, has_swap(), &scheduling);
        Ok(manager)
    }

    /// What this host cannot enforce, in sentences for its operator.
    pub fn lacks(&self) -> &[String] {
        &self.offers.lacks
    }

    /// The parent groups, one on v2, one per hierarchy on v1.
    pub(super) fn parents(&self) -> &[PathBuf] {
        &self.parents
    }

    /// Which interface this host offers.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Makes the group of the dyno that gets this slot, without limits: it may be made ahead. Its
    /// name is never used twice, so that the kernel's old messages are of nobody who lives.
    ///
    /// # Errors
    /// See [`CgroupError`]; nothing is left then.
    pub fn make(&self, slot: u16) -> Result<Group, CgroupError> {
        let random = uuid::Uuid::new_v4().as_fields().0;
        let dirs = self.dirs(&format!("{slot:04x}-{random:08x}"));
        Group::make(self.version, dirs)
    }

    /// Sets the limits of a group.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn limit(&self, group: &Group, limits: &Limits) -> Result<(), CgroupError> {
        group.limit(limits, &self.offers)
    }

    /// The group of this name that an earlier supervisor made.
    pub fn inherit(&self, name: &str) -> Group {
        Group::existing(self.version, self.dirs(name))
    }

    fn dirs(&self, name: &str) -> Vec<PathBuf> {
        self.parents
            .iter()
            .map(|parent| parent.join(name))
            .collect()
    }

    /// Kills and removes every group below ours but those of `living` names. Call before the first
    /// launch.
    ///
    /// # Errors
    /// The first group that stayed; the others are removed all the same.
    pub fn sweep(&self, living: &BTreeSet<String>) -> Result<usize, CgroupError> {
        let mut by_name: BTreeMap<std::ffi::OsString, Vec<PathBuf>> = BTreeMap::new();
        for parent in &self.parents {
            for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
                let is_living = entry
                    .file_name()
                    .to_str()
                    .is_some_and(|n| living.contains(n));
                if !is_living && entry.file_type().is_ok_and(|t| t.is_dir()) {
                    by_name
                        .entry(entry.file_name())
                        .or_default()
                        .push(entry.path());
                }
            }
        }
        let mut first = Ok(());
        let count = by_name.len();
        for dirs in by_name.into_values() {
            let group = Group::existing(self.version, dirs);
            group.kill();
            first = first.and(group.remove());
        }
        first.map(|()| count)
    }

    /// Removes the (empty) parent group and our own.
    ///
    /// # Errors
    /// The first that stayed: it is not empty.
    pub fn close(&self) -> Result<(), CgroupError> {
        let parents = Group::existing(self.version, self.parents.clone()).remove();
        parents.and(self.release())
    }
}

/// Makes a group that may be there.
pub(super) fn make(dir: &Path) -> Result<(), CgroupError> {
    match std::fs::create_dir(dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(CgroupError::Make {
            path: dir.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn own_dir(base: &Path, name: &str) -> PathBuf {
    base.join(format!("{name}.own"))
}

/// True if there is anything below the head of /proc/swaps.
fn has_swap() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().nth(1).is_some()
}

/// v1: where memory, cpu and pids are mounted; controllers mounted together share a directory.
/// One more group costs each launch, so that of disk I/O is made only where it has an effect; what an
/// earlier run made is used and removed by us.
fn v1_parents(name: &str, has_weights: bool) -> Result<Vec<PathBuf>, CgroupError> {
    let hierarchy = hierarchies::V1::new();
    let mut parents: Vec<PathBuf> = Vec::new();
    let all = [
        (Controllers::Mem, true),
        (Controllers::Cpu, true),
        (Controllers::Pids, true),
        (Controllers::BlkIo, has_weights),
    ];
    for (controller, is_wanted) in all {
        let Some((mount, _)) = hierarchy.get_mount_point(controller) else {
            continue;
        };
        let parent = mount.join(name);
        if (is_wanted || parent.is_dir()) && !parents.contains(&parent) {
            parents.push(parent);
        }
    }
    if parents.is_empty() {
        Err(CgroupError::NotMounted)
    } else {
        Ok(parents)
    }
}

/// v2: our own service's group when systemd delegated it to us, with the leaf that our processes
/// are in; else the top.
fn v2_base(root: &Path) -> Result<(PathBuf, Option<PathBuf>), CgroupError> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own
        .lines()
        .find_map(|l| l.strip_prefix("0::/"))
        .unwrap_or_default();
    // A second start finds us in the leaf already.
    let own = own.strip_suffix(&format!("/{OWN_LEAF}")).unwrap_or(own);
    if Path::new(own).extension().is_none_or(|e| e != "service") {
        delegate(root)?;
        return Ok((root.to_owned(), None));
    }
    let base = root.join(own);
    let leaf = base.join(OWN_LEAF);
    make(&leaf)?;
    let procs = std::fs::read_to_string(base.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines() {
        let path = leaf.join("cgroup.procs");
        std::fs::write(&path, pid).map_err(|source| CgroupError::Write {
            path,
            value: pid.to_owned(),
            source,
        })?;
    }
    delegate(&base)?;
    Ok((base, Some(leaf)))
}

/// Lets the children of a v2 group have limits; what is missing then is found by its files.
fn delegate(group: &Path) -> Result<(), CgroupError> {
    let path = group.join("cgroup.subtree_control");
    for controller in ["memory", "cpu", "pids", "io"] {
        let value = format!("+{controller}");
        match std::fs::write(&path, &value) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(CgroupError::Write {
                    path,
                    value,
                    source,
                });
            }
            Err(error) => {
                tracing::debug!(%error, "{}: no {controller}", path.display());
            }
            Ok(()) => {}
        }
    }
    Ok(())
}
