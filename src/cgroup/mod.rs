//! Control groups: one group per dyno, on cgroup v1, hybrid and v2 hosts.
//!
//! The crate cgroups-rs tells which hierarchies are mounted where. The rest is done by hand: the
//! launch path needs open `tasks` files (v1) or a directory descriptor (v2), which it does not
//! give; and it takes v1 shares for v2 weights unconverted.
//!
//! Memory: R14 is a warning at the quota and R15 kills at twice of it, so the kernel's limit is
//! twice the quota (memory and swap together where swap is accounted); a kernel OOM kill is the
//! last line behind the sampler.
//!
//! All dynos lie in one parent group, which leaves memory and task numbers to the host. Beside it
//! lies the group of the supervisor and its keeper, with more weight than all dynos together.

mod error;
mod events;
mod group;
mod limits;
mod manager;
mod offers;
mod own;
mod reserve;
mod sampler;
mod stat;
mod weights;

pub use error::CgroupError;
pub use group::{Entry, Group};
pub use limits::Limits;
pub use manager::{Manager, Version};
pub use sampler::{Glance, Sampler};
pub use stat::Memory;
