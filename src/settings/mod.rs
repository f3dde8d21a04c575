//! The host's own settings: `/etc/manifold/manifold.toml` and `supervise` flags.
//! (Here "config" always means config vars.) Pure, but for reading the one file.

mod acme;
mod file;
mod limits;
mod paths;
mod proxies;
mod stacks;

pub use acme::{AcmeChallenge, AcmeSettings};
pub use file::{
    DEFAULT_FILE, Flags, NetworkSettings, PlaceFlags, Settings, SettingsError, Timings,
    UninstallFlags,
};
pub use limits::{DiskSettings, ReserveSettings};
pub use paths::Paths;
pub use proxies::{Block, ProxySettings};
pub use stacks::{StackBuildFlags, StackImportFlags};
