//! The nouns of the platform, in Heroku's words.
//!
//! Purpose: the types every room speaks; parsing them is the one validator of names that later
//! become paths, cgroup names, host names and labels. Pure: no I/O, no async, no clock.
//! Deliberately absent: anything about how a thing is stored, launched or served.

mod app;
mod buildpack;
mod config;
mod domain;
mod dyno;
mod feature;
mod formation;
mod ids;
mod network;
mod release;
mod routing;
mod size;
mod stack;

pub use app::{AppName, NameError};
pub use buildpack::{BUILDPACKS_MAX, BUILT_IN, Buildpack, BuildpackError};
pub use config::{ConfigError, ConfigVars, TOTAL_BYTES_MAX};
pub use domain::{Hostname, HostnameError};
pub use dyno::{DynoName, DynoNameError, DynoState, ExitStatus};
pub use feature::{Feature, FeatureError};
pub use formation::{
    COMMAND_BYTES_MAX, FormationEntry, PROCESS_TYPES_MAX, ProcessType, ProcessTypeError,
    ScaleError, ScaleRequest,
};
pub use ids::{AppId, BuildId, DynoId, ReleaseId, SlugId};
pub use network::{
    APP_ADDRESS_PORT, APP_ADDRESSES_MAX, HostPort, Net, NetError, NetworkTarget,
    NetworkTargetError, Protocol, app_address,
};
pub use release::{Digest, DigestError, ReleaseStatus, ReleaseVersion};
pub use routing::{CONCURRENCY_MAX, Routing, RoutingError, RoutingPolicy, WEB_CONCURRENCY};
pub use size::{BYTES_PER_INODE, DiskLimit, DynoSize, SizeError};
pub use stack::{StackImage, StackName, StackNameError, StackRef};
