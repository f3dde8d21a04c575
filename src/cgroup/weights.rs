//! Weights of disk I/O: whether they have an effect is up to what schedules the disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// What schedules the disk of the state directory, which all layers of dynos lie on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheduling {
    /// By weights, of both cgroup versions.
    Bfq,
    /// By weights of cgroup v2, before any scheduler.
    Cost,
    /// Without: the disk's name.
    Unweighed(String),
    /// Several disks, none, or the network: nobody knows.
    Unknown,
}

/// For the disk that `dir` lies on; `sys` is /sys, `cost` the text of `io.cost.qos`.
/// Sources: sysfs(5); kernel's "BFQ", "Switching schedulers"; cgroup-v2, "IO Interface Files".
pub(super) fn scheduling(sys: &Path, dir: &Path, cost: &str) -> Scheduling {
    let Ok(found) = fs::metadata(dir) else {
        return Scheduling::Unknown;
    };
    let number = format!("{}:{}", major(found.dev()), minor(found.dev()));
    let Ok(device) = fs::canonicalize(sys.join("dev/block").join(number)) else {
        return Scheduling::Unknown;
    };
    of_device(&device, cost)
}

fn of_device(device: &Path, cost: &str) -> Scheduling {
    // A partition lies in its disk's directory.
    let disk = match device.parent() {
        Some(disk) if device.join("partition").exists() => disk,
        _ => device,
    };
    let below: Vec<PathBuf> = entries(&disk.join("slaves"));
    match below.as_slice() {
        // Of the device mapper: what lies below it does the work.
        [one] => return fs::canonicalize(one).map_or(Scheduling::Unknown, |d| of_device(&d, cost)),
        [] => {}
        _ => return Scheduling::Unknown,
    }
    let text = |file: &str| fs::read_to_string(disk.join(file)).unwrap_or_default();
    let number = text("dev");
    let has_cost = cost.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some(number.trim()) && words.any(|word| word == "enable=1")
    });
    if text("queue/scheduler").contains("[bfq]") {
        Scheduling::Bfq
    } else if has_cost {
        Scheduling::Cost
    } else {
        let name = disk.file_name().unwrap_or_default();
        Scheduling::Unweighed(name.to_string_lossy().into_owned())
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).into_iter().flatten().flatten();
    found.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(sys: &Path, name: &str, scheduler: &str) -> PathBuf {
        let disk = sys.join("block").join(name);
        fs::create_dir_all(disk.join("queue")).expect("made");
        fs::create_dir_all(disk.join("slaves")).expect("made");
        fs::write(disk.join("dev"), "8:0\n").expect("written");
        fs::write(disk.join("queue/scheduler"), scheduler).expect("written");
        disk
    }

    #[test]
    fn the_disk_below_partitions_and_mappers_decides() {
        let sys = tempfile::tempdir().expect("a directory");
        let sys = sys.path();
        let bfq = disk(sys, "sda", "none mq-deadline [bfq]\n");
        let part = bfq.join("sda1");
        fs::create_dir(&part).expect("made");
        fs::write(part.join("partition"), "1\n").expect("written");
        assert_eq!(of_device(&part, ""), Scheduling::Bfq);
        let mapper = disk(sys, "dm-0", "none\n");
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, mapper.join("slaves").join(name)).expect("linked");
        };
        link(&part, "sda1");
        assert_eq!(of_device(&mapper, ""), Scheduling::Bfq);
        let plain = disk(sys, "sdb", "none [mq-deadline] bfq\n");
        let unweighed = Scheduling::Unweighed("sdb".to_owned());
        assert_eq!(of_device(&plain, "8:16 enable=1\n8:0 enable=0"), unweighed);
        let cost = "8:0 enable=1 ctrl=auto\n";
        assert_eq!(of_device(&plain, cost), Scheduling::Cost);
        link(&plain, "sdb");
        assert_eq!(of_device(&mapper, ""), Scheduling::Unknown);
    }

    #[test]
    fn a_directory_on_no_block_device_is_not_known() {
        let sys = tempfile::tempdir().expect("a directory");
        let none = scheduling(sys.path(), Path::new("/proc"), "");
        assert_eq!(none, Scheduling::Unknown);
        let gone = scheduling(sys.path(), Path::new("/nonexistent"), "");
        assert_eq!(gone, Scheduling::Unknown);
    }
}
