//! Writable layers with a bound in bytes and inodes, whatever the state directory lies on.
//!
//! A volume is a small ext4 file system without journal in a sparse file, over a loop device.
//! Its file has no name and its mount no place in any namespace: both go with the last
//! descriptor, so nothing is left mounted or on disk after any end of ours. The bound is the
//! file system's own size, so a dyno gets `ENOSPC` and `df` tells the truth, and no quota support
//! of the kernel is needed (project quotas are missing in many).
//!
//! Making one costs about 3 ms, so a few of each size lie ready ([`Disks::take`]), and a volume
//! is emptied and used again ([`Disks::put_back`]), both off the launch path. Where no loop device
//! or no `mkfs.ext4` is, volumes are tmpfs of the same bound, charged to the dyno's memory; that
//! is said once at start and in `manifold disk`.
//!
//! Builds get theirs at a path ([`Disks::bound`]); an app's build cache is a file that stays.
//!
//! What a dyno made of its layer is read off the layer itself ([`changes`]).
//!
//! Absent on purpose: keeping data. A dyno's files end with it; a cache that was not unmounted
//! in order is made anew rather than repaired.

mod bounded;
mod changes;
mod error;
mod image;
mod pool;
mod taken;
mod volume;

pub use bounded::{Keep, sweep};
pub use changes::{Change, Changes, FileKind, How, changes};
pub use error::DiskError;
pub use pool::{Disks, Mechanism};
#[cfg(test)]
pub(crate) use taken::du;
pub use taken::{Count, freed};
pub use volume::{Usage, Volume};
